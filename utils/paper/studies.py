"""The studies: ``reproduce.py DATASET --sweep``, ``--ablation`` and ``--scores-matrix``.

The sweep compares SR's alphas in short fine-tunings, on ID validation images and generated noise; no
OOD test set is seen. The ablation changes one thing at a time and scores the OOD test sets, and
whole runs of SR from the same network beside them: it explains SR's numbers, and nothing is chosen
by it. The matrix has every score on the networks of the tables: a score that wins on one may lose on
the next; what counts is its rank on each. Scores with an input step take three passes an image and are
left out of it: ODIN stands there without its step.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from utils import runtime, snapshots
from utils.evaluation import report
from utils.scores import choose
from utils.training import options, recipes

from . import plots, studied
from .commands import evaluate
from .results import Result
from .short_runs import EPOCHS, PREPARED, find_parent, fine_tune, prepare, recipe_of
from .trained import whole_runs
from .usual import file_name

CACHE = runtime.CIFAR / "cache" / "studies"  # of results
# 0 is plain fine-tuning, to tell the L1 term from the extra epochs
ALPHAS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
LIMIT = 0.5  # percent of validation accuracy that a recommended alpha may cost
# points of FPR95 and of AUROC that validation sets of this size cannot tell apart: about their
# standard errors
TIE = 0.5
TIE_AUROC = 0.1
RULE = (
    f"accuracy within {LIMIT} of alpha 0, FPR95 within {TIE} of the lowest, AUROC within {TIE_AUROC} "
    "of the highest of these; of what is left the paper's alpha, else the highest AUROC"
)
VARIANTS = {  # of the ablation: options of tune.py
    "SR": {"alpha": 0.02},
    "without the L1 norm (alpha 0)": {"alpha": 0.0},
    "alpha 0.05": {"alpha": 0.05},
    "without dropout": {"droprate": 0.0},
    "with the random crop": {"padding": 4},
    "without the random crop": {"padding": 0},
    "with the crop, without the L1 norm": {"padding": 4, "alpha": 0.0},
    "without the crop and the L1 norm": {"padding": 0, "alpha": 0.0},
    "learning rate 0.01": {"learning_rate": 0.01},
}
CURVES = {  # of the sweep's figure
    "accuracy": "Accuracy (%)",
    "mean_l1": "Mean ‖h‖₁",
    "fpr95": "FPR95, noise (%)",
    "auroc": "AUROC, noise (%)",
}


def sweep(args: argparse.Namespace) -> None:
    """Fine-tune and score every alpha."""
    parent = find_parent(args)
    folder, noise, count = prepare(args, parent)
    words = ["--id", folder, "--protocol", "full"]
    words += ["--ood", ",".join(f"folder:{path}" for path in noise)]
    words += options.common_words(args, PREPARED)
    rows = []
    for alpha in ALPHAS:
        file = fine_tune(args, folder, parent, alpha=alpha)
        row, result = scored(file, ["energy"], words, ("accuracy", "mean_l1"))
        entry = result["scores"][0]
        row |= {key: entry["average"][key] for key in ("fpr95", "auroc")}
        rows.append({"alpha": alpha, **row, "sets": entry["sets"]})
    best = recommend(rows, recipes.resolve("tune", args.dataset, "sr")["alpha"])
    record = made_of(args, result, parent, count) | {"rows": rows}
    path = finish(args, "sweep_alpha", record | {"recommended": best, "rule": RULE})
    curves = {title: [row[key] for row in rows] for key, title in CURVES.items()}
    draw(plots.plot_sweep, [row["alpha"] for row in rows], curves, path, best)


def ablation(args: argparse.Namespace) -> None:
    """Fine-tune and score every variant."""
    parent = find_parent(args)
    folder, _, count = prepare(args, parent)
    whole = whole_sr_runs(args, parent)
    done, rows, recipes_done = [("before", {}, parent)], [], []
    for name, changes in VARIANTS.items():
        recipe = recipe_of(args, changes)
        if recipe not in recipes_done:  # what the usual recipe has so already is no variant of it
            recipes_done.append(recipe)
            done.append((name, changes, fine_tune(args, folder, parent, **changes)))
    for name, changes, file in done + whole:
        row, result = scored(file, ["energy"], options.common_words(args), ("error", "mean_l1"))
        row |= {key: result["scores"][0][key] for key in ("sets", "average")}
        rows.append({"name": name, "changes": changes, **row})
    finish(args, "ablation", made_of(args, result, parent, count) | {"rows": rows})


def matrix(args: argparse.Namespace) -> None:
    """Score the ``networks`` by every score of one pass."""
    wanted = choose("all,odin:eps=0", args.dataset)
    labels = [score.label for score in wanted if "gradient" not in score.needs]
    rows = []
    for file in networks(args):
        row, result = scored(file, labels, options.common_words(args), ("error",))
        row["scores"] = [brief(entry) for entry in result["scores"]]
        rows.append({"name": snapshots.short_name(file), **row})
    record = {**made_of(args, result), "rows": rows}
    path = finish(args, "scores_matrix", record)
    labels, names, fpr95, _ = studied.arrays(record)
    draw(plots.plot_heat, fpr95, [studied.short(name) for name in names], labels, path)


def scored(file: Path, labels: list[str], words: list, keys: tuple) -> tuple[dict, Result]:
    """(what a row says of a snapshot and its making, the result of test.py): these of its ID images'
    numbers, how and when it was trained, what it was scored on and by what.
    """
    sha256 = runtime.sha256_file(file)
    result = evaluate(file, labels, words, CACHE / sha256[:16])
    made = snapshots.read_description(file) or {}
    row = {key: result["id"][key] for key in keys}
    row |= {"snapshot": sha256, **{key: result[key] for key in ("precision", "machine", "seconds")}}
    row["trained"] = {key: made.get(key) for key in ("written", "computed", "versions")}
    return row, result


def made_of(
    args: argparse.Namespace, result: dict, parent: Path | None = None, count: int = 0
) -> dict:
    """What all rows of a study share: how they were scored, as ``result``, which is one row's; of
    short fine-tunings the network that they begin with and ``count`` of their training images.
    """
    record = {
        "arguments": {key: runtime.portable(value) for key, value in vars(args).items()},
        "id": {key: result["id"][key] for key in ("name", "images", "fingerprint")},
        **{key: result[key] for key in ("ood", "num_to_avg")},
    }
    if parent is None:
        return record
    record |= {"arch": args.arch, "seed": args.seed, "parent": runtime.sha256_file(parent)}
    return record | {"parent_name": snapshots.short_name(parent), "images": count, "epochs": EPOCHS}


def finish(args: argparse.Namespace, study: str, record: dict) -> Path:
    """Print a study's table and write its result file; returns the place of its figure."""
    print(f"\n{studied.TABLES[study](record)}")
    path = report.RESULTS / f"{file_name(args, study)}.json"
    runtime.write_json(path, record)
    print(f"-> {runtime.short_path(path)}")
    return runtime.CIFAR / "figures" / path.stem


