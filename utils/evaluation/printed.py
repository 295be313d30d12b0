"""Results as text: a score's table as the papers print it, and several scores in one."""

from utils.scores import Score

from .case import Case

FLAGS = {
    "constant": "the score is the same for all images",
    "ties": "more than 1 % of the images have exactly the score of another",
    "separated": "every ID image scores below every OOD image",
    "inverted": "every OOD image scores below every ID image",
}


def shown_rows(entry: dict) -> list[dict]:
    """The rows of a score's entry that a table shows: the sets, then the groups or the average."""
    return [*entry["sets"], *(entry.get("groups") or [entry["average"]])]


def format_set_table(
    score: str,
    rows: list[dict],
    id_error: float,
    out_as_pos: bool = False,
    both: bool = False,
    over: str = "draws",
) -> str:
    """The papers' table of one score as text: ID error first, one line a set, then the groups' means
    or the mean. ``both``: AUPR with either class positive; ``over``: what the sd is over.
    """
    fpr, aupr, positive = (
        ("fpr95_out", "aupr_out", "OOD") if out_as_pos else ("fpr95", "aupr_in", "ID")
    )
    columns = {"FPR95": fpr, "AUROC": "auroc", "AUPR": aupr}
    if both:
        columns = {"FPR95": fpr, "AUROC": "auroc", "AUPR-IN": "aupr_in", "AUPR-OUT": "aupr_out"}
    if any("sets" in row for row in rows):
        rows = [row for row in rows if row["set"] != "average"]
    width = max(len(row["set"]) for row in rows) + 2
    lines = [
        (
            f"{score}   (ID error {percent(id_error)}; {positive} positive; "
            f"mean ± sd over {over}, percent)"
        ),
        f"{'':{width}}" + "".join(f"{title:>14}" for title in columns),
    ]
    for row in rows:
        cells = "".join(f"{row[m]:7.2f} ±{row['sd'][m]:5.2f}" for m in columns.values())
        notes = f"{row['drawn']} of {row['n']} images x {row['draws']}" if "n" in row else ""
        if "sets" in row:
            notes = f"mean of {', '.join(row['sets'])}"
            notes += f"; lacks {', '.join(row['lacks'])}" * bool(row["lacks"])
        lines.append(
            f"{row['set']:{width}}{cells}   {notes}"
            + "".join(f"  [{flag}]" for flag in row["flags"])
        )
    flags = {flag for row in rows for flag in row["flags"]}
    return "\n".join(lines + [f"[{flag}]: {FLAGS[flag]}" for flag in FLAGS if flag in flags])


def percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.2f} %"


def format_table(case: Case, score: Score, table: list[dict], id_error: float) -> str:
    """``format_set_table`` as the case's protocol prints it."""
    both = case.protocol.rules.metrics == "openood"
    return format_set_table(score.label, table, id_error, case.out_as_pos, both)


def format_summary(scores: list[dict], metric: str = "fpr95", title: str = "FPR95") -> str:
    """One table of several scores: a line a score, a column a set, then the groups' means or the
    mean.
    """
    names = [row["set"] for row in shown_rows(scores[0])]
    label = max(len(score["score"]) for score in scores) + 2
    widths = [max(len(name), 7) + 2 for name in names]
    lines = [
        f"{title + ', percent':{label}}" + "".join(f"{name:>{w}}" for name, w in zip(names, widths))
    ]
    for score in scores:
        values = [row[metric] for row in shown_rows(score)]
        flagged = ["*" if row.get("flags") else "" for row in shown_rows(score)]
        lines.append(
            f"{score['score']:{label}}"
            + "".join(f"{f'{v:.2f}{f}':>{w}}" for v, f, w in zip(values, flagged, widths))
        )
    if any(row["flags"] for score in scores for row in score["sets"]):
        lines.append(
            "* flagged: the score is constant, has ties, or separates the sets perfectly one way "
            "or the other (see its own table)"
        )
    return "\n".join(lines)


def format_summaries(measured: list[dict], out_as_pos: bool = False) -> str:
    """FPR95 and AUROC of several scores, a line a score; nothing for one alone."""
    if len(measured) < 2:
        return ""
    return "".join(
        f"\n{format_summary(measured, metric, title)}\n"
        for metric, title in (("fpr95_out" if out_as_pos else "fpr95", "FPR95"), ("auroc", "AUROC"))
    )
