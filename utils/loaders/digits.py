"""A data set that needs no download: scikit-learn's handwritten digits and what goes with them,
all from installed packages.

ID = the digits 0 to 5 (1,083 real 8x8 images upsampled to 3x32x32). OOD = the digits 6 to 9 (near),
patches of scikit-learn's two sample photographs, and the classic Gaussian, Rademacher and blob
images of Hendrycks et al. 2019. Auxiliary outliers = jigsaws and mixtures of ID training images,
constructions that no OOD test set holds.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

# what a reader gives: pixels uint8 (N,H,W,3), labels int64 (N,), names of the classes
Content = tuple[np.ndarray, np.ndarray | None, tuple[str, ...] | None]
ID_DIGITS = 6
IMAGES = 500  # of each generated OOD set
OUTLIERS = 2000


def upsampled_digits() -> tuple[np.ndarray, np.ndarray]:
    """All 1,797 digits as uint8 (N,32,32,3) and their labels (N,);
    the source's grey values go from 0 to 16.
    """
    from sklearn.datasets import load_digits

    content = load_digits()
    grey = (content.images * (255 / 16)).astype(np.uint8)
    large = np.stack(
        [np.asarray(Image.fromarray(image).resize((32, 32), Image.BILINEAR)) for image in grey]
    )
    return np.repeat(large[..., None], 3, axis=3), content.target.astype(np.int64)


def digits(split: str) -> Content:
    """The digits 0 to 5: a fixed random 70 % are "train", the rest "test"."""
    images, labels = upsampled_digits()
    known = np.flatnonzero(labels < ID_DIGITS)
    order = np.random.default_rng(0).permutation(known)
    cut = int(0.7 * len(order))
    chosen = order[:cut] if split == "train" else order[cut:]
    return images[chosen], labels[chosen], tuple("012345")


def held_out_digits(split: str) -> Content:
    """The digits 6 to 9: near OOD."""
    images, labels = upsampled_digits()
    return images[labels >= ID_DIGITS], labels[labels >= ID_DIGITS], None


def photo_patches(name: str) -> Callable[[str], Content]:
    """Reader of random 32x32 crops out of one of scikit-learn's sample photographs."""

    def read(split):
        from sklearn.datasets import load_sample_image

        photo, rng = load_sample_image(name), np.random.default_rng(1)
        rows = rng.integers(0, photo.shape[0] - 32, IMAGES)
        columns = rng.integers(0, photo.shape[1] - 32, IMAGES)
        return np.stack([photo[r : r + 32, c : c + 32] for r, c in zip(rows, columns)]), None, None

    return read


def gaussian(split: str) -> Content:
    """Pixels from N(0.5, 1) clipped to [0, 1]."""
    noise = np.random.default_rng(2).normal(0.5, 1, (IMAGES, 32, 32, 3))
    return (np.clip(noise, 0, 1) * 255).astype(np.uint8), None, None


def rademacher(split: str) -> Content:
    """Every value is 0 or 255 with equal chance."""
    return (
        np.random.default_rng(3).integers(0, 2, (IMAGES, 32, 32, 3)).astype(np.uint8) * 255,
        None,
        None,
    )


def blobs(split: str) -> Content:
    """Sharp-edged amorphous shapes: smoothed binary noise, cut at its threshold."""
    from scipy.ndimage import gaussian_filter  # slow to import, as the others here

    noise = np.random.default_rng(4).random((IMAGES, 32, 32, 3)) < 0.7
    smooth = np.stack(
        [gaussian_filter(image.astype(float), sigma=(1.5, 1.5, 0)) for image in noise]
    )
    smooth[smooth < 0.75] = 0
    return (smooth * 255).astype(np.uint8), None, None


def jigsaw(image: np.ndarray, tile: int, rng: np.random.Generator) -> np.ndarray:
    """The square tiles of an image (H,W,...) in random order."""
    rows, columns, rest = image.shape[0] // tile, image.shape[1] // tile, image.shape[2:]
    tiles = (
        image.reshape(rows, tile, columns, tile, *rest)
        .swapaxes(1, 2)
        .reshape(rows * columns, tile, tile, *rest)
    )
    tiles = tiles[rng.permutation(rows * columns)].reshape(rows, columns, tile, tile, *rest)
    return tiles.swapaxes(1, 2).reshape(image.shape)


def digit_outliers(split: str) -> Content:
    """A third each: jigsaws of 16 tiles, jigsaws of 64 tiles with an order of its own for each
    colour, and mixtures of two images of different classes with a weight
    of its own for each colour."""
    images, labels, _ = digits("train")
    rng = np.random.default_rng(5)
    made = []
    while len(made) < OUTLIERS:
        i, j = rng.integers(0, len(images), 2)
        if len(made) % 3 == 0:
            made.append(jigsaw(images[i], 8, rng))
        elif len(made) % 3 == 1:
            made.append(
                np.stack([jigsaw(images[i][..., colour], 4, rng) for colour in range(3)], axis=-1)
            )
        elif labels[i] != labels[j]:
            weight = rng.uniform(0.25, 0.75, 3)
            made.append((weight * images[i] + (1 - weight) * images[j]).astype(np.uint8))
    return np.stack(made), None, None
