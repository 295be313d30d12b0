"""CIFAR-10-C and its kind: a folder with one array a corruption, and one of the labels of all.

An array holds the same test images five times, from severity 1 to 5. Of a folder each corruption is
a set of its own; "@3" after a path takes severity 3 alone.
"""

import re
from typing import Any

import numpy as np

from utils.runtime import UserError, open_regular

from .. import arrays
from .base import Content, Form, Path

SEVERITIES = 5
LABELS = "labels.npy"
CHOSEN = re.compile(r"@([1-5])/?$")


def split_severity(path: Any) -> tuple[Any, int | None]:
    """(PATH, 3) of PATH@3, text or path, unless there is a file or folder of the whole name."""
    match = CHOSEN.search(str(path))
    is_text = isinstance(path, str)
    if match is None or (Path(path) if is_text else path).expanduser().exists():
        return path, None
    cut = path[: match.start()] if is_text else path.with_name(path.name[:-2])
    return cut, int(match[1])


def shape_of(path: Path) -> tuple[int, ...]:
    """The shape that the head of a .npy file says; () where it is none."""
    try:
        with open_regular(path) as file:
            version = np.lib.format.read_magic(file)
            read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
            return read[version[0]](file)[0]
    except Exception:  # of a damaged head there are many
        return ()


def corruptions_of(folder: Path) -> list[Path]:
    """The arrays of a folder that have as many images as its ``labels.npy`` has labels."""
    count = shape_of(folder / LABELS)
    count = count[:1] if count[1:] == (1,) else count
    if len(count) != 1 or count[0] == 0 or count[0] % SEVERITIES:
        return []
    arrays = (file for file in sorted(folder.glob("*.npy")) if file.name != LABELS)
    return [file for file in arrays if shape_of(file)[:1] == count and len(shape_of(file)) == 4]


def find(path: Path) -> dict[str, list[Path]]:
    place, _ = split_severity(path)
    if place.is_dir():
        return {"": [path]} if (place / LABELS).is_file() and corruptions_of(place) else {}
    if place.suffix != ".npy" or not (place.parent / LABELS).is_file():
        return {}
    return {"": [path]} if place in corruptions_of(place.parent) else {}


def read_file(path: Path) -> Content:
    place, severity = split_severity(path)
    if place.is_dir():
        names = ", ".join(file.name for file in corruptions_of(place))
        raise UserError(
            f"{place} holds a set for each corruption: {names}. --ood takes them all; else name one, "
            f"with all severities or with one: {place / corruptions_of(place)[0].name}@3"
        )
    pixels = arrays.read_array(place, "test")[0]
    labels = arrays.read_labels(place.parent / LABELS, len(pixels))
    if severity is not None:
        each = len(pixels) // SEVERITIES
        chosen = slice((severity - 1) * each, severity * each)
        pixels, labels = pixels[chosen], labels[chosen]
    return pixels, labels


def told(path: Path) -> str:
    severity = split_severity(path)[1]
    return f"images of severity {severity}" if severity else "images of all five severities"


def each_corruption(name: str, path: Path | None) -> list[tuple[str, Path | None]]:
    """[(name, path)] of the sets that an item of --ood names: of a folder of corruptions one each,
    called as its corruption, after NAME_ where the folder was given a name; else the item itself.
    """
    if path is None:
        return [(name, path)]
    place, severity = split_severity(path)
    if not place.is_dir() or not find(place):
        return [(name, path)]
    given, own = name.removesuffix(f"_{severity}"), place.resolve().name
    before = "" if given in (own, own.partition(".")[0]) else f"{given}_"
    end = f"@{severity}" if severity else ""
    return [
        (f"{before}{file.name[:-4]}{end.replace('@', '_')}", file.with_name(f"{file.name}{end}"))
        for file in corruptions_of(place)
    ]


FORM = Form("corruptions, as CIFAR-10-C", find, read_file, told)
