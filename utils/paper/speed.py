"""The pages' tables of what utils/benchmark has measured."""

from collections.abc import Iterator

import numpy as np

from . import results
from .markdown import NOTHING, machine_of, network_of, table

SLOWER = 0.9  # a ratio below it is bold
APART = ("step", "memory, ", "peers, ")  # parts with tables of their own


def render_memory() -> str:
    """Seconds and peak memory of the scores that keep or pass over all training features."""
    rows, machines = [], []
    for name, recorded in results.recorded_files("benchmark_scores*").items():
        machines.append(f"`{name}.json`: {machine_of(recorded)}")
        for record in recorded["records"]:
            size = f"{record['images']:,} x {record['width']:,}"
            names = [f"`{record['score']}`", size, record["features_dtype"]]
            numbers = (record["fit_s"], record["score_s"], record["peak_mib"] / 1024)
            rows.append([*names, f"{record['queries']:,}", *(f"{n:.1f}" for n in numbers)])
    return table(
        (
            "score | training images x width | features in | queries | fit, s | score, s | "
            "peak memory of the process, GiB"
        ),
        rows,
        f"{'; '.join(machines)}.",
    )


def render_performance() -> str:
    """``benchmark.json`` row by row; what was recorded on other machines has a line each."""
    records = {
        name: {**record, "rows": rows}
        for name, record, rows in recorded_parts()
        if "rows" in record and (rows or record["accuracy"])
    }
    first = records.pop("benchmark", None)
    parts = [performance_of(first)] if first else []
    parts += [other_machines(records)] if records else []
    return "\n\n".join(parts) or NOTHING


def render_losses() -> str:
    """The steps of losses of the recorded machines that have timed them (--parts losses views)."""
    return rows_beginning("step", "ID images a second")


def render_kept() -> str:
    """Each network with malloc as it comes and with freed memory kept (--parts memory)."""
    return rows_beginning("memory, ", "images a second")


def rows_beginning(prefix: str, unit: str) -> str:
    """The rows of every recorded machine whose part begins so."""
    rows, machines = [], []
    for name, record, timed in recorded_parts(prefix):
        for row in timed:
            part = row["part"].removeprefix("memory, ")
            cells = [part, row["what"], f"{row['rate']:,.0f}", row["ratio"], peak_of(row)]
            rows.append([f"`{name}.json`", *cells])
        machines += [f"`{name}.json`: {machine_of(record)}"] * bool(timed)
    columns = f"measured in | part | what | {unit} | ratio | peak, MiB"
    return f"{table(columns, rows)}\n\n{'; '.join(machines)}." if rows else NOTHING


def recorded_parts(*prefixes: str) -> Iterator[tuple[str, dict, list[dict]]]:
    """(name, record, rows) of every recorded benchmark: the rows of parts that begin so, or those
    of no table of their own.
    """
    begins, wanted = prefixes or APART, bool(prefixes)
    for name, record in results.recorded_files("benchmark*").items():
        rows = record.get("rows", ())
        yield name, record, [row for row in rows if row["part"].startswith(begins) == wanted]


def peak_of(row: dict) -> str | None:
    """The peak memory of a benchmark's row in MiB; None where it was not measured."""
    return None if row["peak_mib"] is None else f"{row['peak_mib']:,.0f}"


def render_peers() -> str:
    """Ratios of every score to its peers' (--parts peers), a line a score and library; what is
    below 0.9 is bold.
    """
    cells, machines = {}, []
    for name, record, timed in recorded_parts("peers, "):
        for row in timed:
            if row["what"] == "this project":
                ours = float(np.median(row["seconds"]))
                for other in (o for o in timed if o["part"] == row["part"] and o is not row):
                    ratio = float(np.median(other["seconds"])) / ours
                    shown = f"{ratio:.2f}" if ratio >= SLOWER else f"**{ratio:.2f}**"
                    _, column, score = row["part"].split(", ", 2)
                    cells.setdefault((f"`{score}`", other["what"]), {})[column] = shown
        machines += [f"`{name}.json`: {machine_of(record)}"] * bool(timed)
    columns = list(dict.fromkeys(column for found in cells.values() for column in found))
    rows = [[*names, *(found.get(c, "") for c in columns)] for names, found in cells.items()]
    head = ["score", "held against", *columns]
    return table(head, rows, f"{'; '.join(machines)}.") if rows else NOTHING


def other_machines(records: dict[str, dict]) -> str:
    """A line a machine: this project's and OpenVINO's ratios to the first row of each part."""
    lines = []
    for name, record in records.items():
        machine, accuracy = record["machine"], record["accuracy"]
        what = f"{machine['device_name']}, {record['precision']}"
        cells = {"machine": f"`{name}.json`: {what}, commit {str(machine['commit'])[:7]}"}
        for row in record["rows"]:
            what, part = row["what"].strip(), row["part"]
            if what.startswith(("this project", "OpenVINO")) and not what.endswith("eager"):
                part = part if part.startswith("inference") else part.split(",")[0]
                cells[part if "project" in what else f"{part}, OpenVINO"] = row["ratio"]
        if accuracy:
            cells["bf16 moves FPR95 by"] = accuracy["largest"]["fpr95"]
        lines.append(cells)
    columns = list(dict.fromkeys(column for cells in lines for column in cells))
    return table(columns, [[cells.get(column, "") for column in columns] for cells in lines])


def performance_of(record: dict) -> str:
    """The table of one run of ``utils.benchmark`` and what it was measured on."""
    rows = []
    for row in record["rows"]:
        spread = None if row["spread"] is None else f"{row['spread']:.0%}"
        what = [row["part"], row["what"].strip()]
        rows.append([*what, f"{row['rate']:,.0f}", row["ratio"], spread, peak_of(row)])
    given, accuracy = record["arguments"], record["accuracy"]
    note = (
        f"{machine_of(record)}; {network_of(given).upper()}, medians of {given['rounds']} "
        "interleaved rounds (evaluation: one). Per second: images, of the metrics scores. Ratio: "
        "to the first row of the part. Spread: interquartile range over median. Peak: "
        "what the first call adds; of evaluation the largest process."
    )
    for row in record["rows"]:
        if "start_s" in row:
            note += (
                f" Starting a process takes {row['start_s']:.1f} s of the evaluation's; "
                f"without these starts its ratio is {row['ratio_after_start']:.2f}."
            )
    if accuracy:
        names = ", ".join(dict.fromkeys(row["score"] for row in accuracy["rows"]))
        note += (
            f"\n\nFrom fp32 to bf16 `{accuracy['snapshot']}` ({names}; {accuracy['id_images']:,} "
            f"ID test images, {len({row['set'] for row in accuracy['rows']})} "
            f"OOD sets) moves by at most {accuracy['largest']['fpr95']:.2f} points of FPR95 and "
            f"{accuracy['largest']['auroc']:.2f} of AUROC."
        )
    return table("part | what | per second | ratio | spread | peak MiB", rows, note)
