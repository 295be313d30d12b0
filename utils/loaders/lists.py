"""Image sets that a text file lists, as OpenOOD gives its benchmarks."""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from utils.runtime import UserError, open_regular, read_regular_text

LIST_ENDING = ".txt"


class Listed:
    """The images that a list names, a line "path label" each, in its order.

    Paths are below the list's own folder or, as OpenOOD has them, below images_classic/ or
    images_largescale/ beside its benchmark_imglist/. ``labels`` (N,) int64, None where one is
    negative. UserError: a line that is none, or the first image is nowhere.
    """

    classes = None

    def __init__(self, path: Path):
        try:
            text = read_regular_text(path, limit=1 << 28)
        except ValueError as error:
            raise UserError(f"{path} is not a list of images ({error})") from None
        lines = [line for line in text.splitlines() if line.strip()]
        for line in lines:
            name, _, label = line.strip().rpartition(" ")
            if not (name and label.removeprefix("-").isdecimal() and len(label) < 19):
                raise UserError(f"{path} is not a list of images, 'path label' a line: '{line}'")
        parts = [line.strip().rpartition(" ") for line in lines]
        labels = np.array([label for _, _, label in parts], dtype=np.int64)
        self.names = [name.strip() for name, _, _ in parts]
        self.labels = None if (labels < 0).any() else labels
        self.order = range(len(self.names))
        self.path = root_of(path, self.names[0] if self.names else "")

    def open(self, name: str) -> BinaryIO:
        return open_regular(self.path / name)

    def reopened(self) -> "Listed":
        return self


def root_of(path: Path, first: str) -> Path:
    """The folder below which the images of a list lie, of which ``first`` is one."""
    roots = [path.parent] + [
        place.parent / images
        for place in path.parents
        if place.name == "benchmark_imglist"
        for images in ("images_classic", "images_largescale")
    ]
    found = [root for root in roots if first and (root / first).is_file()]
    if not found:
        places = ", ".join(map(str, roots))
        raise UserError(f"{path}: its first image, {first or 'none'}, is not in {places}")
    return found[0]
