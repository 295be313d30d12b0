"""What a result says: all that made it, its rows, and what to look at."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from utils import loaders, snapshots
from utils.metrics import is_near_chance
from utils.runtime import describe_machine, portable, printable
from utils.scores import Outputs

from .case import Case, Rows
from .network import COMPILED, OPENVINO


def id_error_of(outputs: Outputs) -> float | None:
    """Percent of the images whose largest logit is not their label's; None without labels or logits."""
    if outputs.labels is None or not outputs.logits.size:
        return None
    return 100 * float((outputs.logits.argmax(axis=1) != outputs.labels).mean())


def chance_note(id_error: float | None, case: Case) -> str | None:
    """What to look at where a trained network's ID error is near that of guessing: its classes are
    in another order, or the images are not those it was trained on. Else None.

    A network whose description says that it was no better is what it says.
    """
    if id_error is None:
        return None
    if case.description.get("classifier") is False and "recipe" not in case.description:
        return None  # a contrastive file of others, whose head is no one's: that has been said
    count, classes = len(case.sets.id), case.description["num_classes"]
    known = case.description.get("id_accuracy")
    if not is_near_chance(id_error, count, classes):
        return None
    if known is not None and is_near_chance(100 - known, count, classes):
        return None
    return (
        f"the ID error of {case.file.name}, {id_error:.2f} %, is near chance ({100 - 100 / classes:.2f} "
        f"%)"
        + (f", its description says {100 - known:.2f} %" if known is not None else "")
        + ". Are these its images, its classes in its order, its mean and std? Scores of it mean little"
    )


def make_record(case: Case, found: Rows, id_error: float | None, seconds: float) -> dict:
    """All that made a result: command, options, snapshot, images,
    how the outputs were computed; and its rows.
    """
    network, args, sets = case.network, vars(case.args), case.sets
    features = network.outputs(sets.id).features
    return {
        "command": ["test.py", *case.args.command],
        "arguments": {key: portable(value) for key, value in args.items() if key != "command"},
        "protocol": args["protocol"],
        "seed": args["seed"],
        "num_to_avg": args["num_to_avg"],
        "precision": network.precision,
        "compiled": network.kind in (COMPILED, OPENVINO),
        **({"runtime": OPENVINO} if network.kind == OPENVINO else {}),
        "snapshot": {
            "name": snapshots.short_name(case.file),
            "sha256": network.sha256,
            **described(case.description),
        },
        "id": {
            **sets.id.describe(),
            "error": id_error,
            "accuracy": None if id_error is None else 100 - id_error,
            **({"warning": doubt} if (doubt := chance_note(id_error, case)) else {}),
            "mean_l1": float(abs(features).sum(axis=1).mean()),
        },
        "train": sets.train and sets.train.describe(),
        "ood": [ood.describe() for ood in sets.ood],
        **({"shifted": [s.describe() for s in sets.shifted]} if sets.shifted else {}),
        **({"missing": list(sets.missing)} if sets.missing else {}),
        **({"leaks": list(sets.leaks)} if sets.leaks else {}),
        **({"validation_ood": list(map(used, sets.validation))} if sets.validation else {}),
        "scores": found.measured,
        "tuned": found.grids,
        "machine": describe_machine(network.device),
        "seconds": round(seconds, 1),
    }


def used(images: Any) -> dict[str, Any]:
    """What a record says of a validation set; of images, also by which they are known later."""
    known = isinstance(images, loaders.ImageSet)
    return loaders.describe_used(images) if known else images.describe()


def described(description: Mapping[str, Any]) -> dict[str, Any]:
    """What a record says of a snapshot: its description without sha256 and numbers of images."""
    made = {key: value for key, value in description.items() if key != "sha256"}
    if used := made.get("validation_ood"):
        made["validation_ood"] = [
            {key: value for key, value in part.items() if key != "pixels"} for part in used
        ]
    return made


def about_images(case: Case) -> dict[str, np.ndarray]:
    """What --save-scores says of each image beside its scores: {names/set: (N,) file names, where
    they come from files; predictions/set: (N,) classes; labels/id: (N,), and those of shifted sets}.
    """
    accepted = {"id": case.sets.id, **{images.name: images for images in case.sets.shifted}}
    facts = {
        f"labels/{name}": images.labels.numpy()
        for name, images in accepted.items()
        if images.labels is not None
    }
    for name, images in {**accepted, **{ood.name: ood for ood in case.sets.ood}}.items():
        logits = case.network.outputs(images).logits
        if logits.size:
            facts[f"predictions/{name}"] = logits.argmax(axis=1)
        if images.names:
            facts[f"names/{name}"] = np.array([printable(file) for file in images.names])
    return facts
