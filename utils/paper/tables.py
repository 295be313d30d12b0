"""The papers' tables, published beside measured: ``python reproduce.py DATASET --table NAME``
writes them.

A published number is compared with a measured one only on the very images of the paper. A set of
the same kind stands in the same column, marked †, and so does a mean over such sets.
CIFAR/README.md shows the tables, RESULTS.tex has them for LaTeX, and RESULTS.csv has a line for
each number, with what it was made of.
"""

import argparse
import json
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import NamedTuple

from utils.evaluation import report
from utils.evaluation.protocol import is_usual
from utils.loaders import SIX_SETS, SOURCES, STAND_INS
from utils.losses import LOSSES
from utils.runtime import CIFAR
from utils.scores import SCORES
from utils.snapshots import is_complete
from utils.training import arch_name
from utils.training.recipes import departures

PUBLISHED = json.loads((CIFAR / "published.json").read_text(encoding="utf-8"))
RECORDED = report.RESULTS / "recorded"
OUTPUT = CIFAR / "RESULTS"
# Data sets of which a paper has a six-set table, the one shown first;
# the six sets and their numbers of images.
ID_SETS = list(dict.fromkeys(r["id_set"] for r in PUBLISHED["records"] if r["protocol"] == "paper"))
OFFICIAL = {name: SOURCES["sets"][name]["images"] for name in SOURCES["groups"]["ood"]}
# a measured set -> the paper's set whose place it takes
PLACES = {name: line[0] for line in SIX_SETS for name in line}
# (title, loss or None, score) of the rows of a data set's own table
TABLE_METHODS = tuple((m["title"], m["loss"], m["score"]) for m in PUBLISHED["methods"])
METHODS = tuple(m for m, entry in zip(TABLE_METHODS, PUBLISHED["methods"]) if entry["chain"])
# what published.json calls a metric, and what results do
KEYS = {"fpr95": "fpr95", "auroc": "auroc", "aupr": "aupr_in"}
TITLES = {"fpr95": "FPR95", "auroc": "AUROC", "aupr": "AUPR"}
FLAGS = PUBLISHED["flags"]
OTHER = "†"  # beside a number that is not of the paper's images


class Table(NamedTuple):
    """A published table: its title, its source in published.json, its metrics,
    and the records that are its rows.
    """

    title: str
    source: str
    metrics: tuple
    has: Callable = lambda record: True


TABLES = {
    "sr": Table("SR, PAKDD 2022: mean FPR95 over the six sets", "sr", ("fpr95",)),
    "srf1": Table(
        "SR framework, Sci. Rep. 2024: all methods, means over the six sets",
        "srf",
        ("fpr95", "auroc", "aupr"),
        lambda r: (
            r["network"] == "wrn"
            and r["method"] != "Baseline"
            and r["ood_set"] in (None, "average")
        ),
    ),
    "srf3": Table(
        "SR framework, Sci. Rep. 2024: SR on four networks, means over the six sets",
        "srf",
        ("fpr95", "auroc", "aupr"),
        lambda r: r["method"] in ("Baseline", "SR") and r["ood_set"] in (None, "average"),
    ),
    "srf4": Table(
        "SR framework, Sci. Rep. 2024: SR on each set",
        "srf",
        ("fpr95", "auroc"),
        lambda r: r["network"] == "wrn" and r["method"] in ("Baseline", "SR"),
    ),
    "energy": Table("Energy, NeurIPS 2020: each set", "energy", ("fpr95", "auroc", "aupr")),
}


class Cell(NamedTuple):
    """One place of a table's row: the published records by metric,
    and the row of a result that takes this place.
    """

    printed: dict
    row: dict  # {} where nothing is measured
    official: bool  # whether the measured images are the paper's


class Row(NamedTuple):
    """One row of a published table, with what is measured of it."""

    method: str
    network: str
    score: str
    stage: str  # "pretrained", or the loss of fine-tuning
    cells: dict  # the papers' sets and "average" -> Cell, in the order of the protocol
    error: dict | None  # the published ID error
    result: dict | None
    note: str  # why nothing is measured


