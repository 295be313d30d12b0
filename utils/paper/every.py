"""Every score on every trained network: ``reproduce.py DATASET --scores-matrix``.

A score that wins on one network may lose on the next; what counts is its rank on each. Scores with
an input step take three passes an image and are left out: ODIN stands there without its step. A
network that was scored before is not scored again, so that the same command goes on after an
interruption; --fresh scores anew.
"""

import argparse
from pathlib import Path

from utils import runtime, snapshots
from utils.evaluation import report
from utils.scores import Score, choose
from utils.training import options

from . import plots, studied
from .commands import newest, score_apart
from .studies import provenance, scoring_of, write_study
from .trained import whole_runs

CACHE = runtime.CIFAR / "cache" / "matrix"


def run(args: argparse.Namespace) -> None:
    """Score every whole run's network of the data set, print the table, write
    CIFAR/results/{dataset}_scores_matrix.json and the heat map.
    """
    rows, result = [], None
    for file in networks(args):
        result = scored(file, args)
        row = {"name": snapshots.short_name(file), "error": result["id"]["error"]}
        row["scores"] = [brief(entry) for entry in result["scores"]]
        rows.append(row | provenance(file, result))
    record = {**scoring_of(args, result), "rows": rows}
    path = write_study(args, "scores_matrix", record)
    print("\n" + studied.matrix_table(record))
    labels, names, fpr95, _ = studied.arrays(record)
    columns = [studied.short(name) for name in names]
    place = runtime.CIFAR / "figures" / path.stem
    figure, _ = plots.plot_heat(fpr95, columns, labels, place)
    print(f"-> {runtime.short_path(path)}\n-> {runtime.short_path(figure)}")


def networks(args: argparse.Namespace) -> list[Path]:
    """Snapshots of whole runs on the data set with this network and a classifier, pre-trained
    first; UserError where there is none.
    """
    found = [
        (bool(made.get("loss")), snapshots.short_name(file), file)
        for file, made in whole_runs()
        if (made.get("dataset"), made.get("arch")) == (args.dataset, args.arch)
        and made.get("classifier") is not False
    ]
    if not found:
        raise runtime.UserError(
            f"there is no snapshot of a whole run of {args.dataset}, {args.arch}. Run: "
            + snapshots.training_command("baseline.py", args.dataset, bool(args.id))
        )
    return [file for *_, file in sorted(found)]


def scored(file: Path, args: argparse.Namespace) -> dict:
    """The result of test.py with every score of one pass on a snapshot."""
    wanted = [
        score for score in choose("all,odin:eps=0", args.dataset) if "gradient" not in score.needs
    ]
    labels, words = [score.label for score in wanted], options.common_words(args)
    place = CACHE / runtime.sha256_file(file)[:16] / "_".join(words).replace("/", "-")
    if not args.fresh and (path := newest(place.glob("*.json"))):
        found = report.read_result(path, True)
        if [(entry["score"], entry["hyper"]) for entry in found["scores"]] == hypers_of(wanted):
            return found
    return score_apart(file, ",".join(labels), place, words)


def hypers_of(scores: list[Score]) -> list[tuple]:
    return [(score.label, score.hyper) for score in scores]


def brief(entry: dict) -> dict:
    """What the matrix keeps of a score's entry."""
    kept = {key: entry["average"][key] for key in ("fpr95", "auroc", "aupr_in")}
    sets = [{key: row[key] for key in ("set", "n", "fpr95", "auroc")} for row in entry["sets"]]
    return {"score": entry["score"], "hyper": entry["hyper"], "average": kept, "sets": sets}
