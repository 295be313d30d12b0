"""Read images from official files, folders, archives and arrays:
each gives (uint8 (N,H,W,3), labels, classes).
"""

import copy
import hashlib
import io
import os
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np
from PIL import Image
from scipy.io import loadmat
from tqdm import tqdm

from data.archives import IMAGE_ENDINGS
from utils.runtime import Cache, UserError, check_regular, open_regular, printable

from . import bounds, heads, parquet, splits
from .digits import Content
from .keys import WHOLE, find_key, label_key
from .lists import LIST_ENDING, Listed, is_list
from .pickles import load_plain

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
ARRAY_ENDINGS = (".npz", ".npy")
# the first bytes of files whose names do not say what they are
NPY, ZIP, PACKED = b"\x93NUMPY", b"PK\3\4", (b"\x1f\x8b", b"BZh", b"\xfd7zXZ")
# What Pillow may take an image for, whatever its name says: it would start another program
# (Ghostscript) for an EPS, and has decoders for formats that nobody keeps images in.
FORMATS = ["JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP", "GIF"]
Image.init()
FORMATS += ["AVIF"] * ("AVIF" in Image.OPEN)  # not every build of Pillow has it
# To be raised when the same file gives other pixels, labels or classes than before: what was
# decoded before is not read then.
DECODING = 2


