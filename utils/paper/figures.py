"""The figures of a data set's table: densities, ROC curves, FPR95 bars, sparsity and training
curves, from result files and snapshots.
"""

import argparse
from pathlib import Path

import numpy as np

from utils import runtime, snapshots
from utils.evaluation.case import load_id_set
from utils.evaluation.load import load_network

from . import plots
from .markdown import sd_of
from .published import display, is_official, own_name
from .results import Result
from .usual import file_name

FOLDER = runtime.CIFAR / "figures"
ENERGY_LABEL = "Energy score (larger = more OOD)"


def load_vectors(result: Result, score: str) -> dict[str, np.ndarray]:
    """{"ID": scores, OOD set: scores} of one score out of the per-image file beside a result."""
    with runtime.open_regular(result.path.with_name(f"{result.path.stem}_scores.npz")) as file:
        content = np.load(file, allow_pickle=False)
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


def draw_densities(rows: list[tuple], args: argparse.Namespace) -> list[Path]:
    """The densities of the rows of ``draw`` that the energy scores, if there are any: its files."""
    energies = [row for row in rows if row[2] == "energy"][:4]
    groups = [(method, vectors_to_show(*given)) for method, *given in energies]
    place = FOLDER / file_name(args, "densities")
    return list(plots.plot_densities(groups, place, ENERGY_LABEL)) if groups else []


def draw(rows: list[tuple], args: argparse.Namespace) -> list[Path]:
    """Write every figure that the measured rows allow; returns the paths without suffix.

    rows: (method, result, score).
    """

    def place(kind: str) -> Path:
        return FOLDER / file_name(args, kind)

    made = draw_densities(rows, args)
    entries = {method: result.entry(score) for method, result, score in rows}
    bars = {
        method: {
            shown_name(row): (row["fpr95"], sd_of(row, "fpr95"))
            for row in [*entry["sets"], entry["average"]]
        }
        for method, entry in entries.items()
    }
    made += plots.plot_bars(bars, place("bars"))
    sets = next(iter(entries.values()))["sets"]
    one = [sets[0], *filter(is_official, sets)][-1]
    curves = {}
    for method, result, score in rows:
        vectors = load_vectors(result, score)
        curves[method] = roc_points(vectors["ID"], vectors[one["set"]])
    title = f"ID {display(args.dataset)} against {shown_name(one)}"
    made += plots.plot_roc(curves, place("roc"), title)
    results = {method: result for method, result, _ in rows}
    if {"Energy", "SR"} <= set(results):
        before, after = (id_features(results[method], args) for method in ("Energy", "SR"))
        made += plots.plot_sparsity(before, after, place("sparsity"))
    stages = {result.stage: (method, result) for method, result in reversed(results.items())}
    for stage, (method, result) in stages.items():
        if log := snapshots.read_training_log(snapshots.find_one(result.name)):
            what = "pre-training" if stage == "pretrained" else method
            title = f"{display(args.dataset)}, {what}"
            made += plots.plot_training_curves(log, place(f"training_{stage}"), title)
    return sorted({path.with_suffix("") for path in made})


def shown_name(row: dict) -> str:
    """How a measured set, or the mean of the sets, is written in a figure:
    a part of an official set says so.
    """
    part = "n" in row and own_name(row) != row["set"]
    return display(row["set"]) + ", part" * part


def vectors_to_show(result: Result, score: str) -> dict[str, np.ndarray]:
    """``load_vectors`` under the names that figures show."""
    shown = {row["set"]: shown_name(row) for entry in result["scores"] for row in entry["sets"]}
    return {shown.get(name, name): values for name, values in load_vectors(result, score).items()}


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
