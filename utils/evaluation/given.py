"""``--outputs``: outputs of any network, from files, where else a network and images are; and
``--save-outputs``, which writes such files.

An .npz of N images has ``logits`` (N,C) and, as far as there are any, ``features`` (N,D),
``labels`` (N,) of 0 to C-1, and the head's ``weight`` (C,D) and ``bias`` (C,), so that
``logits = features @ weight.T + bias``. The head is needed in one file only.
"""

import hashlib
import io
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from utils import loaders, scores, snapshots
from utils.loaders import bounds, readers
from utils.runtime import UserError, make_folder, open_regular, print_note, short_path, write_bytes

from .network import checked_values
from .protocol import PROTOCOLS, Case, Sets

AXES = {"logits": "NC", "features": "ND", "labels": "N", "weight": "CD", "bias": "C"}
WHAT = {"N": "images", "C": "classes", "D": "features"}
NONE = "-"  # in the place of TRAIN.npz
WANTED = "--outputs TRAIN.npz ID.npz OOD.npz [more OOD], '-' for TRAIN.npz where there is none"
# options of test.py that say which network and images there are, and how these are read
OF_IMAGES = (
    *("model", "load", "arch", "download", "images", "export", "save_outputs", "tune_scores"),
    *("id", "id_train", "split", "ood", "mean", "std", "image_size", "harmonise", "skip_bad"),
)


class File(NamedTuple):
    """What a file holds, by key; ``name``: train, id, or what its OOD set is called."""

    name: str
    path: Path
    arrays: dict[str, np.ndarray]


@dataclass
class OutputSet:
    """Outputs in the place of an ImageSet; ``fingerprint`` is the sha256 of their arrays."""

    outputs: scores.Outputs
    name: str
    fingerprint: str
    source: Path
    skipped: tuple = ()
    names: None = None  # of image files
    classes: None = None
    describe = loaders.ImageSet.describe

    def __len__(self) -> int:
        return len(self.outputs)

    @property
    def labels(self) -> torch.Tensor | None:
        labels = self.outputs.labels
        return None if labels is None else torch.from_numpy(labels)


class GivenOutputs:
    """Stands where an evaluation has its Network: nothing is computed, ``outputs`` are there."""

    precision, kind, device = "given", "given", torch.device("cpu")

    def __init__(self, sha256: str):
        self.sha256 = sha256

    def plan(self, sets: list[OutputSet]) -> None:
        """No pass is to be planned."""

    def outputs(self, images: OutputSet) -> scores.Outputs:
        return images.outputs

    def fit(self, score: scores.Score, train: OutputSet | None) -> scores.Score:
        """Fit a score on the training outputs; UserError where there are none that it can use."""
        if train is None:
            raise UserError(
                f"score '{score.label}' is fitted on outputs of ID training images: give "
                f"TRAIN.npz in the place of '{NONE}'"
            )
        check_needs(score, train)
        return score.fit(train.outputs)

    def score(self, score: scores.Score, images: OutputSet) -> np.ndarray:
        """(N,) float64 scores, larger = more OOD; UserError where the file lacks what it needs."""
        check_needs(score, images)
        return checked_values(score, images.outputs, images)


def check_needs(score: scores.Score, images: OutputSet) -> None:
    """UserError where a score needs what the outputs of a set are not, or do not have."""
    if "gradient" in score.needs:
        without = f"; {score.name}:eps=0 takes no step" if "eps" in score.hyper else ""
        raise UserError(
            f"score '{score.label}' needs the gradient at the images, and so the network: "
            f"--model in the place of --outputs{without}"
        )
    if getattr(score, "own", False):  # a function of the user's own may do without
        return
    have = images.outputs
    there = {
        "logits": have.logits.shape[1] > 0,
        "features": have.features.shape[1] > 0,
        "head": have.weight is not None,
    }
    for need, found in there.items():
        if need in score.needs and not found:
            key = "weight' and 'bias" if need == "head" else need
            fitting = [
                name
                for name, kind in scores.SCORES.items()
                if all(there.get(one, True) for one in kind().needs)
                and "gradient" not in kind().needs
            ]
            raise UserError(
                f"score '{score.label}' needs {', '.join(score.needs)}; there is no '{key}' "
                + ("in any file" if need == "head" else f"in {images.source}")
                + f". Scores that do without: {', '.join(fitting) or 'none'}"
            )


