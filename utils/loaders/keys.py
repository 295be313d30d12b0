"""The training and test parts inside one .npz: Keras's keys (``x_train``, ``y_train``) and
MedMNIST's (``train_images``, ``train_labels``).
"""

import zipfile
from pathlib import Path

from utils.runtime import open_regular

from .splits import KINDS


def parts_of_npz(path: Path) -> dict[str, list[str]]:
    """{kind: keys of the images} of the parts inside an .npz; {} where it has none, or is no .npz:
    its reader says so.
    """
    found: dict[str, list[str]] = {}
    try:
        with open_regular(path) as file, zipfile.ZipFile(file) as archive:
            keys = {name.removesuffix(".npy") for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile):
        return found
    for name, kind in KINDS.items():
        for key in (f"x_{name}", f"{name}_images"):
            if key in keys:
                found.setdefault(kind, []).append(key)
    return found


def label_key(images: str) -> str:
    """The key of the labels that belong to the images of a part."""
    if images.startswith("x_"):
        return f"y_{images.removeprefix('x_')}"
    return f"{images.removesuffix('_images')}_labels"