def read_cifar(folder: Path, split: str) -> Content:
    """CIFAR-10 or CIFAR-100 (fine labels) from the folder of the official python version."""
    names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    if (folder / split).is_file() or (folder / "meta").exists():
        names = [split]
    pixels, labels = zip(*(read_batch(folder / name) for name in names))
    return np.concatenate(pixels), np.concatenate(labels), None


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(images, labels) of one file of CIFAR's python version."""
    try:
        with open_regular(path) as file:
            batch = {as_text(key): value for key, value in load_plain(file).items()}
        images = np.asarray(batch["data"]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        found = np.asarray(batch["fine_labels"] if "fine_labels" in batch else batch["labels"])
        return check_pixels(images, path.name), check_labels(found, len(images), path.name)
    except FileNotFoundError:
        raise UserError(f"{path} is missing. Run: python data/download.py --check") from None
    except Exception as error:
        raise UserError(f"{path} is not an official CIFAR batch ({error})") from None


def as_text(value: Any) -> Any:
    """Text of Python 2, which comes as bytes, as text; anything else as it is."""
    return value.decode() if isinstance(value, bytes) else value


def read_svhn(path: Path, split: str) -> Content:
    """SVHN's 32x32 .mat file: the array is (H,W,C,N), and label 10 means the digit 0."""
    try:
        with open_regular(path) as file:
            bounds.check_matrices(file, ("X", "y"), path)
            content = loadmat(file, variable_names=("X", "y"))
        images = content["X"].transpose(3, 0, 1, 2)
        labels = content["y"].reshape(-1)
        if labels.dtype.kind == "f" and (labels == np.floor(labels)).all():  # MATLAB's own numbers
            labels = labels.clip(-1, 11).astype(np.int64)
        labels = check_labels(labels, len(images), "y")
        if labels.min() < 0 or labels.max() > 10:
            raise ValueError("y: labels are not digits, 0 to 10")
        return check_pixels(images, "X"), labels % 10, None
    except Exception as error:
        raise UserError(f"{path} is not an SVHN .mat file ({error})") from None


def is_array(path: Path) -> bool:
    """By its ending, else by its first bytes: of a .npy, or of a zip that begins with one."""
    if path.name.lower().endswith((*ARRAY_ENDINGS, *ARCHIVE_ENDINGS)):
        return path.name.lower().endswith(ARRAY_ENDINGS)
    head = bounds.first_bytes(path, 100)
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    return head.startswith(NPY) or (head.startswith(ZIP) and name.endswith(b".npy"))


def is_archive(path: Path) -> bool:
    """By its ending, else by its first bytes: of a zip, a tar or something packed."""
    if not path.is_file() or is_array(path):
        return False
    if path.name.lower().endswith(ARCHIVE_ENDINGS):
        return True
    head = bounds.first_bytes(path, 512)
    if head.startswith(ZIP) or head[257:262] == b"ustar":
        return True
    try:
        return head.startswith(PACKED) and tarfile.is_tarfile(path)
    except Exception:  # each unpacker has errors of its own
        return False


def is_image_file(path: Path) -> bool:
    """By its ending, else by its first bytes."""
    return heads.is_named_image(path.name) or heads.is_image_head(bounds.first_bytes(path))


def read_array(path: Path, split: str, inside: str = "") -> Content:
    """.npy or .npz of uint8 images (N,H,W,3), (N,3,H,W) or grey (N,H,W);
    an .npz may hold labels and classes. ``inside``: the key of the images of one part of it.
    """
    try:
        with open_regular(path) as file:
            bounds.check_arrays(file, path)
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                images, labels, classes = content, None, None
            else:
                wanted, named = ((inside,), (label_key(inside),)) if inside else WHOLE
                key = find_key(wanted, content.files)
                if key is None:
                    raise UserError(
                        f"{path} holds {', '.join(content.files) or 'nothing'}; "
                        "its images must be called 'images'"
                    )
                images = read_grey(content, key)
                if images is None:  # a member that is no array comes as bytes
                    images = np.asarray(content[key])
                key = find_key(named, content.files)
                labels = None if key is None else np.asarray(content[key])
                classes = (
                    tuple(map(str, content["classes"])) if "classes" in content.files else None
                )
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read as an array file ({error})") from None
    images = check_pixels(channels_last(images), path)
    return images, check_labels(labels, len(images), path), classes


def read_grey(content: np.lib.npyio.NpzFile, key: str) -> np.ndarray | None:
    """Grey uint8 images (N,H,W) of an .npz as (N,H,W,3), read one after the other: with the array
    beside it there would be a third more. None where there are others.
    """
    if f"{key}.npy" not in content.zip.namelist():
        return None
    with content.zip.open(f"{key}.npy") as member:
        if np.lib.format.read_magic(member) != (1, 0):
            return None
        shape, fortran, kind = np.lib.format.read_array_header_1_0(member)
        if kind != np.uint8 or fortran or len(shape) != 3 or shape[2] == 3 or 0 in shape:
            return None
        images = np.empty((*shape, 3), np.uint8)
        for place in images:
            grey = np.frombuffer(member.read(shape[1] * shape[2]), np.uint8)
            place[:] = grey.reshape(*shape[1:], 1)
    return images


def channels_last(images: np.ndarray) -> np.ndarray:
    """uint8 (N,3,H,W) -> (N,H,W,3) in the same memory, an image at a time: a second array would be
    as large. What has another shape is returned as it is.
    """
    shape, flags = images.shape, images.flags
    plain = images.dtype == np.uint8 and flags.c_contiguous and flags.writeable
    if not (plain and len(shape) == 4 and shape[1] == 3 and shape[3] not in (1, 3)):
        return images
    turned = images.reshape(shape[0], *shape[2:], 3)
    for place, image in zip(turned, images):
        place[:] = image.transpose(1, 2, 0).copy()
    return turned


def check_pixels(images: np.ndarray, where: str | Path) -> np.ndarray:
    """uint8 (N,H,W,3) view of an array of images, or a UserError that says what it is instead."""
    shape, kind = images.shape, images.dtype
    if kind != np.uint8:
        raise UserError(
            f"{where}: images are {kind}, not uint8 (0 to 255). Write them so; of values of 0 to 1: "
            "(255 * images).round().astype('uint8')"
        )
    if images.ndim == 3 and shape[2] == 3:
        raise UserError(
            f"{where}: an array of shape {shape} is one colour image, or grey ones 3 wide. "
            "Give colour images as (N,H,W,3), also a single one"
        )
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=3)
    elif images.ndim == 4 and images.shape[3] == 1:
        images = np.repeat(images, 3, axis=3)
    elif images.ndim == 4 and images.shape[3] != 3 and images.shape[1] == 3:
        images = images.transpose(0, 2, 3, 1)
    if images.ndim != 4 or images.shape[3] != 3:
        raise UserError(f"{where}: images have shape {shape}, not (N,H,W,3), (N,3,H,W) or (N,H,W)")
    if images.size == 0:
        raise UserError(f"{where}: there is no image in it")
    return images