def draw(plot: Callable, *given: object) -> None:
    figure, _ = plot(*given)
    print(f"-> {runtime.short_path(figure)}")


def whole_sr_runs(args: argparse.Namespace, parent: Path) -> list[tuple[str, dict, Path]]:
    """(name, what its recipe has otherwise, path) of SR's finished runs on all images from the
    pre-trained snapshot ``parent``.
    """
    found, wanted = [], ("sr", args.seed, runtime.sha256_file(parent))
    for file, made in whole_runs():
        if (made.get("loss"), made.get("seed"), made.get("parent_sha256")) == wanted:
            changes = {key: value for key, (value, _) in recipes.departures(made).items()}
            name = f"whole run of SR, {made['recipe']['epochs']} epochs of "
            name += f"{made['train_images']:,} images"
            words = [name, *(f"{key} {value}" for key, value in changes.items())]
            found.append((", ".join(words), changes, file))
    return sorted(found, key=lambda run: len(run[1]))


def networks(args: argparse.Namespace) -> list[Path]:
    """The snapshots that the matrix is of, pre-trained first; UserError where there is none.

    Of each folder the longest whole run on the data set with this network and seed, a classifier
    and the papers' recipe; of the fine-tuned ones those made from a pre-trained one among them.
    """
    longest = {}
    for file, made in whole_runs():
        of = made.get("dataset"), made.get("arch"), made.get("seed")
        if (
            of == (args.dataset, args.arch, args.seed)
            and made.get("classifier") is not False
            and not recipes.departures(made)
        ):
            before = longest.get(file.parent.name)
            if before is None or before[1]["recipe"]["epochs"] < made["recipe"]["epochs"]:
                longest[file.parent.name] = file, made
    tuned = {file: recipes.stage_of(made) == "tune" for file, made in longest.values()}
    parents = {runtime.sha256_file(file) for file in tuned if not tuned[file]}
    found = [
        (tuned[file], snapshots.short_name(file), file)
        for file, made in longest.values()
        if not tuned[file] or made.get("parent_sha256") in parents
    ]
    if not found:
        raise runtime.UserError(
            f"there is no snapshot of a whole run of {args.dataset}, {args.arch}. Run: "
            + snapshots.training_command("baseline.py", args.dataset, bool(args.id))
        )
    return [file for *_, file in sorted(found)]


def brief(entry: dict) -> dict:
    """What the matrix keeps of a score's entry."""
    kept = {key: entry["average"][key] for key in ("fpr95", "auroc", "aupr_in")}
    sets = [{key: row[key] for key in ("set", "n", "fpr95", "auroc")} for row in entry["sets"]]
    return {"score": entry["score"], "hyper": entry["hyper"], "average": kept, "sets": sets}


def recommend(rows: list[dict], paper: float) -> float:
    """Of the alphas that cost at most LIMIT percent of accuracy, are within TIE of the lowest FPR95
    and within TIE_AUROC of the highest AUROC of these: the paper's, else the one of highest AUROC.
    """
    plain = next(row for row in rows if row["alpha"] == 0)
    accurate = [row for row in rows if row["accuracy"] >= plain["accuracy"] - LIMIT]
    lowest = min(row["fpr95"] for row in accurate)
    low = [row for row in accurate if row["fpr95"] <= lowest + TIE]
    best = max(low, key=lambda row: row["auroc"])
    tied = [row["alpha"] for row in low if row["auroc"] >= best["auroc"] - TIE_AUROC]
    return paper if paper in tied else best["alpha"]
