"""The papers' tables, published beside measured: ``python reproduce.py DATASET --table NAME``
writes them.

A published number is compared with a measured one only on the very images of the paper. A set of
the same kind stands in the same column, marked †, and so does a mean over such sets.
CIFAR/README.md shows the tables, RESULTS.tex has them for LaTeX, and RESULTS.csv has a line for
each number, with what it was made of.
"""

from typing import NamedTuple

from utils.evaluation import report
from utils.loaders import SOURCES, STAND_INS
from utils.losses import LOSSES
from utils.runtime import CIFAR
from utils.scores import SCORES

from . import markdown
from .published import (
    ID_SETS,
    OFFICIAL,
    PLACES,
    TABLES,
    display,
    flag_of,
    is_official,
    number,
    own_name,
    own_split,
    printed_number,
    published_rows,
)

OUTPUT = CIFAR / "RESULTS"
# what published.json calls a metric, and what results do
KEYS = {"fpr95": "fpr95", "auroc": "auroc", "aupr": "aupr_in"}
TITLES = {"fpr95": "FPR95", "auroc": "AUROC", "aupr": "AUPR"}
OTHER = "†"  # beside a number that is not of the paper's images
MEAN = "mean of the sets here"  # of such a row in RESULTS.csv


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


def why_not(score: str, stage: str) -> str:
    """What stands in a row without a measurement."""
    there = stage in ("pretrained", *LOSSES) and score in SCORES
    return "not measured" if there else "method not in this project"


def build(name: str, id_set: str, measured: dict) -> list[Row]:
    """The rows of a table, in the order of published.json."""
    rows = []
    for key, printed in published_rows(TABLES[name], id_set).items():
        _, network, score, stage = key
        entry, result = measured.get((id_set, network, stage, score), (None, None))
        here, official = {}, set()
        if entry:
            here = {PLACES[row["set"]]: row for row in entry["sets"] if row["set"] in PLACES}
            if has_official_id(result["id"], id_set):
                official = {place for place, row in here.items() if is_official(row)}
            official |= {"average"} if official == set(OFFICIAL) else set()
            here["average"] = entry["average"]
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
    return images["images"] == SOURCES["sets"][id_set]["test_images"] and not own_split(images)


def note_numbers(measured: dict) -> dict:
    """{(id set, network, stage): the number of the note that says what
    its numbers were made of} of those in the rows of a table.
    """
    rows = {
        (id_set, network, stage, score)
        for id_set in ID_SETS
        for one in TABLES.values()
        for _, network, score, stage in published_rows(one, id_set)
    }
    stages = dict.fromkeys(key[:3] for key in measured if key in rows)
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
    results = {key[:3]: result for key, (_, result) in measured.items()}
    for key, place in note_numbers(measured).items():
        result, one = results[key], results[key]["snapshot"]
        parent, outliers = one.get("parent", "").removesuffix(".pt"), one.get("outliers")
        told = [
            display(key[0]),
            f"seed {one['seed']}",
            f"{one['recipe']['epochs']} epochs",
            f"{one['train_images']:,} training images",
            outliers and f"{outliers['images']:,} outliers of {outliers['name']}",
            f"ID accuracy {result['id']['accuracy']:.2f} % of {result['id']['images']:,}",
            f"scored in {result['precision']}",
            f"sha256 {one['sha256'][:12]}",
        ]
        name = f"`{one['name']}`" + f", from `{parent}`" * bool(parent)
        lines.append(f"[{place}] {name}: {', '.join(filter(None, told))}.")
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
    first, *others = ID_SETS
    return [first, *(name for name in others if any(key[0] == name for key in measured))]


def render_markdown(measured: dict) -> str:
    """The papers' tables, published beside measured, each under its title, then what their numbers
    were made of.
    """
    parts = []
    for id_set in shown_sets(measured):
        for name, one in TABLES.items():
            title = f"### {one.title} ({display(id_set)}, `--table {name}`)"
            head, *rows = grid(name, id_set, measured)
            parts.append(f"{title}\n\n{markdown.table(head, rows)}")
    notes = "\n".join(f"- {line}" for line in describe_notes(measured))
    return "\n\n".join([*parts, f"### Notes\n\n{notes}"])


def render_csv(measured: dict) -> str:
    """RESULTS.csv: a line for each row, OOD set and metric of every table."""
    lines = [
        {"table": name, "id_set": id_set, **line_of(row, metric, *place)}
        for id_set in shown_sets(measured)
        for name, table in TABLES.items()
        for row in build(name, id_set, measured)
        for place in places_of(row)
        for metric in table.metrics
    ]
    return report.csv_text(lines, "\n")


def places_of(row: Row) -> list[tuple[str, dict, dict, str]]:
    """(OOD set, published records, measured row or {}, note) of the lines of a row: the paper's
    sets, then the other images.
    """
    papers, others = [], []
    for place, cell in row.cells.items():
        note = row.note or "paper's images not at hand" * (not cell.official)
        papers.append((place, cell.printed, cell.row if cell.official else {}, note))
        if cell.row and not cell.official:
            name = MEAN if place == "average" else own_name(cell.row)
            others.append((name, {}, cell.row, "not the paper's images"))
    return papers + others


def line_of(row: Row, metric: str, ood_set: str, printed: dict, here: dict, note: str) -> dict:
    """A line of RESULTS.csv, without its first columns."""
    record, value, key = printed.get(metric), here.get(KEYS[metric]), KEYS[metric]
    compared = record and value is not None and flag_of(record) != "misprint"
    first = row.error if ood_set == next(iter(row.cells)) else None  # once a row
    own = row.result if row.result and (first or ood_set == MEAN) else None
    result = row.result if here else {}
    snapshot = result.get("snapshot", {})
    return {
        **{field: getattr(row, field) for field in ("method", "network", "score", "stage")},
        "ood_set": ood_set,
        "metric": metric,
        "published": number(record and record["value"]),
        "flag": flag_of(record),
        "measured": number(value),
        "sd": number(markdown.sd_of(here, key)),
        "difference": number(value - record["value"], sign=True) if compared else "",
        **{field: here.get(field, "") if "n" in here else "" for field in ("n", "drawn", "draws")},
        "id_error_published": number(first and first["value"]),
        "id_error": number(own and own["id"]["error"]),
        "epochs": snapshot.get("recipe", {}).get("epochs", ""),
        "seed": snapshot.get("seed", ""),
        "precision": result.get("precision", ""),
        "snapshot_sha256": snapshot.get("sha256", ""),
        "note": note,
    }


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
