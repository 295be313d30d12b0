"""How pages write tables and the numbers in them."""

import statistics

NOTHING = "Not measured yet."


def table(header: list[str] | str, rows: list[list], note: str = "") -> str:
    """A Markdown table, and a note below it; NOTHING where there are no rows. A header of fixed
    words is one string, its cells parted by " | ".
    """
    if not rows:
        return NOTHING
    header = header.split(" | ") if isinstance(header, str) else header
    lines = [header, ["---"] * len(header), *rows]
    text = "\n".join("| " + " | ".join(map(cell, line)) + " |" for line in lines)
    return f"{text}\n\n{note}" if note else text


def cell(value: object) -> str:
    """A table's cell: a number that is not whole has two digits after the point, None is a dash,
    pipes are escaped.
    """
    if isinstance(value, float):
        return f"{value:.2f}"
    return "-" if value is None else str(value).replace("|", "\\|")


def both(row: dict) -> str:
    """FPR95 / AUROC of a row."""
    return f"{row['fpr95']:.2f} / {row['auroc']:.2f}"


def mean_and_sd(values: list[float]) -> tuple[float | None, float | None]:
    """(mean, sample sd), None for what there is not: the sd of one value."""
    if not values:
        return None, None
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def plus_minus(mean: float | None, sd: float | None) -> str:
    """``12.34 ± 0.56``, without what there is not; a dash for no mean."""
    return "-" if mean is None else f"{mean:.2f}" + (f" ± {sd:.2f}" if sd is not None else "")


def sd_of(row: dict, metric: str) -> float | None:
    """The standard deviation of a row's metric over its draws; None where there is one draw."""
    return row["sd"][metric] if row.get("draws", 1) > 1 else None


def with_sd(row: dict, metric: str) -> str:
    """A metric of a row, with its standard deviation over the draws where there are several."""
    return plus_minus(row[metric], sd_of(row, metric))


def fpr_cells(entry: dict) -> list[str]:
    """FPR95 of an entry on each set, then FPR95 / AUROC of their mean."""
    return [*(with_sd(row, "fpr95") for row in entry["sets"]), both(entry["average"])]


def network_of(entry: dict) -> str:
    """The network's name, a WRN's with depth and width."""
    shape = f"-{entry['layers']}-{entry['widen_factor']}" if entry["arch"] == "wrn" else ""
    return entry["arch"] + shape


def machine_of(record: dict) -> str:
    """What a recorded benchmark was measured on."""
    machine = record["machine"]
    threads = f"{machine['threads']} thread" + "s" * (machine["threads"] > 1)
    return (
        f"{machine['device_name']}, {threads}, torch {machine['torch']}, "
        f"commit {str(machine['commit'])[:7]}{', with changes' * machine['modified']}"
    )
