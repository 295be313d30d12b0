"""CIFAR-10 and CIFAR-100: the python version (pickles) and the binary version."""

import numpy as np

from utils.runtime import UserError, open_regular

from .. import bounds, readers
from .base import Content, Form, Path, batch_names, named_files

PIXELS = 3 * 32 * 32
# label bytes before the pixels of an image -> how many classes each may name; the last one counts
LABELS = {1: (10,), 2: (20, 100)}


def find_python(path: Path) -> dict[str, list[Path]]:
    names = ("data_batch_1", "test_batch", "train", "test")
    there = path.is_dir() and any((path / name).is_file() for name in names)
    return {"": [path]} if there else {}


class Python(Form):
    """Reads a whole folder: which batch is missing its own reader says."""

    def read(self, path: Path, part: str) -> Content:
        return readers.read_cifar(path, part)[:2]


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
            pixels = rows[:, count:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            return pixels, rows[:, count - 1].astype(np.int64)
    raise UserError(
        f"{path} is not a file of CIFAR's binary version: its {len(content):,} bytes are no images "
        "of 3,072 bytes with one label below 10, or two below 20 and 100, before each"
    )


PYTHON = Python("CIFAR, python version", find_python, lambda path: None)
BINARY = Form("CIFAR, binary version", find_binary, read_binary)
