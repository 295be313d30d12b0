"""Files of outputs: what they hold, and whether several are of one network."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from utils import loaders
from utils.loaders import arrays, bounds
from utils.runtime import UserError, open_regular, short_path

AXES = {"logits": "NC", "features": "ND", "labels": "N", "weight": "CD", "bias": "C"}
WHAT = {"N": "images", "C": "classes", "D": "features"}
NONE = "-"  # in the place of TRAIN.npz
WANTED = "--outputs TRAIN.npz ID.npz OOD.npz [more OOD], '-' for TRAIN.npz where there is none"


class File(NamedTuple):
    """What a file holds, by key; ``name``: train, id, or what its OOD set is called."""

    name: str
    path: Path
    arrays: dict[str, np.ndarray]


def read_named(items: list[str], option: str) -> list[File]:
    """The files of OOD sets, named as for --ood; their labels, if any, are no one's."""
    named = [(name, path or name) for name, path in map(loaders.name_or_path, items)]
    loaders.check_names([name for name, _ in named], option)
    keys = tuple(key for key in AXES if key != "labels")
    return [read_file(name, path, keys) for name, path in named]


def read_file(name: str, place: str, keys: tuple[str, ...] = tuple(AXES)) -> File:
    """The arrays of a file, float32 but for int64 labels; one line on what it holds is printed.
    UserError where an array is of another kind or shape, or not finite.
    """
    path = Path(place).expanduser()
    try:
        with open_regular(path) as file:
            bounds.check_arrays(file, path)
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                raise UserError(f"{path} is one array; an .npz with 'logits' (N,C) is needed")
            found = {key: np.asarray(content[key]) for key in keys if key in content.files}
            there = ", ".join(content.files[:8]) or "nothing"
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} does not exist. Give {WANTED}") from None
    except Exception as error:
        raise UserError(f"{path} cannot be read as an .npz of arrays ({error})") from None
    if not {"logits", "features"} & set(found):
        raise UserError(f"{path} holds {there}; 'logits' (N,C) are needed, or 'features' (N,D)")
    arrays = {key: checked_array(key, array, path) for key, array in found.items()}
    shapes = ", ".join(f"{key} {array.shape}" for key, array in arrays.items())
    print(f"{name}: {short_path(path)}, {shapes}")
    return File(name, path, arrays)


def checked_array(key: str, array: np.ndarray, path: Path) -> np.ndarray:
    if key == "labels":
        return arrays.check_labels(array, len(array) if array.ndim else 0, path)
    if array.dtype.kind != "f":
        raise UserError(f"{path}: '{key}' is {array.dtype}, not floating-point numbers")
    if array.ndim != len(AXES[key]) or 0 in array.shape:
        raise UserError(f"{path}: '{key}' has shape {array.shape}, not ({','.join(AXES[key])})")
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused
        array = np.ascontiguousarray(array, dtype=np.float32)
    wrong = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if wrong.any():
        raise UserError(
            f"{path}: row {int(wrong.argmax())} of '{key}' is not finite (NaN, or infinite in float32)"
        )
    return array


def check_together(files: list[File]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The head's weight and bias, None where no file has them; UserError where numbers of images,
    classes or features disagree, or two files are of two networks.
    """
    sizes: dict[str, tuple[int, str]] = {}  # of "C" and "D": (size, where it was first seen)
    head: dict[str, File] = {}
    for file in files:
        sizes.pop("N", None)  # each file has its own
        for key, array in file.arrays.items():
            for axis, size in zip(AXES[key], array.shape):
                before, where = sizes.setdefault(axis, (size, f"'{key}' of {file.path}"))
                if size != before:
                    raise UserError(
                        f"{file.path}: '{key}' is of {size} {WHAT[axis]}, {where} of {before}"
                    )
        for key in {"weight", "bias"} & set(file.arrays):
            first = head.setdefault(key, file)
            if not np.array_equal(first.arrays[key], file.arrays[key]):
                raise UserError(f"{file.path}: '{key}' is not that of {first.path}: two networks?")
    classes = sizes["C"][0] if "C" in sizes else None
    for file in files:
        if "labels" in file.arrays:
            check_range(file.arrays["labels"], classes, file.path)
    if "weight" not in head:
        if head:
            raise UserError(
                f"{head['bias'].path} has the head's 'bias', no file its 'weight' (C,D)"
            )
        return None, None
    weight = head["weight"].arrays["weight"]
    return weight, head["bias"].arrays["bias"] if "bias" in head else np.zeros_like(weight[:, 0])


def check_range(labels: np.ndarray, classes: int | None, path: Path) -> None:
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or (classes is not None and high >= classes):
        top = "" if classes is None else f" to {classes - 1}"
        raise UserError(f"{path}: labels go from {low} to {high}, outside 0{top}")
