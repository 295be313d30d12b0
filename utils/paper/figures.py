"""The figures of a data set's table: densities, ROC curves, FPR95 bars, sparsity and training
curves, from result files and snapshots.
"""

import argparse
from pathlib import Path

import numpy as np

from utils import runtime, snapshots
from utils.evaluation import report
from utils.evaluation.network import load_network
from utils.evaluation.protocol import load_id_set

from . import plots, tables

FOLDER = runtime.CIFAR / "figures"
ENERGY_LABEL = "Energy score (larger = more OOD)"


def load_vectors(path: Path, score: str) -> dict[str, np.ndarray]:
    """{"ID": scores, OOD set: scores} of one score out of the per-image file beside a result
    (``path`` without suffix).
    """
    with np.load(path.with_name(path.name + "_scores.npz"), allow_pickle=False) as content:
        names = [name.split("/", 1)[1] for name in content.files if name.startswith(f"{score}/")]
        return {"ID" if name == "id" else name: content[f"{score}/{name}"] for name in names}


def roc_points(id_scores: np.ndarray, ood_scores: np.ndarray, count: int = 400) -> tuple:
    """(share of OOD accepted, share of ID accepted) at ``count`` thresholds
    spread over the ID scores.
    """
    thresholds = np.quantile(id_scores, np.linspace(0, 1, count), method="inverted_cdf")
    return tuple(
        np.concatenate(
            [[0.0], np.searchsorted(np.sort(s), thresholds, side="right") / len(s), [1.0]]
        )
        for s in (ood_scores, id_scores)
    )


def draw(rows: list[tuple], args: argparse.Namespace) -> list[Path]:
    """Write every figure that the measured rows allow; returns the paths without suffix.

    rows: (method, result, path of its files without suffix, score).
    Densities are of the methods that the energy scores.
    """
    made, named = [], {method: (result, path, score) for method, result, path, score in rows}
    energies = {method: given for method, given in named.items() if given[2] == "energy"}
    groups = [
        (method, vectors_to_show(result, path, score))
        for method, (result, path, score) in list(energies.items())[:4]
    ]
    if groups:
        made += plots.plot_densities(
            groups, FOLDER / tables.file_name(args, "densities"), ENERGY_LABEL
        )
    entries = {
        method: report.entry_of(result, score) for method, (result, _, score) in named.items()
    }
    bars = {
        method: {
            shown_name(row): (row["fpr95"], row["sd"]["fpr95"] if row.get("draws", 1) > 1 else None)
            for row in [*entry["sets"], entry["average"]]
        }
        for method, entry in entries.items()
    }
    made += plots.plot_bars(bars, FOLDER / tables.file_name(args, "bars"))
    sets = next(iter(entries.values()))["sets"]
    one = [sets[0], *filter(tables.is_official, sets)][-1]
    curves = {}
    for method, (_, path, score) in named.items():
        vectors = load_vectors(path, score)
        curves[method] = roc_points(vectors["ID"], vectors[one["set"]])
    made += plots.plot_roc(
        curves,
        FOLDER / tables.file_name(args, "roc"),
        f"ID {tables.display(args.dataset)} against {shown_name(one)}",
    )
    if {"Energy", "SR"} <= set(named):
        before, after = (id_features(named[method][0], args) for method in ("Energy", "SR"))
        made += plots.plot_sparsity(before, after, FOLDER / tables.file_name(args, "sparsity"))
    for method, (result, _, _) in named.items():
        log = snapshots.read_training_log(snapshots.find_one(result["snapshot"]["name"]))
        stage = result["snapshot"].get("loss", "pretrained")
        path = FOLDER / tables.file_name(args, f"training_{stage}")
        if log and path.with_suffix(".png") not in made:
            made += plots.plot_training_curves(
                log,
                path,
                (
                    f"{tables.display(args.dataset)}, "
                    f"{method if stage != 'pretrained' else 'pre-training'}"
                ),
            )
    return sorted({path.with_suffix("") for path in made})


def shown_name(row: dict) -> str:
    """How a measured set, or the mean of the sets, is written in a figure:
    a part of an official set says so.
    """
    return tables.display(row["set"]) + ", part" * (
        "n" in row and tables.own_name(row) != row["set"]
    )


def vectors_to_show(result: dict, path: Path, score: str) -> dict[str, np.ndarray]:
    """``load_vectors`` under the names that figures show."""
    shown = {row["set"]: shown_name(row) for entry in result["scores"] for row in entry["sets"]}
    return {shown.get(name, name): values for name, values in load_vectors(path, score).items()}


def id_features(result: dict, args: argparse.Namespace) -> np.ndarray:
    """Features (N,D) of the ID test images under a result's snapshot,
    from the cache that test.py left.
    """
    given = argparse.Namespace(
        **{**result["arguments"], **vars(args), "arch": None, "precision": result["precision"]}
    )
    file = snapshots.find_one(result["snapshot"]["name"])
    network, description = load_network(file, given)
    return network.outputs(load_id_set(description, file, given)).features