# what tables, figures and studies without these in their names are of
USUAL = {"arch": "wrn", "seed": 1, "preset": "paper"}


def file_name(args: argparse.Namespace, what: str) -> str:
    """Name of a table, figure or study: another network, seed or preset than the usual is named and
    takes no usual one's place.
    """
    unusual = [
        f"s{args.seed}" if key == "seed" else arch_name(getattr(args, key))
        for key, usual in USUAL.items()
        if getattr(args, key) != usual
    ]
    return "_".join([args.dataset, *unusual, what])


def changed(args: argparse.Namespace, **options: object) -> argparse.Namespace:
    """These options with some of them otherwise."""
    return argparse.Namespace(**{**vars(args), **options})


def unusual_words(options: dict) -> list[str]:
    """Those of arch, seed and preset that are not the usual ones, as on a command line."""
    return [
        word
        for key, value in options.items()
        if value != USUAL[key]
        for word in (f"--{key}", str(value))
    ]


def published_rows(table: Table, id_set: str) -> dict:
    """{(method, network, score, stage): {ood set, or None for the ID error: {metric: record}}} in
    the order of published.json.
    """
    rows = {}
    for record in PUBLISHED["records"]:
        if (
            record["source"] == table.source
            and record["id_set"] == id_set
            and record["protocol"] == "paper"
            and table.has(record)
        ):
            key = (record["method"], record["network"], record["score"], record["stage"])
            rows.setdefault(key, {}).setdefault(record["ood_set"], {})[record["metric"]] = record
    return rows


def recorded_results(name: str) -> list[dict]:
    """The recorded results of test.py of a data set, by file name."""
    found = [report.read_result(path) for path in sorted(RECORDED.glob(f"{name}_*.json"))]
    return [result for result in found if "scores" in result]  # others are of studies


def recorded() -> dict:
    """``measured_results`` of the recorded ones."""
    return measured_results((RECORDED,))


def measured_results(folders: tuple[Path, ...]) -> dict:
    """{(id set, network, stage, score): (entry, result, path)} of the protocol's own results.

    Of each stage the newest result of the last folder that has one counts (of recorded ones that of
    the longest schedule), and those of the same snapshot, OOD images and precision. A fine-tuned
    stage's was made from the pre-trained network that counts or, where nothing was, from another
    measured one, which its note names. Only whole runs of the papers' recipes enter, not other
    files that test.py can score.
    """
    groups = {}
    for rank, folder in enumerate(folders):
        for path in folder.glob("*.json"):
            result = report.read_result(path)
            if enters(result):
                snapshot = result["snapshot"]
                # git keeps no times
                written = path.stat().st_mtime_ns * (folder != RECORDED)
                place = (rank, written, snapshot["recipe"]["epochs"], path.name)
                groups.setdefault(stage_of(snapshot), []).append((place, path, result))
    found, pretrained = {}, {}
    for key, entries in sorted(groups.items(), key=lambda group: group[0][2] != "pretrained"):
        entries.sort(key=lambda entry: entry[0])
        if key[2] == "pretrained":
            pretrained[key[:2]] = [e[2]["snapshot"]["sha256"] for e in entries]
        else:
            parents = pretrained.get(key[:2], [])
            entries = made_from(parents[-1:], entries) or made_from(parents, entries)
        for _, path, result in entries:
            if made_of(result) == made_of(entries[-1][2]):
                for entry in result["scores"]:
                    found[(*key, entry["score"])] = (entry, result, path)
    return found


def made_from(parents: list[str], entries: list[tuple]) -> list[tuple]:
    """Those (place, path, result) whose snapshot was fine-tuned from one of these networks."""
    return [entry for entry in entries if entry[2]["snapshot"].get("parent_sha256") in parents]


def stage_of(snapshot: dict) -> tuple[str, str, str]:
    """(id set, network, "pretrained" or the loss of fine-tuning) of a snapshot."""
    return snapshot["dataset"], snapshot["arch"], snapshot.get("loss", "pretrained")


