"""Read images from official files, folders, archives and arrays: each reader returns (uint8 (N,H,W,3), labels, classes)."""
import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import loadmat

from .runtime import UserError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".ppm", ".pgm", ".tif", ".tiff", ".webp", ".gif")
ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARRAY_ENDINGS = (".npz", ".npy")


class ArraysOnly(pickle.Unpickler):
    """Unpickler for the official CIFAR batches that builds NumPy arrays and plain containers and nothing else."""

    ALLOWED = {("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
               ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return super().find_class(module, name)


def read_cifar(folder, split):
    """CIFAR-10 or CIFAR-100 (fine labels) from the folder of the official python version."""
    names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    if (folder / "meta").exists():
        names = [split]
    pixels, labels = [], []
    for name in names:
        try:
            with open(folder / name, "rb") as file:
                batch = ArraysOnly(file, encoding="bytes").load()
            pixels.append(np.asarray(batch[b"data"], dtype=np.uint8).reshape(-1, 3, 32, 32))
            labels += list(batch[b"fine_labels"] if b"fine_labels" in batch else batch[b"labels"])
        except FileNotFoundError:
            raise UserError(f"{folder / name} is missing. Run: python data/download.py --check") from None
        except Exception as error:
            raise UserError(f"{folder / name} is not an official CIFAR batch ({error})") from None
    return np.concatenate(pixels).transpose(0, 2, 3, 1), np.array(labels, dtype=np.int64), None


def read_svhn(path, split):
    """SVHN's 32x32 .mat file: the array is (H,W,C,N), and label 10 means the digit 0."""
    try:
        content = loadmat(path)
        images, labels = content["X"].transpose(3, 0, 1, 2), content["y"].reshape(-1).astype(np.int64) % 10
    except Exception as error:
        raise UserError(f"{path} is not an SVHN .mat file ({error})") from None
    return images, labels, None


def read_array(path, split):
    """.npy or .npz of uint8 images (N,H,W,3), (N,3,H,W) or grey (N,H,W); an .npz may hold ``labels`` and ``classes``."""
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            images, labels, classes = content, None, None
        else:
            with content:
                keys = [key for key in ("images", "data", "x", "arr_0") if key in content.files]
                if not keys:
                    raise UserError(f"{path} holds {', '.join(content.files) or 'nothing'}; its images must be called 'images'")
                images = content[keys[0]]
                labels = next((content[key] for key in ("labels", "y") if key in content.files), None)
                classes = tuple(map(str, content["classes"])) if "classes" in content.files else None
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read as an array file ({error})") from None
    return check_pixels(images, path), check_labels(labels, len(images), path), classes


def check_pixels(images, where):
    """uint8 (N,H,W,3) view of an array of images, or a UserError that says what it is instead."""
    shape, kind = images.shape, images.dtype
    if kind != np.uint8:
        raise UserError(f"{where}: images are {kind}, not uint8 (0 to 255)")
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=3)
    elif images.ndim == 4 and images.shape[3] == 1:
        images = np.repeat(images, 3, axis=3)
    elif images.ndim == 4 and images.shape[3] != 3 and images.shape[1] == 3:
        images = images.transpose(0, 2, 3, 1)
    if images.ndim != 4 or images.shape[3] != 3:
        raise UserError(f"{where}: images have shape {shape}, not (N,H,W,3), (N,3,H,W) or (N,H,W)")
    if len(images) == 0:
        raise UserError(f"{where}: there is no image in it")
    return images


def check_labels(labels, count, where):
    """int64 (N,) labels or None."""
    if labels is None:
        return None
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{where}: labels are {labels.dtype} of shape {labels.shape}, not {count} integers")
    return labels.astype(np.int64)


class Folder:
    """The images below a folder, by sorted relative name."""

    def __init__(self, path):
        self.path = Path(path)
        self.names = sorted(p.relative_to(self.path).as_posix() for p in self.path.rglob("*")
                            if p.suffix.lower() in IMAGE_ENDINGS and p.is_file() and not p.name.startswith("."))

    def open(self, name):
        return open(self.path / name, "rb")


class Archive:
    """The images inside a .zip or .tar, by sorted name; nothing is unpacked on disk."""

    def __init__(self, path):
        self.path = Path(path)
        try:
            zipped = zipfile.is_zipfile(path)
            self.file = zipfile.ZipFile(path) if zipped else tarfile.open(path)
            members = self.file.namelist() if zipped else [m.name for m in self.file.getmembers() if m.isfile()]
        except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise UserError(f"{path} is not a readable .zip or .tar archive ({error})") from None
        self.names = sorted(n for n in members if n.lower().endswith(IMAGE_ENDINGS)
                            and not n.startswith("__MACOSX") and not Path(n).name.startswith("."))

    def open(self, name):
        return self.file.open(name) if isinstance(self.file, zipfile.ZipFile) else self.file.extractfile(name)


def fit_image(image, size, crop_only=False):
    """RGB PIL image -> size x size: Resize(size) of the shorter side, bilinear with antialias, then CenterCrop(size)."""
    image = image.convert("RGB")
    width, height = image.size
    if (width, height) == (size, size):
        return image
    if not (crop_only and min(width, height) >= size):
        if width <= height:
            width, height = size, int(size * height / width)
        else:
            width, height = int(size * width / height), size
        image = image.resize((width, height), Image.BILINEAR)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def decode(source, size, crop_only=False, skip_bad=False, progress=None):
    """Decode every image of a Folder or Archive: uint8 (N,size,size,3), labels from class folders, classes, bad names.

    Labels are None where the images do not lie in class folders. An unreadable image is a UserError that names it, or
    is left out and named in the returned list with ``skip_bad``.
    """
    if not source.names:
        raise UserError(f"{source.path} holds no image ({', '.join(IMAGE_ENDINGS)})")
    parents = [Path(name).parent.name for name in source.names]
    classes = tuple(sorted(set(parents))) if all(parents) else None
    pixels, kept, bad = np.empty((len(source.names), size, size, 3), np.uint8), [], []
    for i, name in enumerate(progress(source.names) if progress else source.names):
        try:
            with source.open(name) as file, Image.open(io.BytesIO(file.read())) as image:
                pixels[len(kept)] = np.asarray(fit_image(image, size, crop_only))
            kept.append(i)
        except Exception as error:
            if not skip_bad:
                raise UserError(f"{source.path}: image '{name}' cannot be read ({type(error).__name__}: {error}). "
                                f"Mend or remove it, or go on without it: --skip-bad") from None
            bad.append(name)
    if not kept:
        raise UserError(f"{source.path}: none of its {len(source.names)} images can be read")
    labels = np.array([classes.index(parents[i]) for i in kept], dtype=np.int64) if classes else None
    return pixels[:len(kept)], labels, classes, bad