def read_labels(path: Path, count: int) -> np.ndarray:
    """int64 (count,) labels of a .npy; UserError where they are not those."""
    try:
        with open_regular(path) as file:
            labels = np.load(file, allow_pickle=False)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read as an array file ({error})") from None
    return check_labels(np.asarray(labels), count, path)


def check_labels(labels: np.ndarray | None, count: int, where: str | Path) -> np.ndarray | None:
    """int64 (N,) labels of (N,) or (N,1), or None."""
    if labels is None:
        return None
    if labels.shape == (count, 1):  # as Keras and MedMNIST write them
        labels = labels[:, 0]
    if labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        one_hot = labels.ndim == 2 and len(labels) == count and labels.shape[1] > 1
        raise UserError(
            f"{where}: labels are {labels.dtype} of shape {labels.shape}, not {count} integers"
            + (". Write the numbers of the classes: labels.argmax(1)" if one_hot else "")
        )
    if labels.size and labels.max() > np.iinfo(np.int64).max:
        raise UserError(f"{where}: labels reach {labels.max()}, which numbers no class")
    return labels.astype(np.int64)


class Folder:
    """The images below a folder, by sorted relative name; class folders may be links."""

    def __init__(self, path):
        self.path = Path(path)
        start = len(os.path.join(path, ""))
        found = (file[start:].replace(os.sep, "/") for file in bounds.list_files(path))
        named, self.others = [], []
        for name in found:
            (named if self.is_image(name) else self.others).append(name)
        self.names = sorted(named)
        self.order = range(len(self.names))

    def is_image(self, name: str) -> bool:
        """By its ending, else by its first bytes."""
        return heads.is_named_image(name) or (
            heads.may_be_image(name) and heads.is_image_head(bounds.first_bytes(self.path / name))
        )

    def open(self, name: str) -> BinaryIO:
        return open_regular(self.path / name)

    def reopened(self) -> "Folder":
        """The same names, whatever has come into the folder since."""
        return self


class OneFile(Folder):
    """One image file, as a folder that holds nothing else."""

    def __init__(self, path):
        self.path, self.names, self.order, self.others = path.parent, [path.name], range(1), []


class Archive:
    """The images inside a .zip or .tar, by sorted name; nothing is unpacked on disk.

    ``order`` is the order in which they lie in the file:
    to go backwards in a compressed tar is to unpack it anew.
    """

    def __init__(self, path, inside=""):
        self.path, self.inside = Path(path), inside
        try:
            check_regular(path)
            self.content, zipped = self.content_now(), zipfile.is_zipfile(path)
            if zipped:
                with open_regular(path) as file:
                    bounds.check_directory(file, path)
            self.file = (
                zipfile.ZipFile(path) if zipped else tarfile.open(path, tarinfo=bounds.Member)  # noqa: SIM115
            )
            self.members, self.others = {}, {}
            for member in bounds.limited(self.file, path):
                if member.is_dir() if zipped else not member.isfile():
                    continue
                # as tar packs "." and as some Windows programs write folders
                name = member.filename.replace("\\", "/") if zipped else member.name
                name = name.removeprefix("./")
                if self.is_image(member, name):
                    self.members[name] = member
                else:
                    self.others[name] = member
            if not zipped:
                self.file.fileobj.seek(self.file.offset)
                # a damaged header passes for the end
                if self.file.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise tarfile.ReadError("damaged after its first part")
        except UserError as error:
            text = str(error)
            raise UserError(text if str(path) in text else f"{path}: {text}") from None
        except Exception as error:  # each unpacker has errors of its own
            raise UserError(f"{path} is not a readable .zip or .tar archive ({error})") from None
        chosen = {name for name in self.members if name.startswith(inside)}
        # of the archive's one folder around everything no class is called
        self.inside = inside or splits.common_root(sorted(chosen))
        self.names = sorted(name.removeprefix(self.inside) for name in chosen)
        self.order = sorted(
            range(len(self.names)),
            key=lambda i: self.place(self.members[self.inside + self.names[i]]),
        )

    def is_image(self, member: Any, name: str) -> bool:
        """As of a Folder; a tar's member is looked at while it is passed."""
        if heads.is_named_image(name) or not heads.may_be_image(name):
            return heads.is_named_image(name)
        try:
            zipped = isinstance(self.file, zipfile.ZipFile)
            with self.file.open(member) if zipped else self.file.extractfile(member) as file:
                return heads.is_image_head(file.read(heads.HEAD))
        except (RuntimeError, NotImplementedError, zipfile.BadZipFile):  # encrypted, damaged
            return False

    def content_now(self) -> tuple[int, int, int]:
        """What is another one where the file has other content: not the time of its rights."""
        found = self.path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns

    @staticmethod
    def place(member: zipfile.ZipInfo | tarfile.TarInfo) -> int:
        """Where in the file a member begins."""
        return member.header_offset if isinstance(member, zipfile.ZipInfo) else member.offset

    def open(self, name: str) -> IO[bytes]:
        return self.open_member(self.members[self.inside + name])

    def open_member(self, member: Any) -> IO[bytes]:  # by its name a tar would be searched
        if isinstance(self.file, zipfile.ZipFile):
            return self.file.open(member)
        return self.file.extractfile(member)

    def reopened(self) -> "Archive":
        """The same members, read by a handle of its own, for another process."""
        other = copy.copy(self)
        if isinstance(self.file, zipfile.ZipFile):
            other.file = zipfile.ZipFile(self.path)
        else:
            other.file = copy.copy(self.file)
            other.file.fileobj = open_regular(self.path)
        if self.content_now() != self.content:
            raise UserError(f"{self.path} has been changed since it was listed. Run it again")
        return other


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
        np.clip(grey, 0, 65535, out=grey)
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
        place[:] = fit_image(Image.fromarray(image), size, crop_only)
    return fitted