def made_of(result: dict) -> tuple:
    """What results must have in common to stand in one row of snapshots:
    the snapshot, the images and the precision.
    """
    images = [(ood["name"], ood["images"], ood.get("fingerprint")) for ood in result["ood"]]
    made = result["snapshot"]["sha256"], result["precision"], result["id"].get("fingerprint")
    return *made, sorted(images)


def enters(result: dict) -> bool:
    """Whether a result is of the protocol (six sets, 10 draws of seed 1, all ID images) and of a
    whole run of the recipe in the stage's folder.

    A score's hyper-parameters are in its label, which the tables look it up by.
    """
    snapshot = result.get("snapshot")
    if (
        "arguments" not in result
        or snapshot is None
        or not is_complete(snapshot)
        or departures(snapshot)
    ):
        return False
    folder = "pretrained" if "loss" not in snapshot else f"tune_{snapshot['loss']}"
    return (
        is_usual(result)
        and snapshot.get("data", snapshot["dataset"]) == snapshot["dataset"]
        and is_folder_of(snapshot["name"].split("/")[-2], folder)
        and not snapshot["name"].endswith("_best")
    )


def is_folder_of(name: str, folder: str) -> bool:
    """Whether a folder of snapshots is a stage's: its own, or that of the preset ``code``, which
    for SR is the papers' recipe."""
    return name in (folder, f"{folder}_code")


def why_not(score: str, stage: str) -> str:
    """What stands in a row without a measurement."""
    there = stage in ("pretrained", *LOSSES) and score in SCORES
    return "not measured" if there else "method not in this project"


def build(name: str, id_set: str, measured: dict) -> list[Row]:
    """The rows of a table, in the order of published.json."""
    rows = []
    for key, printed in published_rows(TABLES[name], id_set).items():
        _, network, score, stage = key
        entry, result, _ = measured.get((id_set, network, stage, score), (None, None, None))
        here = {PLACES[row["set"]]: row for row in entry["sets"]} if entry else {}
        official = set()
        if entry and has_official_id(result["id"], id_set):
            official = {place for place, row in here.items() if is_official(row)}
        if entry:
            here["average"] = entry["average"]
            official |= {"average"} if official == set(OFFICIAL) else set()
        cells = {
            place: Cell(printed[place], here.get(place, {}), place in official)
            for place in (*OFFICIAL, "average")
            if place in printed
        }
        error, note = printed.get(None, {}).get("id_error"), "" if entry else why_not(score, stage)
        rows.append(Row(*key, cells, error, result, note))
    return rows


def has_official_id(images: dict, id_set: str) -> bool:
    """Whether ID images are the paper's test set: all of it, and no other known of that number."""
    note = STAND_INS["id_notes"].get(images.get("fingerprint"), {"stands": True})
    return images["images"] == SOURCES["sets"][id_set]["test_images"] and note["stands"]


def is_official(row: dict) -> bool:
    """Whether a measured set is the paper's and whole, by its name and its number of images."""
    return OFFICIAL.get(row["set"]) == row["n"]


def own_name(row: dict) -> str:
    """A measured set's name; one that has a paper's set's name but not its
    number of images is marked.
    """
    other = row["n"] != OFFICIAL.get(row["set"], row["n"])
    return row["set"] + " (not the paper's)" * other


def display(name: str) -> str:
    """How tables and figures write a data set, ``lsun_c`` as LSUN-C;
    a name that says no other stays as it is.
    """
    return SOURCES["sets"].get(name, {}).get("display", "Average" if name == "average" else name)


def number(value: float | None, sign: bool = False) -> str:
    """A number with two digits after the point, with its sign if asked for; nothing for None."""
    return "" if value is None else f"{value:+.2f}" if sign else f"{value:.2f}"


def printed_number(record: dict | None, flags: Container[str] = FLAGS) -> str:
    """A published number with its flag, if that is one of ``flags``; nothing for None."""
    flag = (record or {}).get("flag", {}).get("kind")
    return number(record and record["value"]) + f" [{flag}]" * (flag in flags)


def note_numbers(measured: dict) -> dict:
    """{(id set, network, stage): the number of the note that says what
    its numbers were made of}.
    """
    stages = dict.fromkeys(key[:3] for key in measured if key[0] in ID_SETS)
    return {stage: place for place, stage in enumerate(stages, 1)}


