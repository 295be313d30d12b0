"""The papers' numbers, CIFAR/published.json, and which of their tables are shown."""

import json
from collections.abc import Container
from typing import NamedTuple

from utils.loaders import SIX_SETS, SOURCES, STAND_INS
from utils.runtime import CIFAR

PUBLISHED = json.loads((CIFAR / "published.json").read_text(encoding="utf-8"))
# Data sets of which a paper has a six-set table, the one shown first;
# the six sets and their numbers of images.
ID_SETS = list(dict.fromkeys(r["id_set"] for r in PUBLISHED["records"] if r["protocol"] == "paper"))
OFFICIAL = {name: SOURCES["sets"][name]["images"] for name in SOURCES["groups"]["ood"]}
# a measured set -> the paper's set whose place it takes
PLACES = {name: line[0] for line in SIX_SETS for name in line}
# (title, loss or None, score) of the rows of a data set's own table, and of those that the chain makes
TABLE_METHODS = tuple((m["title"], m["loss"], m["score"]) for m in PUBLISHED["methods"])
METHODS = tuple(m for m, entry in zip(TABLE_METHODS, PUBLISHED["methods"]) if entry["chain"])


class Table(NamedTuple):
    """A published table: its title, its source in published.json, its metrics, and the values that
    the fields of the records that are its rows have.
    """

    title: str
    source: str
    metrics: list
    rows: dict = {}

    def has(self, record: dict) -> bool:
        return all(record[field] in values for field, values in self.rows.items())


TABLES = {name: Table(**entry) for name, entry in PUBLISHED["tables"].items()}


def published_rows(table: Table, id_set: str) -> dict:
    """{(method, network, score, stage): {ood set, or None for the ID error: {metric: record}}} in
    the order of published.json.
    """
    rows = {}
    for record in PUBLISHED["records"]:
        of = (record["source"], record["id_set"], record["protocol"])
        if of == (table.source, id_set, "paper") and table.has(record):
            key = tuple(record[field] for field in ("method", "network", "score", "stage"))
            rows.setdefault(key, {}).setdefault(record["ood_set"], {})[record["metric"]] = record
    return rows


def display(name: str) -> str:
    """How tables and figures write a data set, ``lsun_c`` as LSUN-C;
    a name that says no other stays as it is.
    """
    return SOURCES["sets"].get(name, {}).get("display", "Average" if name == "average" else name)


def is_official(row: dict) -> bool:
    """Whether a measured set is the paper's and whole, by its name and its number of images."""
    return OFFICIAL.get(row["set"]) == row["n"]


def own_name(row: dict) -> str:
    """A measured set's name; one that has a paper's set's name but not its
    number of images is marked.
    """
    other = row["set"] in OFFICIAL and not is_official(row)
    return row["set"] + " (not the paper's)" * other


def own_split(images: dict) -> str:
    """What the ID test images of a result are where they are not the paper's; else ""."""
    note = STAND_INS["id_notes"].get(images.get("fingerprint"), {"stands": True})
    return "" if note["stands"] else f"ID test images: {note['note']}."


def set_names(entry: dict) -> list[str]:
    """The columns of a result's entry: its sets, then their mean."""
    return [*map(own_name, entry["sets"]), "average"]


def number(value: float | None, sign: bool = False) -> str:
    """A number with two digits after the point, with its sign if asked for; nothing for None."""
    return "" if value is None else f"{value:+.2f}" if sign else f"{value:.2f}"


def flag_of(record: dict | None) -> str:
    """What is said of a published number, such as that it is a misprint; "" where nothing is."""
    return (record or {}).get("flag", {}).get("kind", "")


def printed_number(record: dict | None, flags: Container[str] = PUBLISHED["flags"]) -> str:
    """A published number with its flag, if that is one of ``flags``; nothing for None."""
    flag = flag_of(record)
    return number(record and record["value"]) + f" [{flag}]" * (flag in flags)
