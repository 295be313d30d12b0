"""Copy finished snapshots to CIFAR/snapshots/provided/, for those who clone the project:
``python -m utils.paper.provide NAME ...``.

Weights of more than one dimension are stored as float16 if that moves no metric by 0.01 (percent,
msp and energy, every OOD set), else all as float32. manifest.json lists what there is.
Needs the data set's images.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils import loaders, metrics, runtime, scores, snapshots
from utils.evaluation import report
from utils.evaluation.network import Network
from utils.evaluation.rows import measure_set
from utils.training import options

from .markdown import network_of, table

MANIFEST = snapshots.SNAPSHOTS / "manifest.json"
# test images, evenly spread, whose number of correct ones is recorded for a quick check of a copy
PART = 1000
REFERENCE = 20  # patches whose scores are recorded
TOLERANCE = 0.01  # percent
LISTED = (
    "dataset",
    "arch",
    "layers",
    "widen_factor",
    "num_classes",
    "loss",
    "outliers",
    "seed",
    "train_images",
    "id_accuracy",
    "part",
    "weights",
    "float16_moves",
)


def halved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state_dict with matrices and convolutions in float16;
    BatchNorm's vectors span too many magnitudes for it.
    """
    return {
        name: value.half() if value.is_floating_point() and value.dim() > 1 else value
        for name, value in state.items()
    }


def measure(
    state: dict[str, Tensor], description: dict, key: str, image_sets: list[loaders.ImageSet]
) -> tuple[dict[str, float], int]:
    """({what: percent}, correct ones of ``part``) in float32: ID accuracy, and all metrics of msp
    and energy on each OOD set.

    The network is built anew for each state_dict: a compiled one keeps the
    weights it was compiled with.
    """
    model = snapshots.build_model(description).eval()
    snapshots.load_weights(model, state, key)
    id_set, *ood_sets = image_sets
    network = Network(
        model, key, next(model.parameters()).device, "fp32", arch=description["arch"]
    ).compiling("auto")
    network.plan(image_sets)
    outputs = network.outputs(id_set)
    correct = outputs.logits.argmax(axis=1) == outputs.labels
    values = {"id_accuracy": 100 * float(correct.mean())}
    for score in scores.choose("msp,energy", id_set.name):
        id_scores = network.score(score, id_set)
        for ood in ood_sets:
            row = measure_set(id_scores, network.score(score, ood), ood.name)
            for kind, measured in (("draws", row), ("whole", row["whole"])):
                for metric in metrics.METRICS:
                    values[f"{score.label} {ood.name} {metric} {kind}"] = measured[metric]
    return values, int(correct[part(len(id_set))].sum())