def grid(name: str, id_set: str, measured: dict) -> list[list[str]]:
    """A table as text, its header first: a column pair (published, here) for each set,
    or for each metric of a mean.
    """
    rows = build(name, id_set, measured)
    metrics = TABLES[name].metrics
    notes = note_numbers(measured)
    places = list(dict.fromkeys(place for row in rows for place in row.cells))
    networks = len({row.network for row in rows}) > 1
    by_set = len(places) > 1
    titles = map(display, places) if by_set else (f"mean {TITLES[metric]}" for metric in metrics)
    pairs = [word for title in (*titles, "ID error") for word in (title, "here")]
    lines = [["method", *["network"] * networks, *["metric"] * by_set, *pairs, "note"]]
    for row in rows:
        error = [printed_number(row.error), number(row.result and row.result["id"]["error"])]
        for line in [[metric] for metric in metrics] if by_set else [metrics]:
            names = [row.method, *[row.network] * networks, *[TITLES[line[0]]] * by_set]
            pairs = [pair_of(row.cells.get(place), metric) for place in places for metric in line]
            note = row.note or f"[{notes[id_set, row.network, row.stage]}]"
            lines.append([*names, *(word for pair in pairs for word in pair), *error, note])
            error = ["", ""]  # once a method
    return lines


def pair_of(cell: Cell | None, metric: str) -> tuple[str, str]:
    """(published, measured) of a metric as text."""
    if cell is None:
        return "", ""
    here = number(cell.row.get(KEYS[metric]))
    mark = f" {OTHER}" * bool(here and not cell.official)
    return printed_number(cell.printed.get(metric)), here + mark


def describe_notes(measured: dict) -> list[str]:
    """What the numbers were made of: a numbered line a snapshot, then the OOD and ID images."""
    lines, ood_sets, id_sets = [], {}, {}
    results = {key[:3]: result for key, (_, result, _) in measured.items()}
    for key, place in note_numbers(measured).items():
        result, one = results[key], results[key]["snapshot"]
        outliers = one.get("outliers")
        lines.append(
            f"[{place}] `{one['name']}`"
            + (f", from `{one['parent'].removesuffix('.pt')}`" if "parent" in one else "")
            + f": {display(key[0])}, seed {one['seed']}, "
            f"{one['recipe']['epochs']} epochs, {one['train_images']:,} training images, "
            + (f"{outliers['images']:,} outliers of {outliers['name']}, " if outliers else "")
            + f"ID accuracy {result['id']['accuracy']:.2f} % of {result['id']['images']:,}, "
            f"scored in {result['precision']}, sha256 {one['sha256'][:12]}."
        )
        images = tuple((ood["name"], ood["images"]) for ood in result["ood"])
        ood_sets.setdefault(images, []).append(f"[{place}]")
        id_sets.setdefault(result["id"].get("fingerprint"), []).append(f"[{place}]")
    for images, places in ood_sets.items():
        told = ", ".join(describe_set(name, count) for name, count in images)
        lines.append(f"OOD images of {', '.join(places)}: {told}.")
    for fingerprint, places in id_sets.items():
        if note := STAND_INS["id_notes"].get(fingerprint):
            lines.append(f"ID images of {', '.join(places)}: {note['note']}.")
    return lines or ["Nothing measured yet."]


def describe_set(name: str, count: int) -> str:
    """An OOD set of a note: marked where it is not the paper's, with what it stands in for."""
    text = f"`{name}`" + f" {OTHER}" * (OFFICIAL.get(name) != count) + f" {count:,}"
    if name in STAND_INS["sets"]:
        kind = STAND_INS["sets"][name]["kind"]
        text += f" ({kind}, in the place of {display(PLACES[name])})"
    return text


def shown_sets(measured: dict) -> list[str]:
    """The data sets whose tables are shown: the first,
    and the others once anything of them is measured.
    """
    return [
        s for place, s in enumerate(ID_SETS) if place == 0 or any(key[0] == s for key in measured)
    ]


