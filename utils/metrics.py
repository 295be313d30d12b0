"""FPR95, AUROC and AUPR of two score vectors, from one sorting.

Scores are as everywhere in this project: larger = more OOD. Conventions ([Energy], [SR]): ID is the
positive class of ``fpr95`` and ``aupr_in``; ``fpr95_out`` and ``aupr_out`` take OOD as positive
([OE], [OpenOOD]) and are other numbers.
"""

import numpy as np
from numpy.typing import ArrayLike

METRICS = ("fpr95", "auroc", "aupr_in", "fpr95_out", "aupr_out")


def detection_metrics(
    id_scores: ArrayLike, ood_scores: ArrayLike, recall: float = 0.95
) -> dict[str, float]:
    """All metrics of METRICS as a dict of floats in [0, 1].

    fpr95      share of OOD accepted as ID at the ID score whose ID recall is closest to 0.95 (of
               two equally close: the higher recall; tied scores are accepted together); with 10,000
               distinct ID scores the 9,500th
    auroc      chance that an OOD image scores above an ID image, ties count 1/2
    aupr_in    average precision (step-wise) with ID positive
    fpr95_out  the same rule with OOD positive: share of ID flagged when about 95 % of OOD is caught
    aupr_out   average precision with OOD positive

    id_scores (N,), ood_scores (M,): any real numbers, infinities included.
    Raises ValueError for empty input or NaN.
    """
    inner, outer = np.sort(as_vector(id_scores, "ID")), np.sort(as_vector(ood_scores, "OOD"))
    if np.isnan(inner[-1]) or np.isnan(outer[-1]):  # np.sort puts NaN last
        raise ValueError("scores hold NaN")
    n, m = len(inner), len(outer)
    # A stable sort of two sorted runs only merges them.
    joined = np.concatenate([inner, outer])
    order = np.argsort(joined, kind="stable")
    is_id = order < n
    id_place, ood_place = np.flatnonzero(is_id), np.flatnonzero(~is_id)
    # For each ID score: how many ID images, and how many images in all, score at most that (are
    # accepted there). For each OOD score: how many OOD images, and how many in all, score at least
    # that (are flagged there).
    id_caught, accepted = np.arange(1, n + 1), id_place + 1
    ood_caught, flagged = np.arange(m, 0, -1), n + m - ood_place
    # for each OOD score: how many ID images score below, tied ones half
    id_below = ood_place - np.arange(m)
    joined = joined[order]
    different = joined[1:] != joined[:-1]  # not of the raw bits: -0.0 and 0.0 tie
    if not different.all():
        first = np.flatnonzero(np.concatenate([[True], different]))
        group = np.cumsum(np.concatenate([[0], different]))
        last = np.append(first[1:], n + m) - 1
        id_up_to = np.concatenate([[0], np.cumsum(is_id)])
        accepted = last[group[id_place]] + 1
        id_caught = id_up_to[accepted]
        begin, end = first[group[ood_place]], last[group[ood_place]] + 1
        flagged = n + m - begin
        ood_caught = flagged - (n - id_up_to[begin])
        id_below = (id_up_to[begin] + id_up_to[end]) / 2
    k, j = at_recall(id_caught, n, recall), at_recall(ood_caught, m, recall)
    return {
        "fpr95": float((accepted[k] - id_caught[k]) / m),
        "auroc": float(id_below.sum(dtype=np.float64) / n / m),
        "aupr_in": float((id_caught / accepted).sum() / n),
        "fpr95_out": float((flagged[j] - ood_caught[j]) / n),
        "aupr_out": float((ood_caught / flagged).sum() / m),
    }


