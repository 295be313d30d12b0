"""The keys of images and labels in an .npz, in any case: of the whole, or of training and test parts
as Keras (``x_train``, ``y_train``) and MedMNIST (``train_images``, ``train_labels``) name them.
"""

import zipfile
from collections.abc import Iterable
from pathlib import Path

from utils.runtime import open_regular

from . import bounds
from .splits import KINDS

WHOLE = ("images", "data", "x", "arr_0"), ("labels", "y")
# of a part: images, labels
PAIRS = (("x_{}", "y_{}"), ("{}_x", "{}_y"), ("{}_images", "{}_labels"), ("images_{}", "labels_{}"))


def parts_of_npz(path: Path) -> dict[str, list[str]]:
    """{kind: keys of the images} of the parts inside an .npz; {} where it has none, or is no .npz:
    its reader says so.
    """
    found: dict[str, list[str]] = {}
    keys = keys_of(path)
    for name, kind in KINDS.items():
        for images, _ in PAIRS:
            if key := find_key((images.format(name),), keys):
                found.setdefault(kind, []).append(key)
    return found


def keys_of(path: Path) -> list[str]:
    """The keys of an .npz; [] of anything else."""
    try:
        with open_regular(path) as file:
            bounds.check_directory(file, path, bounds.ARRAYS_BYTES)
            with zipfile.ZipFile(file) as archive:
                return [name.removesuffix(".npy") for name in archive.namelist()]
    except Exception:  # of a damaged one there are many
        return []


def find_key(wanted: Iterable[str], keys: Iterable[str]) -> str | None:
    """The first of the wanted keys that is there, in any case; as it is written there."""
    there = {key.lower(): key for key in keys}
    return next((there[key.lower()] for key in wanted if key.lower() in there), None)


def label_key(images: str) -> str:
    """The key of the labels that belong to the images of a part."""
    for name in KINDS:
        for own, labels in PAIRS:
            if images.lower() == own.format(name):
                return labels.format(name)
    return "labels"
