"""Mean and sd over the seeds of one's own runs: ``reproduce.py --summary NAME``."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from utils import runtime, snapshots
from utils.evaluation import printed, report
from utils.evaluation.protocol import PROTOCOLS

from .markdown import mean_and_sd, plus_minus, table
from .results import Result
from .tables import tabular

METRICS = ("fpr95", "auroc", "aupr_in")
COLUMNS = (*METRICS, "id_error")
NAMES = ("run", "protocol", "score", "set")
HEAD = [*NAMES, "seeds", "FPR95", "AUROC", "AUPR", "ID error"]


class Measured(NamedTuple):
    """One score of one run."""

    run: str  # folder/name, the seed left out
    seed: int
    start: int | None  # seed of the pre-trained network, where its run's name says another one
    settings: str  # what else than the score tells results apart
    entry: dict[str, Any]  # of the score
    error: float | None  # ID error, percent


def summarise(name: str) -> list[Path]:
    """Print mean and sd over the seeds of the runs called ``name``, whatever its seed, and write
    them as CSV and LaTeX, whose paths are returned; ``DIR/name`` for results that test.py --save DIR
    has written. UserError where no result is of such a run.
    """
    folder, place = report.RESULTS, Path(name).expanduser().parent
    if "/" in name and place.is_dir() and read_results(place):
        folder, name = place, Path(name).name
    results = read_results(folder)
    lines = lines_of(choose(results, name))
    rows = [printed_line(line) for line in lines if line["mean"]]
    print(f"\n{table(HEAD, rows)}\n")
    print(
        "mean ± sd over training seeds, percent; the sd is a sample's, and of one seed there is none"
    )
    stem = re.sub(r"[^A-Za-z0-9.+-]+", "_", without_seed(name)).strip("_")[:150]
    paths = [folder / f"{stem}_summary.{ending}" for ending in ("csv", "tex")]
    runtime.write_text(paths[0], report.csv_text([csv_line(line) for line in lines]))
    runtime.write_text(
        paths[1], f"% made by reproduce.py --summary {name}\n{tabular(HEAD, rows)}\n"
    )
    for path in paths:
        print(f"-> {runtime.short_path(path)}")
    return paths


def read_results(folder: Path) -> list[Measured]:
    """The results of whole runs in a folder, an older one of the same run and score left out."""
    newest = {}
    for file in sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns):
        try:
            for one in measured_in(Result(file)):
                newest[one[:4], one.entry["score"]] = one
        except (runtime.UserError, KeyError, TypeError, AttributeError):
            continue  # a table, a study, or a file of someone else's
    return list(newest.values())


def measured_in(result: Result) -> list[Measured]:
    """What a result has of each score; nothing of a run that is not at its end."""
    seed, path = result["snapshot"].get("seed"), Path(result.name)
    if seed is None or not snapshots.is_complete(result["snapshot"]):
        return []
    stem = re.sub(r"_epoch_\d+$", "", path.name.removesuffix(".pt"))
    start = re.search(r"_from-s(\d+)(?=-|$)", stem)
    run = f"{without_seed(path.parent.name)}/{without_seed(stem)}"
    settings = {k: v for k, v in report.settings_of(result).items() if k not in ("scores", "train")}
    told = (run, seed, int(start.group(1)) if start else None, json.dumps(settings, sort_keys=True))
    return [Measured(*told, entry, result.error) for entry in result["scores"]]


def without_seed(name: str) -> str:
    """A run's or folder's name without its seed and that of the network it began with:
    ``cifar10_wrn_s2_tune_from-s1`` gives ``cifar10_wrn_tune``.
    """
    name = re.sub(r"_s[\d*]+(?=_|/|$)", "", re.sub(r"(_epoch_\d+)?(\.pt)?$", "", name))
    return re.sub(r"_from-s[\d*]+(-)?", lambda m: "_from-" if m.group(1) else "", name)


def choose(results: list[Measured], name: str) -> list[Measured]:
    """The results of the runs of this name; where there is none, of those that depart from it."""
    wanted = without_seed(name)
    runs = [one.run if "/" in wanted else one.run.partition("/")[2] for one in results]
    found = [one for one, run in zip(results, runs) if run == wanted]
    found = found or [one for one, run in zip(results, runs) if run.startswith(f"{wanted}_")]
    if not found:
        there = ", ".join(sorted({one.run for one in results})) or "no result of a whole run"
        raise runtime.UserError(
            f"no result in {runtime.short_path(report.RESULTS)} is of a run called {name}. There is: "
            f"{there}. A result is made by: python test.py --model NAME; those of --save DIR are "
            "asked for by --summary DIR/NAME"
        )
    return found


def lines_of(results: list[Measured]) -> list[dict[str, Any]]:
    """A line for each series of runs that differ in the seed only, score and set: the sets, then
    their groups or their mean. ``mean``: whether it is over sets; of COLUMNS it has (mean, sd) over
    the seeds.
    """
    groups, lines = {}, []
    for one in results:
        key = (one.run, told(one.settings, results), one.settings, one.entry["score"])
        groups.setdefault(key, []).append(one)
    for (run, how, settings, score), members in sorted(groups.items(), key=lambda item: item[0]):
        rules = PROTOCOLS[json.loads(settings)["protocol"]]
        keys = ("fpr95_out" if rules.out_as_pos else "fpr95", *METRICS[1:])
        for start, runs in series_of(members):
            runs = sorted(runs, key=lambda one: one.seed)
            errors = [one.error for one in runs if one.error is not None]
            for rows in zip(*(printed.shown_rows(one.entry) for one in runs)):
                line = {"run": shown_run(run, start), "protocol": how, "score": score}
                line |= {"set": rows[0]["set"], "seeds": [one.seed for one in runs]}
                line["mean"] = "sets" in rows[0] or rows[0]["set"] == "average"
                for metric, key in zip(METRICS, keys):
                    line[metric] = mean_and_sd([row[key] for row in rows])
                line["id_error"] = mean_and_sd(errors if len(errors) == len(runs) else [])
                lines.append(line)
    return lines


def series_of(results: list[Measured]) -> list[tuple[int | None, list[Measured]]]:
    """[(None, the runs that began with the network of their own seed), (seed, those that all began
    with the network of this seed), ...]. A run that is of two series is in both; one that would be
    alone in the first is in the other only.
    """
    own = [one for one in results if one.start is None]
    fixed = [
        (start, [one for one in results if start == (one.seed if one.start is None else one.start)])
        for start in sorted({one.start for one in results} - {None})
    ]
    alone = len(own) == 1 and any(own[0] in runs for _, runs in fixed)
    return [(None, own)] * (bool(own) and not alone) + fixed


def shown_run(run: str, start: int | None) -> str:
    """A run's name with s* for its seed, and ``from-s1`` where all began with that network."""
    name = re.sub(r"_(pretrained|tune)(?=_|$)", r"_s*_\1", run)
    return name if start is None else f"{name} from-s{start}"