def render_csv(measured: dict) -> str:
    """RESULTS.csv: a line for each row, OOD set and metric of every table."""
    lines = []
    for id_set in shown_sets(measured):
        for name, table in TABLES.items():
            for row in build(name, id_set, measured):
                for place in lines_of(row):
                    for metric in table.metrics:
                        lines.append(
                            {"table": name, "id_set": id_set} | line_of(row, place, metric)
                        )
    return report.csv_text(lines, "\n")


def line_of(row: Row, place: tuple, metric: str) -> dict:
    """A line of RESULTS.csv, without its first columns, of a place that ``lines_of`` gives."""
    ood_set, printed, here, error, note = place
    record, value = printed.get(metric), here.get(KEYS[metric])
    result = row.result if here else {}
    snapshot = result.get("snapshot", {})
    own_error = row.result["id"]["error"] if row.result and (error or ood_set == MEAN) else None
    sd = here.get("sd", {}) if here.get("draws", 1) > 1 else {}
    counted = here if "n" in here else {}
    return {
        **{key: getattr(row, key) for key in ("method", "network", "score", "stage")},
        "ood_set": ood_set,
        "metric": metric,
        "published": number(record and record["value"]),
        "flag": (record or {}).get("flag", {}).get("kind", ""),
        "measured": number(value),
        "sd": number(sd.get(KEYS[metric])),
        "difference": number(difference(record, value), sign=True),
        **{key: counted.get(key, "") for key in ("n", "drawn", "draws")},
        "id_error_published": number(error and error["value"]),
        "id_error": number(own_error),
        "epochs": snapshot.get("recipe", {}).get("epochs", ""),
        "seed": snapshot.get("seed", ""),
        "precision": result.get("precision", ""),
        "snapshot_sha256": snapshot.get("sha256", ""),
        "note": note,
    }


MEAN = "mean of the sets here"


def lines_of(row: Row) -> Iterator[tuple]:
    """(OOD set, published records, measured row or {}, published ID error, note):
    the paper's sets, then the other images.
    """
    for at, (place, cell) in enumerate(row.cells.items()):
        note = row.note or ("" if cell.official else "paper's images not at hand")
        error = row.error if at == 0 else None
        yield place, cell.printed, cell.row if cell.official else {}, error, note
    for place, cell in row.cells.items():
        if cell.row and not cell.official:
            name = MEAN if place == "average" else own_name(cell.row)
            yield name, {}, cell.row, None, "not the paper's images"


def difference(record: dict | None, value: float | None) -> float | None:
    """Measured minus published, None where they are not to be compared."""
    comparable = record and value is not None and record.get("flag", {}).get("kind") != "misprint"
    return value - record["value"] if comparable else None


def tabular(head: list[str], rows: list[list[str]], columns: str = "") -> str:
    """A LaTeX tabular, which needs no package; ``columns``: their alignment, left by default."""
    escape = str.maketrans(
        {"_": r"\_", "%": r"\%", "&": r"\&", OTHER: r"$^\dagger$", "#": r"\#", "±": r"$\pm$"}
    )
    head, *body = [
        " & ".join(cell.translate(escape) for cell in line) + r" \\" for line in (head, *rows)
    ]
    begin = rf"\begin{{tabular}}{{{columns or 'l' * (head.count(' & ') + 1)}}}"
    return "\n".join([begin, r"\hline", head, r"\hline", *body, r"\hline", r"\end{tabular}"])


def render_tex(measured: dict) -> str:
    """LaTeX tabulars, one a table; they need no package."""
    parts = [
        "% made by reproduce.py --table; CIFAR/README.md tells what stands in these tables"
        + "".join(f"\n% {line}" for line in describe_notes(measured))
    ]
    for id_set in shown_sets(measured):
        for name, table in TABLES.items():
            head, *rows = grid(name, id_set, measured)
            pairs = head.count("here")
            columns = "l" * (len(head) - 2 * pairs - 1) + "r" * (2 * pairs) + "l"
            title = f"% {table.title} ({id_set})"
            parts.append(f"{title}\n{tabular(head, rows, columns)}")
    return "\n\n".join(parts) + "\n"
