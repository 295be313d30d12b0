"""What a result file of test.py holds: types and ranges, looked at once when one is read.

test.py, reproduce.py and the pages may rely on it. Keys that are not named here are let through.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from utils.metrics import METRICS
from utils.runtime import UserError
from utils.snapshots.schema import (
    IMAGES,
    check,
    check_made,
    flag,
    names,
    number,
    one_of,
    record,
    text,
    whole,
)

from .protocol import PROTOCOLS

PERCENT = number(-1e-6, 100 + 1e-6)
COUNT = whole(0, 2**40)
RESULT = {
    "arguments": record,
    "protocol": one_of(*PROTOCOLS),
    "seed": whole(0, 2**63),
    "num_to_avg": whole(1, 10**9),
    "precision": text,
    "compiled": flag,
    "snapshot": record,
    "id": record,
    "train": record,
    "tuned": record,
    "missing": names,
    "machine": record,
    "seconds": number(0, 1e12),
}
SNAPSHOT = {"name": text, "sha256": text, "arch": text}
MEASURED = IMAGES | {"error": PERCENT, "accuracy": PERCENT, "mean_l1": number(0, 1e30)}
METRIC = dict.fromkeys(METRICS, PERCENT)
ROW = {"set": text, "n": COUNT, "drawn": COUNT, "draws": whole(1, 10**9)}
ROW |= dict.fromkeys(("flags", "sets", "lacks"), names) | METRIC
PAPERS = ("fpr95", "auroc", "aupr_in")  # that every row has
ENTRY = {"score": text, "hyper": record}
ADVICE = "Move it away, or make it anew"


def check_result(content: dict, where: str | Path) -> dict:
    """The record of a result, as read from its .json; UserError where it is none."""
    check_part(content, RESULT, where, ("snapshot",))
    check_part(content["snapshot"], SNAPSHOT, where, ("sha256",))
    check_made(content["snapshot"], where, ADVICE)
    check_part(content.get("id") or {}, MEASURED, where)
    for part in records(content, "ood", where):
        check_part(part, MEASURED, where, ("name", "images"))
    both = PROTOCOLS[content.get("protocol") or "paper"].metrics == "openood"
    metrics = METRICS if both else PAPERS
    for entry in records(content, "scores", where, 1):
        check_part(entry, ENTRY, where, ("score",))
        rows = records(entry, "sets", where, 1)
        for row in rows:
            check_row(row, where, metrics)
        for row in records(entry, "groups", where):
            check_row(row, where, (*metrics, "sets", "lacks"))
        check_row(entry.get("average"), where, metrics)
    return content


def check_part(content: Any, schema: dict, where: str | Path, needed: Iterable[str] = ()) -> None:
    """``check`` of what has to be a record, with these keys."""
    if not record(content):
        raise UserError(f"{where}: a part of it is no record. {ADVICE}")
    if missing := [key for key in needed if content.get(key) is None]:
        raise UserError(f"{where}: '{missing[0]}' is missing. {ADVICE}")
    check(content, schema, where, ADVICE)


def records(content: dict, key: str, where: str | Path, least: int = 0) -> list[dict]:
    """The list of records under a key, [] without one; UserError of fewer than ``least``."""
    found = content.get(key) or []
    if not (isinstance(found, list) and len(found) >= least and all(map(record, found))):
        raise UserError(f"{where}: '{key}' is no list of records. {ADVICE}")
    return found


def check_row(row: Any, where: str | Path, needed: Iterable[str]) -> None:
    """UserError unless it holds what it has to, and of each metric its sd and that over the whole
    set, if any.
    """
    check_part(row, ROW, where, ("set", *needed))
    there = [metric for metric in METRICS if row.get(metric) is not None]
    for part in ("sd", "whole"):
        check_part(row.get(part, {}), METRIC, where, there if part in row else ())
    for key in ("flags", "draws"):
        if row.get(key, "") is None:
            raise UserError(f"{where}: a row has no '{key}'. {ADVICE}")