def openood_metrics(
    id_scores: ArrayLike, ood_scores: ArrayLike, recall: float = 0.95
) -> dict[str, float]:
    """The same metrics by OpenOOD v1.5's definitions, as a dict of METRICS, floats in [0, 1].

    fpr95, fpr95_out   at the first threshold, from the strictest on, whose recall is at least 0.95
    auroc              as in ``detection_metrics``
    aupr_in, aupr_out  area under the precision-recall curve by trapezoids, from recall 0 and
                       precision 1 on

    Every score that occurs is a threshold, and tied scores pass it together. Source: [OpenOOD],
    compute_all_metrics. Departs from it in one case: scikit-learn's curve, from which it reads
    FPR95, leaves out a threshold where two neighbours step by the same numbers of tied ID and OOD
    images. Raises ValueError for empty input or NaN.
    """
    inner, outer = np.sort(as_vector(id_scores, "ID")), np.sort(as_vector(ood_scores, "OOD"))
    if np.isnan(inner[-1]) or np.isnan(outer[-1]):
        raise ValueError("scores hold NaN")
    values = np.unique(np.concatenate([inner, outer]))
    # accepted as ID: at most the value; flagged as OOD: at least the value, the largest first
    id_caught, ood_passed = (np.searchsorted(part, values, "right") for part in (inner, outer))
    ood_caught, id_flagged = (
        len(part) - np.searchsorted(part, values[::-1], "left") for part in (outer, inner)
    )
    below = (np.searchsorted(inner, outer, "left") + np.searchsorted(inner, outer, "right")) / 2
    fpr95, aupr_in = first_at_recall(id_caught, ood_passed, recall)
    fpr95_out, aupr_out = first_at_recall(ood_caught, id_flagged, recall)
    return {
        "fpr95": fpr95,
        "auroc": float(below.sum() / len(inner) / len(outer)),
        "aupr_in": aupr_in,
        "fpr95_out": fpr95_out,
        "aupr_out": aupr_out,
    }


def first_at_recall(caught: np.ndarray, passed: np.ndarray, recall: float) -> tuple[float, float]:
    """(share of negatives that pass the first threshold of this recall, area under precision over
    recall) of the positives and negatives that pass each threshold, from the strictest on.
    """
    reached = caught / caught[-1]
    precision = np.concatenate([[1.0], caught / (caught + passed)])
    area = (np.diff(reached, prepend=0) * (precision[1:] + precision[:-1]) / 2).sum()
    return float(passed[np.argmax(reached >= recall)] / passed[-1]), float(area)


def at_recall(caught: np.ndarray, total: int, recall: float) -> int:
    """Index of the positive whose own score, as the threshold, has the recall closest to
    ``recall``; the higher on a tie.
    """
    distance = np.abs(caught - recall * total)
    # Counts differ by whole images: a tie is exact but for the rounding of recall * total.
    closest = np.flatnonzero(distance <= distance.min() + 1e-6)
    return closest[np.argmax(caught[closest])]


def as_vector(scores: ArrayLike, which: str) -> np.ndarray:
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(
            f"{which} scores have shape {scores.shape}; a vector of at least one score is needed"
        )
    return scores


def quirks(id_scores: ArrayLike, ood_scores: ArrayLike) -> list[str]:
    """What makes a row's numbers say less than they seem:
    a list out of "constant", "ties", "separated", "inverted".

    "ties": more than one image in a hundred has exactly the score of another one.
    """
    id_scores, ood_scores = np.asarray(id_scores), np.asarray(ood_scores)
    _, counts = np.unique(np.concatenate([id_scores, ood_scores]), return_counts=True)
    if len(counts) == 1:
        return ["constant"]
    found = ["ties"] if counts[counts > 1].sum() > 0.01 * counts.sum() else []
    if id_scores.max() < ood_scores.min():
        found.append("separated")
    if ood_scores.max() < id_scores.min():
        found.append("inverted")
    return found


def is_near_chance(error: float, count: int, classes: int) -> bool:
    """Whether an ID error in percent, of ``count`` images, is near that of guessing: within a tenth of
    what is above chance and two standard errors.
    """
    chance = 1 / classes
    near = chance + 0.1 * (1 - chance) + 2 * (chance * (1 - chance) / count) ** 0.5
    return 1 - error / 100 <= near
