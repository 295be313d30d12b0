"""What a result file of test.py holds: types and ranges, looked at once when one is read.

test.py, reproduce.py and the pages may rely on it. Keys that are not named here are let through.
"""

from pathlib import Path
from typing import Any

from utils.metrics import METRICS
from utils.runtime import UserError
from utils.snapshots.schema import DESCRIPTION, check, flag, names, number, record, text, whole

PERCENT = number(-1e-6, 100 + 1e-6)
RESULT = {
    "arguments": record,
    "protocol": text,
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
IMAGES = {"error": PERCENT, "accuracy": PERCENT, "fingerprint": text, "name": text}
ROW = {
    "set": text,
    "n": whole(0, 2**40),
    "drawn": whole(0, 2**40),
    "draws": whole(1, 10**9),
    "flags": names,
    "sets": names,
    "lacks": names,
} | dict.fromkeys(METRICS, PERCENT)
NEEDED = ("set", "flags", "sets", "lacks")
ADVICE = "Move it away, or make it anew"


def check_result(content: dict, where: str | Path) -> dict:
    """The record of a result, as read from its .json; UserError where it is none."""
    check(content, RESULT, where, ADVICE)
    snapshot, scores = content.get("snapshot") or {}, content.get("scores")
    if not text(snapshot.get("sha256")) or not text(snapshot.get("name", "")):
        raise UserError(f"{where}: it does not say of which snapshot it is. {ADVICE}")
    check(snapshot, DESCRIPTION, where, ADVICE)
    for part in (content.get("id") or {}, *records(content, "ood", where)):
        check(part, IMAGES, where, ADVICE)
    if not scores:
        raise UserError(f"{where}: it holds no score. {ADVICE}")
    for entry in records(content, "scores", where):
        if not (text(entry.get("score")) and record(entry.get("hyper", {})) and entry.get("sets")):
            raise UserError(f"{where}: a score has no name, settings or sets. {ADVICE}")
        rows = [*records(entry, "sets", where), *records(entry, "groups", where)]
        for row in (*rows, entry.get("average")):
            check_row(row, where)
    return content


def records(content: dict, key: str, where: str | Path) -> list[dict]:
    """The list of records under a key, [] without one."""
    found = content.get(key) or []
    if not isinstance(found, list) or not all(map(record, found)):
        raise UserError(f"{where}: '{key}' is no list of records. {ADVICE}")
    return found


def check_row(row: Any, where: str | Path) -> None:
    """UserError unless it holds metrics, and of each its sd and that over the whole set, if any."""
    if not record(row):
        raise UserError(f"{where}: a row of metrics is none. {ADVICE}")
    there = [metric for metric in METRICS if metric in row]
    for key in there + [key for key in NEEDED if key in row]:
        if row[key] is None:
            raise UserError(f"{where}: a row has no '{key}'. {ADVICE}")
    check(row, ROW, where, ADVICE)
    if not there or ("sets" in row) != ("lacks" in row):
        raise UserError(f"{where}: a row lacks its metrics or its sets. {ADVICE}")
    for part in ("sd", "whole"):
        values = row.get(part, dict.fromkeys(there, 0))
        if not (isinstance(values, dict) and all(PERCENT(values.get(m)) for m in there)):
            raise UserError(f"{where}: '{part}' of a row is not of its metrics. {ADVICE}")
