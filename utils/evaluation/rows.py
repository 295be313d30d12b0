"""The rows of a table, out of the scores of ID and OOD images: draws, metrics, means."""

import zlib
from typing import Any

import numpy as np

from utils.metrics import METRICS, detection_metrics, openood_metrics, quirks

from .protocol import USUAL, Protocol


def crc32_of(name: str) -> int:
    """A number of a set's name, which may hold bytes that are no UTF-8."""
    return zlib.crc32(name.encode(errors="surrogateescape"))


def draw_indices(count: int, size: int, draws: int, seed: int, name: str) -> list[np.ndarray]:
    """Index arrays of ``draws`` random draws of ``size`` out of ``count``
    images without replacement.

    A set of at most ``size`` images is used whole, once.
    The draws depend on the seed and the set's name alone.
    """
    if count <= size:
        return [np.arange(count)]
    rng = np.random.default_rng([seed, crc32_of(name)])
    return [rng.choice(count, size, replace=False) for _ in range(draws)]


def measure_set(
    id_scores: np.ndarray, ood_scores: np.ndarray, name: str, protocol: Protocol = USUAL
) -> dict[str, Any]:
    """Metrics in percent of one OOD set: mean and sd over the draws, and over the whole set.

    Scores (N,) and (M,), larger = more OOD. The sd is the sample standard deviation over the draws,
    0 where there is only one.
    """
    measured = openood_metrics if protocol.rules.metrics == "openood" else detection_metrics
    whole = measured(id_scores, ood_scores)
    size = max(len(id_scores) // protocol.share, 1) if protocol.rules.draws else len(ood_scores)
    parts = draw_indices(len(ood_scores), size, protocol.num_to_avg, protocol.seed, name)
    rows = [whole] if len(parts) == 1 else [measured(id_scores, ood_scores[part]) for part in parts]
    values = {metric: 100 * np.array([row[metric] for row in rows]) for metric in METRICS}
    return {
        "set": name,
        "n": len(ood_scores),
        "drawn": len(parts[0]),
        "draws": len(parts),
        **{metric: float(v.mean()) for metric, v in values.items()},
        "sd": {metric: float(v.std(ddof=1)) if len(v) > 1 else 0.0 for metric, v in values.items()},
        "whole": {metric: 100 * whole[metric] for metric in METRICS},
        "flags": quirks(id_scores, ood_scores),
    }


def mean_row(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The plain mean over the sets, as the papers print it;
    its sd is that of the mean of independent draws.

    ``draws`` are those of the set with the fewest: where that is one draw of all its images, the sd
    leaves that set's part out.
    """
    return {
        "set": "average",
        "draws": min(row["draws"] for row in rows),
        **{metric: float(np.mean([row[metric] for row in rows])) for metric in METRICS},
        "sd": {
            metric: float(np.sqrt(sum(row["sd"][metric] ** 2 for row in rows)) / len(rows))
            for metric in METRICS
        },
        "whole": {
            metric: float(np.mean([row["whole"][metric] for row in rows])) for metric in METRICS
        },
        "flags": [],
    }


def group_rows(rows: list[dict[str, Any]], groups: tuple) -> list[dict[str, Any]]:
    """The mean row of each named group that has a set, with the names of its ``sets`` and of those
    it ``lacks``.
    """
    made = []
    for name, members in groups:
        found = [row for row in rows if row["set"] in members]
        if name and found:
            there = [row["set"] for row in found]
            lacks = [member for member in members if member not in there]
            made.append({**mean_row(found), "set": name, "sets": there, "lacks": lacks})
    return made