def told(settings: str, results: list[Measured]) -> str:
    """What tells results of these settings from the others of a summary: the protocol, and what is
    not the same everywhere.
    """
    of_all = [json.loads(one) for one in {one.settings for one in results}]
    own = json.loads(settings)
    varying = [key for key, value in own.items() if any(one[key] != value for one in of_all)]
    words = [f"{key} {short(own[key])}" for key in varying if key != "protocol"]
    return ", ".join([own["protocol"], *words])


def short(value: object) -> str:
    """A setting's value; of image sets, their names and the beginning of their fingerprints."""
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "+".join(f"{name} {str(fingerprint)[:6]}" for name, fingerprint in value)
    return str(value)


def printed_line(line: dict[str, Any]) -> list[str]:
    """A line of the printed table."""
    names = [line[key] for key in NAMES]
    seeds = f"{len(line['seeds'])} ({', '.join(map(str, line['seeds']))})"
    return [*names, seeds, *(plus_minus(*line[key]) for key in COLUMNS)]


def csv_line(line: dict[str, Any]) -> dict[str, Any]:
    """A line of the CSV; an sd that there is not is empty."""
    row = {key: line[key] for key in NAMES}
    row |= {"n": len(line["seeds"]), "seeds": " ".join(map(str, line["seeds"]))}
    for key in COLUMNS:
        for name, value in zip((key, f"{key}_sd"), line[key]):
            row[name] = "" if value is None else f"{value:.4f}"
    return row
