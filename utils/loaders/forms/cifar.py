"""CIFAR-10 and CIFAR-100: the python version (pickles) and the binary version."""

from typing import Any

import numpy as np

from utils.runtime import UserError, open_regular, printable

from .. import arrays, bounds
from ..pickles import load_plain
from .base import Content, Form, Path, batch_names, named_files

PIXELS = 3 * 32 * 32
# label bytes before the pixels of an image -> how many classes each may name; the last one counts
LABELS = {1: (10,), 2: (20, 100)}
# where the names of the classes are: python version {file: key}, binary version
META = {"batches.meta": "label_names", "meta": "fine_label_names"}
META_TEXT = ("batches.meta.txt", "fine_label_names.txt")
META_BYTES = 1 << 20


def read_cifar(folder: Path, split: str) -> Content:
    """CIFAR-10 or CIFAR-100 (fine labels) from the folder of the official python version."""
    names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    if (folder / split).is_file() or (folder / "meta").exists():
        names = [split]
    return arrays.joined((read_batch(folder / name) for name in names), len(names), folder)


def read_batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(images, labels) of one file of CIFAR's python version."""
    try:
        with open_regular(path) as file:
            batch = {as_text(key): value for key, value in load_plain(file).items()}
        images = np.asarray(batch["data"]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        found = np.asarray(batch["fine_labels"] if "fine_labels" in batch else batch["labels"])
        pixels = arrays.contiguous(arrays.check_pixels(images, path.name))
        return pixels, arrays.check_labels(found, len(images), path.name)
    except FileNotFoundError:
        raise UserError(f"{path} is missing. Run: python data/download.py --check") from None
    except Exception as error:
        raise UserError(f"{path} is not an official CIFAR batch ({error})") from None


def as_text(value: Any) -> Any:
    """Text of Python 2, which comes as bytes, as text; anything else as it is."""
    return value.decode() if isinstance(value, bytes) else value


def find_python(path: Path) -> dict[str, list[Path]]:
    layouts = batch_names("")
    if path.is_dir():
        # class folders are called train and test too
        files = {n for part in layouts for names in part.values() for n in names}
        return named_files(path, layouts) if any((path / n).is_file() for n in files) else {}
    names = {name for layout in layouts for files in layout.values() for name in files}
    pickled = path.name in names and bounds.first_bytes(path, 1) == b"\x80"
    return {"": [path]} if pickled else {}


class Python(Form):
    """Reads a whole folder: which batch is missing its own reader says."""

    def read(self, path: Path, part: str) -> Content:
        if path.is_dir():
            return read_cifar(path, part)
        return read_batch(path)


def python_classes(path: Path) -> tuple[str, ...] | None:
    """The names of the classes, of the file beside the batches."""
    folder = path if path.is_dir() else path.parent
    for name, key in META.items():
        try:
            with open_regular(folder / name) as file:
                content = {as_text(k): value for k, value in load_plain(file).items()}
            return tuple(printable(as_text(one)) for one in content[key])
        except Exception:  # it is not needed
            continue
    return None


def find_binary(path: Path) -> dict[str, list[Path]]:
    if path.is_dir():
        return named_files(path, batch_names(".bin"))
    names = {name for layout in batch_names(".bin") for files in layout.values() for name in files}
    return {"": [path]} if path.name in names and path.exists() else {}


def read_binary(path: Path) -> Content:
    """A .bin file: of each image one label byte (CIFAR-10) or the coarse and the fine one
    (CIFAR-100), then 1,024 values each of red, green and blue. Which of the two it is, its length
    and its labels say.
    """
    with open_regular(path) as file:
        content = np.frombuffer(bounds.read_whole(file, path), np.uint8)
    for count, classes in LABELS.items():
        if len(content) == 0 or len(content) % (count + PIXELS):
            continue
        rows = content.reshape(-1, count + PIXELS)
        if (rows[:, :count] < classes).all():
            labels = rows[:, count - 1].astype(np.int64)
            pixels = content[: len(rows) * PIXELS].reshape(-1, 32, 32, 3)
            # in the file's own memory: no image's place reaches into the next one's bytes
            for place, row in zip(pixels, rows):
                place[:] = row[count:].reshape(3, 32, 32).transpose(1, 2, 0).copy()
            return pixels, labels
    raise UserError(
        f"{path} is not a file of CIFAR's binary version: its {len(content):,} bytes are no images "
        "of 3,072 bytes with one label below 10, or two below 20 and 100, before each"
    )


def binary_classes(path: Path) -> tuple[str, ...] | None:
    """The names of the classes, a line each, of the text beside the files."""
    folder = path if path.is_dir() else path.parent
    for name in META_TEXT:
        try:
            with open_regular(folder / name) as file:
                text = bounds.read_whole(file, name, META_BYTES).decode()
        except (OSError, ValueError, UserError):  # it is not needed
            continue
        return tuple(printable(line.strip()) for line in text.splitlines() if line.strip())
    return None


PYTHON = Python("CIFAR, python version", find_python, read_batch, classes=python_classes)
BINARY = Form("CIFAR, binary version", find_binary, read_binary, classes=binary_classes)
