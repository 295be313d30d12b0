"""How far FPR95 lies apart in two entries of results, and the standard errors of that.

An error is binomial in the number of OOD images of a set, at the threshold of these ID images; that
of a difference is of two independent sets of images, which overstates it.
"""

SURE = 2  # standard errors


def error_of(*rows: dict) -> float:
    """Standard error in percent of the FPR95 of a set, or of the difference of two on one set."""
    return sum(row["fpr95"] * (100 - row["fpr95"]) / row["n"] for row in rows) ** 0.5


def mean_error(*entries: dict) -> float:
    """That of the mean over an entry's sets, or of the difference of two."""
    variances = sum(error_of(row) ** 2 for entry in entries for row in entry["sets"])
    return variances**0.5 / len(entries[0]["sets"])


def mean(entry: dict) -> str:
    """Mean FPR95 over the sets, with its standard error."""
    return f"{entry['average']['fpr95']:.2f} ± {mean_error(entry):.2f}"


def gain(before: dict, after: dict) -> tuple[float, float]:
    """(points by which the mean FPR95 is lower after, their standard error)."""
    points = before["average"]["fpr95"] - after["average"]["fpr95"]
    return points, mean_error(before, after)


def lower(before: dict, after: dict) -> str:
    """On how many sets FPR95 is lower after, and on how many surely so."""
    pairs = list(zip(before["sets"], after["sets"]))
    gains = [(old["fpr95"] - new["fpr95"], error_of(old, new)) for old, new in pairs]
    surely = sum(points > SURE * error for points, error in gains)
    count = sum(points > 0 for points, _ in gains)
    return f"lower on {count} of {len(pairs)} sets, on {surely} by more than {SURE} standard errors"