def part(count: int) -> np.ndarray:
    """Index array of the images that a quick check looks at:
    spread over the set, which may be sorted by class.
    """
    return np.arange(0, count, max(1, count // PART))[:PART]


def reference(model: torch.nn.Module) -> dict:
    """Energy scores in float32 of a few photographs' patches that need no download: a copy that
    gives others is not this network.
    """
    images = loaders.load(loaders.PHOTOGRAPHS, "test")
    images = images.subset(np.arange(REFERENCE))
    network = Network(model, "reference", next(model.parameters()).device, "fp32")
    logits = network.gather(len(images), network.run(images, network.forward))["logits"]
    return {
        "set": images.name,
        "fingerprint": images.fingerprint,
        "energy": np.round(-np.logaddexp.reduce(logits.astype(np.float64), axis=1), 4).tolist(),
    }


def provide(file: Path, data: str, float32: bool = False) -> Path:
    """Write the snapshot's provided copy, as float32 without a trial of float16 if that is asked
    for, and return its path.
    """
    if file.is_relative_to(snapshots.PROVIDED):
        raise runtime.UserError(
            f"{file} is a provided snapshot already. Train one of your own, or give its path"
        )
    state = snapshots.read_weights(file)
    description = snapshots.describe(file, state)
    if not snapshots.is_complete(description):
        raise runtime.UserError(
            f"{file} is not the last snapshot of a run of this project's scripts, "
            "so it is not provided"
        )
    dataset, sha256 = description["dataset"], runtime.sha256_file(file)
    id_set = loaders.load_id(dataset, "test", data, None, description.get("image_size"))
    image_sets = [id_set]
    if not float32:
        image_sets += loaders.parse_ood("", dataset, data, id_set.images.shape[-1])
    values, correct = measure(state, description, sha256, image_sets)
    weights, moved = "float32", None
    if not float32:
        half = halved(state)
        after, correct_after = measure(half, description, f"half-{sha256}", image_sets)
        moved = round(max(abs(values[what] - after[what]) for what in values), 6)
        print(f"{snapshots.short_name(file)}: float16 moves no metric by more than {moved:.4f}")
        if moved < TOLERANCE:
            state, weights, values, correct = half, "float16", after, correct_after
    model = snapshots.build_model(description).eval()
    snapshots.load_weights(model, state, file)
    path = snapshots.PROVIDED / file.parent.name / file.name
    kept = {key: value for key, value in description.items() if key not in ("sha256", "written")}
    # of a provided copy the parent is the provided copy of its parent
    if kept.get("parent_sha256"):
        kept["parent_sha256"] = provided_parent(kept["parent_sha256"])
    kept |= {
        "id_accuracy": round(values["id_accuracy"], 4),
        "weights": weights,
        "float16_moves": moved,
        "trained_sha256": sha256,
        "reference": reference(model),
        "part": {
            "images": len(part(len(id_set))),
            "correct": correct,
            "fingerprint": id_set.fingerprint,
        },
    }
    log = snapshots.training_log(file)
    if log.exists():
        runtime.write_bytes(path.with_name(log.name), log.read_bytes())
    snapshots.save_weights(path, state, kept)
    for other in path.parent.glob(f"{snapshots.stem_of(path)}_epoch_*.pt"):
        # of a longer or shorter run, which this one replaces
        if other != path and snapshots.stem_of(other) == snapshots.stem_of(path):
            snapshots.remove_snapshot(other)
    return path


def provided_parent(sha256: str) -> str:
    """sha256 of the provided copy of the snapshot that has this sha256, or is it;
    UserError when that is not provided.
    """
    for path in sorted(snapshots.PROVIDED.rglob("*.json")):
        description = json.loads(path.read_text())
        if sha256 in (description["sha256"], description["trained_sha256"]):
            return description["sha256"]
    raise runtime.UserError(
        "the pre-trained snapshot this one was made from is not provided. Provide that one first"
    )


def write_manifest() -> None:
    """List every provided snapshot: file, size, sha256,
    what it is and its ID accuracy in percent.
    """
    entries = []
    for path in sorted(snapshots.PROVIDED.rglob("*.pt")):
        description = json.loads(path.with_suffix(".json").read_text())
        entries.append(
            {
                "file": path.relative_to(snapshots.SNAPSHOTS).as_posix(),
                "bytes": path.stat().st_size,
                "sha256": runtime.sha256_file(path),
                "epochs": description["recipe"]["epochs"],
                **{key: description.get(key) for key in LISTED},
            }
        )
    runtime.write_json(MANIFEST, {"snapshots": entries})


def render_snapshots() -> str:
    """The page's table of the provided snapshots, out of manifest.json."""
    if not MANIFEST.exists():
        return "None yet."
    rows = []
    for entry in report.read_result(MANIFEST)["snapshots"]:
        file = MANIFEST.parent / entry["file"]
        outliers, moved = entry.get("outliers"), entry.get("float16_moves")
        seconds = [float(line["time(s)"]) for line in snapshots.read_training_log(file)]
        told = "not tried" if moved is None else f"moves a metric by {moved:.2g}"
        rows.append(
            [
                f"`{file.parent.name}/{file.stem}`",
                entry["dataset"],
                network_of(entry),
                entry["loss"] or "cross-entropy",
                outliers and f"{outliers['name']} ({outliers['images']:,})",
                entry["epochs"],
                f"{statistics.median(seconds):,.0f}" if seconds else None,
                entry["seed"],
                entry["id_accuracy"],
                trained_in(file),
                f"{entry['weights']} (float16 {told})",
                f"{entry['bytes'] / 1e6:.1f}",
            ]
        )
    return table(
        "snapshot | ID | network | loss | outliers | epochs | s an epoch | seed | ID accuracy, % | "
        "trained in | stored as | MB",
        rows,
    )


def trained_in(file: Path) -> str:
    """The precision that a provided snapshot's .json says it was trained in."""
    made = snapshots.read_description(file) or {}
    default = made.get("recipe", {}).get("precision", "not recorded")
    return made.get("computed", {}).get("precision") or default


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options.Parser(prog="python -m utils.paper.provide", description=__doc__)
    parser.add_argument(
        "names", nargs="+", metavar="NAME", help="snapshots, as test.py --model takes them"
    )
    parser.add_argument("--float32", action="store_true", help="do not try float16")
    parser.add_argument("--data", default=str(runtime.DATA))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    for name in args.names:
        path = provide(snapshots.find_one(name), args.data, args.float32)
        print(f"-> {runtime.short_path(path)}")
    write_manifest()
    print(f"manifest: {runtime.short_path(MANIFEST)}")


if __name__ == "__main__":
    sys.exit(runtime.run(main))
