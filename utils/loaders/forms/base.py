"""What a form is, and how files of one are read. A path may lie inside an archive (../inside.py)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from utils.runtime import UserError

from .. import arrays
from ..arrays import Images as Content


@dataclass(frozen=True)
class Form:
    """A way in which images are stored, known by what a path holds.

    ``find``: path -> {part: its files}, the part "" where there are no parts, {} where the path is
    not of this form. ``read_file``: a file -> its images and labels; UserError where it is not what
    its name or its first bytes say. ``told``: what of the choice has to be said. ``classes``: their
    names, where a file beside the images has them.
    """

    title: str
    find: Callable[[Path], dict[str, list[Path]]]
    read_file: Callable[[Path], Content]
    told: Callable[[Path], str] = lambda path: ""
    classes: Callable[[Path], tuple[str, ...] | None] = lambda path: None

    def parts(self, path: Path) -> dict[str, list[str]]:
        """{part: [name of its first file]}, {} where there are none."""
        return {part: [files[0].name] for part, files in self.find(path).items() if part}

    def read(self, path: Path, part: str) -> Content:
        """Images and labels of a part, "train" or "test", or of all where there are no parts;
        UserError: not there.
        """
        found = self.find(path)
        files = found.get(part) or found.get("")
        if not files:
            names = ", ".join(file.name for files in found.values() for file in files)
            raise UserError(f"{path} ({self.title}) has no {part} part; there is: {names}")
        return arrays.joined(map(self.read_one, files), len(files), path)

    def read_one(self, file: Path) -> Content:
        """Images and labels of a file; UserError where it is missing."""
        try:
            return self.read_file(file)
        except FileNotFoundError:
            raise UserError(
                f"{file} is missing ({self.title}). Unpack the archive once more"
            ) from None


Layout = dict[str, tuple[str, ...]]


def named_files(folder: Path, layouts: tuple[Layout, ...]) -> dict[str, list[Path]]:
    """{part: paths} of the first of ``layouts``, each {part: file names}, of which a file is there:
    all files of a part, also those that are not there.
    """
    for layout in layouts:
        found = {
            part: [folder / name for name in names]
            for part, names in layout.items()
            if any((folder / name).exists() and not (folder / name).is_dir() for name in names)
        }
        if found:
            return found
    return {}


def batch_names(ending: str) -> tuple[Layout, Layout]:
    """The file names of CIFAR-10 and of CIFAR-100 in the version whose files have this ending."""
    five = tuple(f"data_batch_{number}{ending}" for number in range(1, 6))
    return (
        {"train": five, "test": (f"test_batch{ending}",)},
        {"train": (f"train{ending}",), "test": (f"test{ending}",)},
    )
