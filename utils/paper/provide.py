"""Copy finished snapshots to CIFAR/snapshots/provided/, for those who clone the project:
``python -m utils.paper.provide NAME ...``.

manifest.json lists what there is. Needs the data set's ID test images.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path

import numpy as np
import torch

from utils import loaders, runtime, snapshots
from utils.evaluation import report
from utils.evaluation.network import Network
from utils.training import options

from .markdown import network_of, table

MANIFEST = snapshots.SNAPSHOTS / "manifest.json"
# test images, evenly spread, whose number of correct ones is recorded for a quick check of a copy
PART = 1000
REFERENCE = 20  # patches whose scores are recorded
# what manifest.json has of a snapshot's description
LISTED = ("dataset", "arch", "layers", "widen_factor", "num_classes", "loss", "outliers", "seed")
LISTED += ("train_images", "id_accuracy", "part")


def part(count: int) -> np.ndarray:
    """Index array of the images that a quick check looks at:
    spread over the set, which may be sorted by class.
    """
    return np.arange(0, count, max(1, count // PART))[:PART]


def outputs_of(model: torch.nn.Module, images: loaders.ImageSet, key: str) -> dict:
    """logits (N,C) and features (N,D) of a model in evaluation, in float32."""
    network = Network(model, key, next(model.parameters()).device, "fp32")
    return network.gather(len(images), network.run(images, network.forward))


def reference(model: torch.nn.Module) -> dict:
    """Energy scores in float32 of a few photographs' patches that need no download: a copy that
    gives others is not this network.
    """
    images = loaders.load(loaders.PHOTOGRAPHS, "test")
    images = images.subset(np.arange(REFERENCE))
    logits = outputs_of(model, images, "reference")["logits"]
    return {
        "set": images.name,
        "fingerprint": images.fingerprint,
        "energy": np.round(-np.logaddexp.reduce(logits.astype(np.float64), axis=1), 4).tolist(),
    }


def provide(file: Path, data: str) -> Path:
    """Write the snapshot's provided copy and return its path."""
    if file.is_relative_to(snapshots.PROVIDED):
        raise runtime.UserError(
            f"{file} is a provided snapshot already. Train one of your own, or give its path"
        )
    model, description = snapshots.load_model(file)
    if not snapshots.is_complete(description):
        raise runtime.UserError(
            f"{file} is not the last snapshot of a run of this project's scripts, "
            "so it is not provided"
        )
    dataset, sha256 = description["dataset"], runtime.sha256_file(file)
    id_set = loaders.load_id(dataset, "test", data, None, description.get("image_size"))
    predicted = outputs_of(model, id_set, sha256)["logits"].argmax(axis=1)
    correct = predicted == id_set.labels.numpy()
    path = snapshots.PROVIDED / file.parent.name / file.name
    kept = {key: value for key, value in description.items() if key not in ("sha256", "written")}
    # of a provided copy the parent is the provided copy of its parent
    if kept.get("parent_sha256"):
        kept["parent_sha256"] = provided_parent(kept["parent_sha256"])
    kept |= {
        "id_accuracy": round(100 * float(correct.mean()), 4),
        "trained_sha256": sha256,
        "reference": reference(model),
        "part": {
            "images": len(part(len(id_set))),
            "correct": int(correct[part(len(id_set))].sum()),
            "fingerprint": id_set.fingerprint,
        },
    }
    log = snapshots.training_log(file)
    if log.exists():
        runtime.write_bytes(path.with_name(log.name), log.read_bytes())
    snapshots.save_weights(path, snapshots.read_weights(file), kept)
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
        file, outliers = MANIFEST.parent / entry["file"], entry["outliers"]
        seconds = [float(line["time(s)"]) for line in snapshots.read_training_log(file)]
        names = [f"`{file.parent.name}/{file.stem}`", entry["dataset"], network_of(entry)]
        names.append(entry["loss"] or "cross-entropy")
        names.append(outliers and f"{outliers['name']} ({outliers['images']:,})")
        spent = f"{statistics.median(seconds):,.0f}" if seconds else None
        made = [entry["epochs"], spent, entry["seed"], entry["id_accuracy"], trained_in(file)]
        rows.append([*names, *made, f"{entry['bytes'] / 1e6:.1f}"])
    head = "snapshot | ID | network | loss | outliers | epochs | s an epoch | seed | ID accuracy, %"
    return table(f"{head} | trained in | MB", rows)


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
    parser.add_argument("--data", default=str(runtime.DATA))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    for name in args.names:
        path = provide(snapshots.find_one(name), args.data)
        print(f"-> {runtime.short_path(path)}")
    write_manifest()
    print(f"manifest: {runtime.short_path(MANIFEST)}")


if __name__ == "__main__":
    sys.exit(runtime.run(main))
