"""``--outputs``: outputs of any network, from files, where else a network and images are.

An .npz of N images has ``logits`` (N,C) and, as far as there are any, ``features`` (N,D),
``labels`` (N,) of 0 to C-1, and the head's ``weight`` (C,D) and ``bias`` (C,), so that
``logits = features @ weight.T + bias``. The head is needed in one file only.
"""

import hashlib
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from utils import loaders, scores
from utils.runtime import UserError, print_note

from .case import Case, Sets
from .fitting import checked_values
from .output_files import NONE, WANTED, File, check_together, read_file, read_named
from .protocol import PROTOCOLS

# options of test.py that say which network and images there are, and how these are read
OF_IMAGES = (
    *("model", "load", "arch", "download", "images", "export", "save_outputs"),
    *("id", "id_train", "split", "ood", "mean", "std", "image_size", "harmonise", "skip_bad"),
)


@dataclass
class OutputSet:
    """Outputs in the place of an ImageSet; ``fingerprint`` is the sha256 of logits and features."""

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

    def subset(self, index: np.ndarray, name: str) -> "OutputSet":
        """The images of an index array as a set of their own."""
        some = self.outputs.take(index)
        return OutputSet(some, name, digest_of(some.logits, some.features), self.source)

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


def of_folder(folder: Path, args: Namespace) -> Namespace:
    """The options with the files of a folder, as --save-outputs writes it, as --outputs."""
    train, others = folder / "train.npz", [*folder.glob("ood/*.npz"), *folder.glob("shifted/*.npz")]
    first = [str(train) if train.is_file() else NONE, str(folder / "id.npz")]
    return Namespace(**{**vars(args), "outputs": first + sorted(map(str, others))})


def load(args: Namespace) -> Case:
    """The case of test.py's --outputs; UserError where the files do not fit one another."""
    if len(args.outputs) < 3 or NONE in args.outputs[1:]:
        raise UserError(f"--outputs {' '.join(args.outputs)}: {WANTED} are needed")
    train_file, id_item, *others = args.outputs
    name, path = loaders.name_or_path(id_item)
    dataset = None if path in (None, id_item) else name  # of NAME=ID.npz
    rules = PROTOCOLS[args.protocol]
    if rules.groups and dataset is None and "" not in rules.groups:
        raise UserError(
            f"--protocol {args.protocol} has groups of OOD sets for {' and '.join(rules.groups)}. Say "
            f"whose outputs these are: --outputs {train_file} {next(iter(rules.groups))}={id_item} ..."
        )
    groups = rules.groups_of(dataset or "own")
    chosen = scores.choose(args.score, dataset, args.T, args.noise)
    made, head = read_sets(args, (train_file, path or id_item, *others), rules.shifted)
    known = [one.name for one in (*made.shifted, *made.ood)]
    wanted = [*rules.shifted, *(name for _, part in groups for name in part)]
    missing = tuple(name for name in wanted if name not in known)
    labels = [one.outputs.labels for one in (made.train, made.id) if one is not None]
    whole = digest_of(*(one.fingerprint for one in made.all()), *labels, *head)
    description = {"arch": "outputs", "num_classes": made.id.outputs.logits.shape[1]}
    description |= {"dataset": dataset} if dataset else {}
    sets = made._replace(missing=missing)
    return Case(made.id.source.resolve(), description, GivenOutputs(whole), sets, chosen, args)


def read_sets(
    args: Namespace, outputs: Sequence[str], shifted: Sequence[str] = ()
) -> tuple[Sets, tuple]:
    """(the sets of the files TRAIN, ID, OOD, ... and of --validation-ood, the head's weight and
    bias); those that are called as the protocol's ``shifted`` ID images are such.
    """
    train_file, id_file, *others = outputs
    listed = [item for item in (args.validation_ood or "").split(",") if item]
    if args.tune_scores and (train_file == NONE or not listed):
        raise UserError(
            "--tune-scores of --outputs needs TRAIN.npz and --validation-ood VALIDATION.npz, outputs "
            "of OOD images that are no test images: noise would need the network"
        )
    named = read_named(others, "--outputs")
    files = {
        "train": [] if train_file == NONE else [read_file("train", train_file)],
        "id": [read_file("id", id_file)],
        "shifted": [file for file in named if file.name in shifted],
        "ood": [file for file in named if file.name not in shifted],
        "validation": read_named(listed, "--validation-ood"),
    }
    if not files["ood"]:
        raise UserError(f"--outputs: {', '.join(shifted)} are ID images here; an OOD.npz is needed")
    head = check_together([file for part in files.values() for file in part])
    made = {kind: [make_set(file, head) for file in part] for kind, part in files.items()}
    (id_set,) = made["id"]
    for one in (*made["train"], *made["shifted"], *made["ood"]):
        if one.fingerprint == id_set.fingerprint:
            raise UserError(
                f"{one.source} holds the same outputs as {id_set.source}, the ID test images. "
                f"The order is {WANTED}"
            )
    loaders.check_apart(made["validation"], [id_set, *made["shifted"], *made["ood"]], in_both)
    train = made["train"][0] if made["train"] else None
    beside = {key: tuple(made[key]) for key in ("shifted", "validation")}
    return Sets(id_set, made["ood"], train, **beside), head


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
    return OutputSet(outputs, file.name, digest_of(*parts), file.path)


def in_both(test: OutputSet, images: OutputSet) -> np.ndarray:
    """bool (N,): which of the images have exactly the logits and features of one of the test set."""
    known, own = (
        [row.tobytes() for row in np.hstack([one.outputs.logits, one.outputs.features])]
        for one in (test, images)
    )
    known = set(known)
    return np.array([row in known for row in own])


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
