"""The pages' tables of what utils/benchmark has measured."""

from collections.abc import Iterator

import numpy as np

from . import results
from .markdown import NOTHING, machine_of, network_of, table
from .usual import USUAL

OURS = "this project"
SLOWER = 0.9  # a ratio below it is bold
APART = ("step", "memory, ", "peers, ", "torchrun")  # parts with tables of their own


def render_memory() -> str:
    """Seconds and peak memory of the scores that keep or pass over all training features."""
    rows, recorded = [], results.recorded_files("benchmark_scores*")
    for record in (one for made in recorded for one in made["records"]):
        size = f"{record['images']:,} x {record['width']:,}"
        names = [f"`{record['score']}`", size, record["features_dtype"], f"{record['queries']:,}"]
        numbers = (record["fit_s"], record["score_s"], record["peak_mib"] / 1024)
        rows.append([*names, *(f"{number:.1f}" for number in numbers)])
    head = "score | training images x width | features in | queries | fit, s | score, s"
    return table(f"{head} | peak memory of the process, GiB", rows, machines_of(recorded))


def render_performance() -> str:
    """``benchmark.json`` row by row; what was recorded on other machines has a line each."""
    found = [
        (record, rows)
        for record, rows in recorded_parts(*APART, others=True)
        if "rows" in record and (rows or record["accuracy"])
    ]
    parts = [performance_of(*one) for one in found if one[0].path.stem == "benchmark"]
    rest = [one for one in found if one[0].path.stem != "benchmark"]
    return "\n\n".join(parts + [other_machines(rest)] * bool(rest)) or NOTHING


def render_losses() -> str:
    """The steps of losses of the recorded machines that have timed them (--parts losses views)."""
    return rows_of("step", "ID images a second")


def render_kept() -> str:
    """Each network with malloc as it comes and with freed memory kept (--parts memory)."""
    return rows_of("memory, ", "images a second")


def render_processes() -> str:
    """Training by as many processes as cores against as many threads (--parts processes)."""
    return rows_of("torchrun", "images a second")


def rows_of(begin: str, unit: str) -> str:
    """The rows of every recorded machine whose part begins so."""
    rows, machines = [], []
    for record, timed in recorded_parts(begin):
        for row in timed:
            part, rate = row["part"].removeprefix("memory, "), f"{row['rate']:,.0f}"
            if record["arguments"]["arch"] != USUAL["arch"]:
                part += f", {network_of(record['arguments'])}"
            cells = [f"`{record.path.name}`", part, row["what"], rate, row["ratio"], peak_of(row)]
            rows.append(cells)
        machines += [record] * bool(timed)
    head = f"measured in | part | what | {unit} | ratio | peak, MiB"
    return table(head, rows, machines_of(machines))


def machines_of(records: list[results.Result]) -> str:
    """What each of the recorded benchmarks was measured on."""
    return "; ".join(f"`{one.path.name}`: {machine_of(one)}" for one in records) + "."


def render_streaming() -> str:
    """Small files read from disk (utils/benchmark/streaming.py), a line a reader; above 1 is better
    than the first line.
    """
    rows, recorded = [], results.recorded_files("streaming")
    for record in recorded:
        plain = record["rows"][0]["peak_mib"]
        for row in record["rows"]:
            peak = row["peak_mib"]
            cells = [row["what"], row["first_s"], row["first_ratio"], f"{row['rate']:,.0f}"]
            cells += [row["ratio"], f"{row['spread']:.0%}", peak_of(row)]
            rows.append([*cells, plain / peak if plain and peak else None])
    told = [
        f"{one['rows'][0]['part']}, {one['rounds']} rounds; {machine_of(one)}." for one in recorded
    ]
    head = "read by | first batch, s | ratio | images a second | ratio | spread | peak MiB | ratio"
    return table(head, rows, " ".join(told))


def recorded_parts(
    *begins: str, others: bool = False
) -> Iterator[tuple[results.Result, list[dict]]]:
    """(record, rows) of every recorded benchmark: the rows of parts that begin so, or of the
    others.
    """
    for record in results.recorded_files("benchmark*"):
        rows = record.get("rows", ())
        yield record, [row for row in rows if row["part"].startswith(begins) != others]


def peak_of(row: dict) -> str | None:
    """The peak memory of a benchmark's row in MiB; None where it was not measured."""
    return None if row["peak_mib"] is None else f"{row['peak_mib']:,.0f}"


def render_peers() -> str:
    """Ratios of every score to its peers' (--parts peers), a line a score and library; what is
    below 0.9 is bold.
    """
    cells, machines = {}, []
    for record, timed in recorded_parts("peers, "):
        seconds = {(row["part"], row["what"]): float(np.median(row["seconds"])) for row in timed}
        for part, what in seconds:
            if what != OURS:
                ratio = seconds[part, what] / seconds[part, OURS]
                _, column, score = part.split(", ", 2)
                shown = f"{ratio:.2f}" if ratio >= SLOWER else f"**{ratio:.2f}**"
                cells.setdefault((f"`{score}`", what), {})[column] = shown
        machines += [record] * bool(timed)
    columns = list(dict.fromkeys(column for found in cells.values() for column in found))
    rows = [[*names, *(found.get(c, "") for c in columns)] for names, found in cells.items()]
    head = ["score", "held against", *columns]
    return table(head, rows, machines_of(machines))


def other_machines(found: list[tuple[results.Result, list[dict]]]) -> str:
    """A line a machine: this project's and OpenVINO's ratios to the first row of each part."""
    lines = []
    for record, rows in found:
        machine, accuracy = record["machine"], record["accuracy"]
        what = f"{machine['device_name']}, {record['precision']}"
        cells = {"machine": f"`{record.path.name}`: {what}, commit {str(machine['commit'])[:7]}"}
        for row in rows:
            what, part = row["what"].strip(), row["part"]
            if what.startswith((OURS, "OpenVINO")) and not what.endswith("eager"):
                part = part if part.startswith("inference") else part.split(",")[0]
                cells[part if "project" in what else f"{part}, OpenVINO"] = row["ratio"]
        if accuracy:
            cells["bf16 moves FPR95 by"] = accuracy["largest"]["fpr95"]
        lines.append(cells)
    columns = list(dict.fromkeys(column for cells in lines for column in cells))
    return table(columns, [[cells.get(column, "") for column in columns] for cells in lines])


def performance_of(record: results.Result, timed: list[dict]) -> str:
    """The table of one run of ``utils.benchmark`` and what it was measured on."""
    rows = []
    for row in timed:
        spread = None if row["spread"] is None else f"{row['spread']:.0%}"
        what = [row["part"], row["what"].strip()]
        rows.append([*what, f"{row['rate']:,.0f}", row["ratio"], spread, peak_of(row)])
    given, accuracy = record["arguments"], record["accuracy"]
    note = f"{machine_of(record)}; {network_of(given).upper()}, {given['rounds']} rounds."
    if accuracy:
        names = ", ".join(dict.fromkeys(row["score"] for row in accuracy["rows"]))
        sets = len({row["set"] for row in accuracy["rows"]})
        note += (
            f" From fp32 to bf16 `{accuracy['snapshot']}` ({names}; {accuracy['id_images']:,} ID test "
            f"images, {sets} OOD sets) moves by at most {accuracy['largest']['fpr95']:.2f} points of "
            f"FPR95 and {accuracy['largest']['auroc']:.2f} of AUROC."
        )
    return table("part | what | per second | ratio | spread | peak MiB", rows, note)
