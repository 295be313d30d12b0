"""Several snapshots, of other seeds mostly, as one table: mean and sd over them."""

import re
from pathlib import Path
from typing import Any

import numpy as np

from utils.metrics import METRICS
from utils.runtime import UserError, locked, make_folder, short_path, write_json

from .printed import format_set_table, shown_rows
from .protocol import PROTOCOLS, Protocol
from .report import free_path, settings_of


def mean_and_sd(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row out of a set's rows, a snapshot each: the mean, and the sample sd over snapshots."""
    values = {metric: np.array([row[metric] for row in rows]) for metric in METRICS}
    return {
        **{key: rows[0][key] for key in ("set", "sets", "lacks") if key in rows[0]},
        **{metric: float(v.mean()) for metric, v in values.items()},
        "sd": {metric: float(v.std(ddof=1)) for metric, v in values.items()},
        "flags": sorted({flag for row in rows for flag in row["flags"]}),
    }


def combine(records: list[dict[str, Any]]) -> dict[str, Any]:
    """What result files of several snapshots are together: the snapshots, mean and sd of ID error
    and of every score's rows. UserError unless they are of one protocol, the same images and at
    least two snapshots.
    """
    first = records[0]
    if len(records) < 2:
        raise UserError("--model A,B names one snapshot only; mean and sd need two or more")
    for other in records[1:]:
        if Protocol.of(other["arguments"]) != Protocol.of(first["arguments"]) or any(
            [part["fingerprint"] for part in other[key]]
            != [part["fingerprint"] for part in first[key]]
            for key in ("ood",)
        ):
            raise UserError(
                f"{other['snapshot']['name']} was scored on other images than "
                f"{first['snapshot']['name']}: there is no mean of the two"
            )
    scores = [entry["score"] for entry in first["scores"]]
    found = []
    for label in scores:
        entries = [e for record in records for e in record["scores"] if e["score"] == label]
        if len(entries) == len(records):
            rows = [mean_and_sd(list(same)) for same in zip(*map(shown_rows, entries))]
            found.append({"score": label, "rows": rows})
    errors = [record["id"]["error"] for record in records]
    return {
        "snapshots": [record["snapshot"]["name"] for record in records],
        "sha256": [record["snapshot"]["sha256"] for record in records],
        "protocol": first["protocol"],
        "settings": {
            **settings_of(first),
            "snapshots": [record["snapshot"]["name"] for record in records],
        },
        "id_error": {"mean": float(np.mean(errors)), "sd": float(np.std(errors, ddof=1))},
        "scores": found,
    }


def report(records: list[dict[str, Any]], folder: str, out_as_pos: bool = False) -> Path:
    """Print the table of several snapshots and write it as a .json; returns its path."""
    several = combine(records)
    rules = PROTOCOLS[several["protocol"]]
    print(f"\nmean ± sd over {len(records)} snapshots: {', '.join(several['snapshots'])}")
    error = several["id_error"]
    print(f"ID error {error['mean']:.2f} ± {error['sd']:.2f} %, protocol {several['protocol']}")
    for entry in several["scores"]:
        table = format_set_table(
            entry["score"],
            entry["rows"],
            error["mean"],
            out_as_pos or rules.out_as_pos,
            rules.metrics == "openood",
            "snapshots",
        )
        print("\n" + table)
    stem = "+".join(re.sub(r"\W+", "-", name) for name in several["snapshots"])[:120]
    path = make_folder(folder) / f"mean_of_{len(records)}_{stem}_{several['protocol']}"
    with locked(path.parent):
        path = free_path(path, several["settings"], lambda record: record["settings"])
        path = path.with_name(path.name + ".json")
        write_json(path, several)
    print(f"\nresult: {short_path(path)}")
    return path
