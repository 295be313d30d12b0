"""Image sets that a text file lists, as OpenOOD gives its benchmarks."""

import array
import io
from pathlib import Path
from typing import BinaryIO

import numpy as np

from utils.runtime import UserError, open_regular

from . import bounds

LIST_ENDING = ".txt"
LONGEST = 4096  # characters of a line
SHOWN = 80  # of one that is none


class Listed:
    """The images that a list names, a line "path label" each, in its order.

    Paths are below the list's own folder or, as OpenOOD has them, below images_classic/ or
    images_largescale/ beside its benchmark_imglist/. ``labels`` (N,) int64, None where one is
    negative. UserError: a line that is none, or the first image is nowhere.
    """

    classes = None

    def __init__(self, path: Path):
        self.names: list[str] = []
        numbers = array.array("q")
        try:
            with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig") as file:
                while line := file.readline(LONGEST):
                    found = parsed(line)
                    if found is None and line.strip():
                        raise UserError(
                            f"{path} is not a list of images, 'path label' a line: "
                            f"'{line.strip()[:SHOWN]}'"
                        )
                    if found:
                        self.names.append(found[0])
                        numbers.append(found[1])
                    if len(self.names) > bounds.FILES:
                        raise UserError(
                            f"{path} lists more than {bounds.FILES:,} images. Give a shorter list, "
                            f"or raise {bounds.RAISED}"
                        )
        except ValueError as error:
            raise UserError(f"{path} is not a list of images ({error})") from None
        labels = np.frombuffer(numbers, dtype=np.int64)
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
    text = bounds.first_bytes(path, LONGEST).decode("utf-8-sig", errors="surrogateescape").lstrip()
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