def read_image(source: Source, name: str, size: Size, crop_only: bool) -> np.ndarray:
    """One image of a Folder or Archive as uint8 (size,size,3)."""
    with warnings.catch_warnings(), source.open(name) as file:
        # Pillow's remarks on odd files: such a file is read as it is, or is an error
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(bounds.read_image_bytes(file)), formats=FORMATS) as image:
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
    return (lambda name: (int(name), name)) if all(n.isdecimal() for n in names) else str


def read_images(
    path: Path, data: str | Path, size: Size, crop_only: bool, skip_bad: bool, inside: str = ""
) -> Decoded:
    """``decode`` a folder or archive once; afterwards its pixels come from an array file
    below the data folder's cache.

    The file's name holds every image's name, size and time of change, and DECODING: what has
    changed is decoded again.
    """
    source = open_source(path, inside)
    parts = decoding_parts(source, path, size, crop_only)
    cache = Cache(Path(data) / "cache")
    digest = hashlib.sha256(chr(10).join(parts).encode(errors="surrogateescape")).hexdigest()
    name = f"{path.name}-{digest[:16]}"
    found = cached_images(cache.load(name), digest, source, crop_side(size))
    if found is not None and (skip_bad or not found[3]):
        return found

    def progress(names):
        return tqdm(names, desc=f"decoding {path.name}", unit="image", disable=None, leave=False)

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
    readable = ~np.isin(source.names, bad)
    shape = (int(readable.sum()), side, side, 3)
    if pixels.dtype != np.uint8 or pixels.shape != shape or len(bad) + shape[0] != len(readable):
        return None
    labels, classes = labels_of(source)
    return pixels, None if labels is None else labels[readable], classes, bad


def decoding_parts(source: Source, path: Path, size: Size, crop_only: bool) -> list[str]:
    """What the pixels of a folder, list or archive depend on, as texts."""
    files, inside = [path], ""
    if isinstance(source, parquet.Table):
        files, inside = source.files, source.inside
    elif isinstance(source, Archive):
        inside = source.inside
    else:
        files = [source.path / name for name in source.names]
    parts = [str(path.resolve()), inside, str(size), str(crop_only), str(DECODING)]
    return parts + [stamp(file) for file in files]


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
    if is_archive(path):
        return Archive(path, inside)
    if is_image_file(path):
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


def stamp(file: Path) -> str:
    """What changes when a file does, or another one takes its name: its times may be set."""
    try:
        found = file.stat()
        times = f"{found.st_mtime_ns}|{found.st_ctime_ns}"
        return f"{file}|{found.st_size}|{times}|{found.st_ino}"
    except OSError:  # a link to nothing: decoding says so, or leaves it out
        return f"{file}|unreadable"
