"""Image sets that a text file lists, as OpenOOD gives its benchmarks."""

from pathlib import Path
from typing import BinaryIO

import numpy as np

from utils.runtime import UserError, open_regular, read_regular_text

from .bounds import first_bytes

LIST_ENDING = ".txt"
LONGEST = 4096  # bytes of a line


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
            if parsed(line) is None:
                raise UserError(f"{path} is not a list of images, 'path label' a line: '{line}'")
        parts = [parsed(line) for line in lines]
        labels = np.array([label for _, label in parts], dtype=np.int64)
        self.names = [name for name, _ in parts]
        self.labels = None if (labels < 0).any() else labels
        self.order = range(len(self.names))
        self.path = root_of(path, self.names[0] if self.names else "")

    def open(self, name: str) -> BinaryIO:
        return open_regular(self.path / name)

    def reopened(self) -> "Listed":
        return self


def parsed(line: str) -> tuple[str, int] | None:
    """(path, label) of a line, which spaces or a tab part; None of one that is none."""
    name, _, label = "\t".join(line.strip().rsplit(None, 1)).rpartition("\t")
    if not name or len(label) >= 19 or not label.removeprefix("-").isdecimal():
        return None
    return name, int(label)


def is_list(path: Path) -> bool:
    """Whether a file's first line names an image that is there, and its label."""
    text = first_bytes(path, LONGEST).decode(errors="surrogateescape").lstrip()
    found = parsed(text.partition("\n")[0])
    return found is not None and any((root / found[0]).is_file() for root in roots_of(path))


def roots_of(path: Path) -> list[Path]:
    """The folders below which the images of a list may lie."""
    return [path.parent] + [
        place.parent / images
        for place in path.parents
        if place.name == "benchmark_imglist"
        for images in ("images_classic", "images_largescale")
    ]


def root_of(path: Path, first: str) -> Path:
    """The folder below which the images of a list lie, of which ``first`` is one."""
    roots = roots_of(path)
    found = [root for root in roots if first and (root / first).is_file()]
    if not found:
        places = ", ".join(map(str, roots))
        raise UserError(f"{path}: its first image, {first or 'none'}, is not in {places}")
    return found[0]