def load(args: Namespace) -> Case:
    """The case of test.py's --outputs; UserError where the files do not fit one another."""
    if len(args.outputs) < 3 or NONE in args.outputs[1:]:
        raise UserError(f"--outputs {' '.join(args.outputs)}: {WANTED} are needed")
    rules = PROTOCOLS[args.protocol]
    groups = rules.groups_of("own")
    if rules.shifted:
        raise UserError(f"--protocol {args.protocol} has shifted ID images, --outputs does not")
    chosen = scores.choose(args.score, None, args.T, args.noise)
    files = [read_file(part, place) for part, place in zip(("train", "id"), args.outputs)]
    named = [(name, path or name) for name, path in map(loaders.name_or_path, args.outputs[2:])]
    loaders.check_names([name for name, _ in named], "--outputs")
    unlabelled = tuple(key for key in AXES if key != "labels")  # those of OOD images are no one's
    files += [read_file(name, path, unlabelled) for name, path in named]
    head = check_together([file for file in files if file is not None])
    train, id_set, *ood = [file and make_set(file, head) for file in files]
    for one in (train, *ood):
        if one is not None and one.fingerprint == id_set.fingerprint:
            raise UserError(
                f"{one.source} holds the same outputs as {id_set.source}, the ID test images. "
                f"The order is {WANTED}"
            )
    known = [one.name for one in ood]
    missing = tuple(name for _, part in groups for name in part if name not in known)
    made = Sets(id_set, ood, train, missing=missing)
    description = {"arch": "outputs", "num_classes": id_set.outputs.logits.shape[1]}
    network = GivenOutputs(digest_of(*(one.fingerprint for one in made.all()), *head))
    return Case(id_set.source.resolve(), description, network, made, chosen, args)


def read_file(name: str, place: str, keys: tuple[str, ...] = tuple(AXES)) -> File | None:
    """The arrays of a file, float32 but for int64 labels, and one line on what it holds; None of
    ``NONE``. UserError where an array is of another kind or shape, or not finite.
    """
    if place == NONE:
        return None
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
        return readers.check_labels(array, len(array) if array.ndim else 0, path)
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


def make_set(file: File, head: tuple) -> OutputSet:
    """The set of a file's arrays, which are read-only; logits or features that are not there have
    width 0.
    """
    count = len(next(file.arrays[key] for key in ("logits", "features") if key in file.arrays))
    empty = np.empty((count, 0), np.float32)
    parts = [file.arrays.get("logits", empty), file.arrays.get("features", empty)]
    labels = file.arrays.get("labels")
    for array in (*parts, *head):
        if array is not None:
            array.setflags(write=False)
    outputs = scores.Outputs(*parts, labels, *head)
    note_other_head(outputs, file.path)
    return OutputSet(outputs, file.name, digest_of(*parts, labels), file.path)


def digest_of(*parts: np.ndarray | str | None) -> str:
    """sha256 of arrays, with their shapes, and texts."""
    digest = hashlib.sha256()
    for part in parts:
        is_array = isinstance(part, np.ndarray)
        digest.update(f"{part.shape if is_array else part}".encode())
        digest.update(part.tobytes() if is_array else b"")
    return digest.hexdigest()


def note_other_head(outputs: scores.Outputs, path: Path, tolerance: float = 0.1) -> None:
    """Say on stderr where the logits are not what the head makes of the features: it is another
    network's, or turned.
    """
    if outputs.weight is None or not (outputs.logits.size and outputs.features.size):
        return
    some = outputs.take(slice(1000))
    made = some.features.astype(np.float64) @ outputs.weight.T.astype(np.float64) + outputs.bias
    apart = float(np.abs(made - some.logits).mean() / max(np.abs(some.logits).mean(), 1e-12))
    if apart > tolerance:
        print_note(
            f"{path}: 'logits' are not features @ weight.T + bias (apart by {apart:.0%} of "
            "their size), so that scores of the head and of the logits are of two networks"
        )


def save(case: Case) -> None:
    """Write the outputs of a case below --save-outputs, in a folder of the snapshot's name:
    train.npz, id.npz and ood/NAME.npz; and print the command that scores them.
    """
    sets, file = case.sets, case.file
    folder = Path(case.args.save_outputs).expanduser()
    folder = make_folder(folder / f"{snapshots.folder_of(file).name}_{file.stem}")
    places: dict[str, Any] = {"train.npz": sets.train, "id.npz": sets.id}
    places |= {f"ood/{images.name}.npz": images for images in sets.ood}
    for place, images in places.items():
        have, buffer = case.network.outputs(images), io.BytesIO()
        keys = ("features", "labels")
        if case.description.get("classifier") is not False:  # else its head is no one's
            keys += ("logits", "weight", "bias")
        arrays = {key: getattr(have, key) for key in keys}
        np.savez(buffer, **{k: a for k, a in arrays.items() if a is not None and a.size})
        write_bytes(folder / place, buffer.getbuffer())
    at = short_path(folder)
    print(
        f"\noutputs: {at}. Scored without the network by: python test.py --outputs "
        f"{at}/train.npz {at}/id.npz {at}/ood/*.npz"
    )
