"""Decode the images of folders, archives, lists and tables: each gives (uint8 (N,H,W,3), labels,
classes).
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from data.archives import IMAGE_ENDINGS
from utils.runtime import Cache, UserError, check_regular, printable

from . import bounds, heads, parquet
from .containers import Archive, Folder, OneFile, stamp
from .decoders import open_image
from .lists import LIST_ENDING, Listed, is_list

# To be raised when the same file gives other pixels, labels or classes than before: what was
# decoded before is not read then.
DECODING = 3

Source = Folder | Archive | Listed | parquet.Table


Size = int | tuple[int, int]  # the side of images, or (the side to resize to, that of the crop)


# pixels, labels and classes of the images that could be read, names of the others
Decoded = tuple[np.ndarray, np.ndarray | None, tuple[str, ...] | None, list[str]]


def fit_image(image: Image.Image, size: Size, crop_only: bool = False) -> Image.Image:
    """PIL image -> RGB, size x size: Resize(size) of the shorter side,
    bilinear with antialias; CenterCrop(size). A pair (resize, crop) instead of a size
    resizes to another side than it crops.
    """
    resize, size = size if isinstance(size, tuple) else (size, size)
    bounds.check_image(image.size, resized(image.size, resize))
    # 16-bit grey, which convert() would clip to white
    if image.mode == "I" or image.mode.startswith("I;16"):
        grey = np.array(image, np.int32)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"values of {grey.min()} to {grey.max()} are not 16-bit grey")
        grey += 128  # x / 257, rounded, without a copy in floating point
        grey //= 257
        image = Image.fromarray(grey.astype(np.uint8))
    elif image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    image = image.convert("RGB")
    width, height = image.size
    if (width, height) == (size, size) and resize == size:
        return image
    if not (crop_only and min(width, height) >= size):
        width, height = resized((width, height), resize)
        image = image.resize((width, height), Image.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def resized(size: tuple[int, int], side: int) -> tuple[int, int]:
    """(width, height) of an image whose shorter side is brought to ``side``."""
    width, height = size
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side


def fit_pixels(pixels: np.ndarray, size: Size, crop_only: bool = False) -> np.ndarray:
    """uint8 (N,H,W,3) -> (N,size,size,3), each image as by ``fit_image``."""
    side = crop_side(size)
    fitted = np.empty((len(pixels), side, side, 3), np.uint8)
    for place, image in zip(fitted, pixels):
        try:
            place[:] = fit_image(Image.fromarray(image), size, crop_only)
        except ValueError as error:  # too many pixels
            raise UserError(f"images cannot be brought to side {side}: {error}") from None
    return fitted


def read_image(source: Source, name: str, size: Size, crop_only: bool) -> np.ndarray:
    """One image of a Folder or Archive as uint8 (size,size,3)."""
    with warnings.catch_warnings(), source.open(name) as file:
        # Pillow's remarks on odd files: such a file is read as it is, or is an error
        warnings.simplefilter("ignore")
        with open_image(file) as image:
            return np.asarray(fit_image(image, size, crop_only))


def unreadable(source: Source, name: str, error: Exception) -> UserError:
    """The UserError of an image that cannot be decoded."""
    return UserError(
        f"{source.path}: image '{name}' cannot be read ({type(error).__name__}: {error}). "
        "Mend or remove it, or go on without it: --skip-bad"
    )


BRING = (
    "Bring image files in class folders or packed in a .zip or .tar, or an array .npz or .npy; "
    "data/README.md lists what else is read"
)


def no_image(source: Source) -> UserError:
    """The UserError of a folder or archive without images: what it holds, and what is read."""
    there = heads.kinds(getattr(source, "others", ()))
    return UserError(
        f"{source.path} holds no image ({', '.join(IMAGE_ENDINGS)}), but {there or 'nothing'}. {BRING}"
    )


def decode(
    source: Source,
    size: Size,
    crop_only: bool = False,
    skip_bad: bool = False,
    progress: Callable | None = None,
) -> Decoded:
    """Decode every image of a Folder or Archive: uint8 (N,size,size,3),
    labels from class folders, classes, bad names.

    Labels are None where the images do not lie in class folders. An unreadable image is a UserError
    that names it, or is left out and named in the returned list with ``skip_bad``.
    """
    if not source.names:
        raise no_image(source)
    labels, classes = labels_of(source)
    side = crop_side(size)
    pixels = np.empty((len(source.names), side, side, 3), np.uint8)
    readable = np.ones(len(source.names), bool)
    for i in progress(source.order) if progress else source.order:
        name = source.names[i]
        try:
            pixels[i] = read_image(source, name, size, crop_only)
        except Exception as error:
            if not skip_bad:
                raise unreadable(source, name, error) from None
            readable[i] = False
    if not readable.any():
        raise UserError(f"{source.path}: none of its {len(source.names)} images can be read")
    labels = None if labels is None else labels[readable]
    bad = [name for name, good in zip(source.names, readable) if not good]
    if bad:  # move up in place: a second array would be as large
        good = readable.nonzero()[0]
        for place, index in enumerate(good):
            pixels[place] = pixels[index]
        pixels = pixels[: len(good)]
    return pixels, labels, classes, bad


def crop_side(size: Size) -> int:
    """The side of images that ``fit_image`` brings to ``size``."""
    return size[1] if isinstance(size, tuple) else size


def labels_of(source: Source) -> tuple[np.ndarray | None, tuple[str, ...] | None]:
    """(int64 labels (N,) or None, class names or None) of a Folder, Archive, Listed or Table.

    The class is the first folder of a name, whatever folders lie below it.
    """
    if isinstance(source, (Listed, parquet.Table)):
        return source.labels, source.classes
    parents = [name.split("/")[0] if "/" in name else "" for name in source.names]
    if not all(parents):
        return None, None
    classes = tuple(sorted(set(parents), key=numbers_as_numbers(set(parents))))
    if len(classes) > bounds.CLASSES:
        raise UserError(f"{source.path} has {len(classes)} folders, more than classes can be")
    number = {name: i for i, name in enumerate(classes)}
    labels = np.array([number[parent] for parent in parents], dtype=np.int64)
    return labels, tuple(map(printable, classes))  # names that are not UTF-8 are written out


def numbers_as_numbers(names: Iterable[str]) -> Callable:
    """Key that sorts names: by their value where all are numbers, 10 after 9, else as text."""
    numbers = all(n.isdecimal() and len(n) <= bounds.LONGEST_NAME for n in names)
    return (lambda name: (int(name), name)) if numbers else str


def read_images(
    path: Path,
    data: str | Path,
    size: Size,
    crop_only: bool,
    skip_bad: bool,
    inside: str = "",
    source: Source | None = None,
) -> Decoded:
    """``decode`` a folder or archive once; afterwards its pixels come from an array file
    below the data folder's cache. ``source``: what ``open_source`` has found there.

    The file's name holds every image's name, size and time of change, and DECODING: what has
    changed is decoded again.
    """
    source = source or open_source(path, inside)
    cache = Cache(Path(data) / "cache", own=r".+-[0-9a-f]{16}")
    digest = decoding_digest(source, path, size, crop_only).hexdigest()
    name = f"{path.name}-{digest[:16]}"
    found = cached_images(cache.load(name), digest, source, crop_side(size))
    if found is not None and (skip_bad or not found[3]):
        return found

    def progress(names):
        return tqdm(
            names, desc=f"decoding {printable(path.name)}", unit="image", disable=None, leave=False
        )

    pixels, labels, classes, bad = decode(source, size, crop_only, skip_bad, progress)
    cache.save(name, {"pixels": pixels, "bad": np.array(bad, dtype=str), "key": np.array(digest)})
    return pixels, labels, classes, bad


def cached_images(
    arrays: dict[str, np.ndarray] | None, digest: str, source: Source, side: int
) -> Decoded | None:
    """What ``decode`` gives, of the arrays that the cache had; None where they are not those of
    this source, whatever their file is called.
    """
    if arrays is None or set(arrays) != {"pixels", "bad", "key"} or str(arrays["key"]) != digest:
        return None
    pixels, bad = arrays["pixels"], [str(name) for name in np.atleast_1d(arrays["bad"])]
    left_out = set(bad)
    readable = np.array([name not in left_out for name in source.names], dtype=bool)
    shape = (int(readable.sum()), side, side, 3)
    if pixels.dtype != np.uint8 or pixels.shape != shape or len(bad) + shape[0] != len(readable):
        return None
    labels, classes = labels_of(source)
    return pixels, None if labels is None else labels[readable], classes, bad


def decoding_digest(
    source: Source, path: Path, size: Size, crop_only: bool, *before: str
) -> "hashlib._Hash":
    """sha256 of what the pixels of a folder, list or archive depend on, and of texts ``before``."""
    files, inside = [path], ""
    if isinstance(source, parquet.Table):
        files, inside = source.files, source.inside
    elif isinstance(source, Archive):
        inside = source.inside
    else:  # as texts: of a million names pathlib takes a minute
        top = str(source.path / "x")[:-1]
        join = os.path.join if isinstance(source, Listed) else str.__add__
        files = (join(top, name) for name in source.names)
    parts = [*before, str(path.resolve()), inside, str(size), str(crop_only), str(DECODING)]
    digest = hashlib.sha256("\n".join(parts).encode(errors="surrogateescape"))
    for file in files:
        digest.update(f"\n{stamp(file)}".encode(errors="surrogateescape"))
    return digest


def open_source(path: Path, inside: str = "") -> Source:
    """The images of a folder, of a list, of parquet files, of an archive, or of the one image file
    that a path is; ``inside``: the part of the parquet files, or the folder in the archive, alone.
    """
    if path.is_dir():
        folder = Folder(path)
        exported = any(name.endswith(parquet.ENDING) for name in folder.others)
        return parquet.Table(path, inside) if exported and not folder.names else folder
    if path.suffix == LIST_ENDING:
        return Listed(path)
    if parquet.is_parquet(path):
        return parquet.Table(path)
    if heads.is_archive(path):
        return Archive(path, inside)
    if heads.is_image_file(path):
        return OneFile(path)
    if is_list(path):
        return Listed(path)
    check_regular(path)
    raise UserError(
        f"{path} is {heads.what_is(bounds.first_bytes(path))}, which is not read as images. {BRING}"
    )


def image_names(source: Source, bad: Iterable[str]) -> tuple[str, ...]:
    """Names of the images that ``read_images`` gives, in its order, in characters that can be
    written; ``bad`` were left out.
    """
    left_out = set(bad)
    return tuple(printable(name) for name in source.names if name not in left_out)
