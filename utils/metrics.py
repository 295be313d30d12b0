"""FPR95, AUROC and AUPR of two score vectors, from one sorting.

Scores are as everywhere in this project: larger = more OOD. Conventions ([Energy], [SR]): ID is the positive class of
``fpr95`` and ``aupr_in``; ``fpr95_out`` and ``aupr_out`` take OOD as positive ([OE], [OpenOOD]) and are other numbers.
"""
import numpy as np

METRICS = ("fpr95", "auroc", "aupr_in", "fpr95_out", "aupr_out")


def detection_metrics(id_scores, ood_scores, recall=0.95):
    """All metrics of METRICS as a dict of floats in [0, 1].

    fpr95      share of OOD accepted as ID at the ID score whose ID recall is closest to 0.95 (of two equally close: the
               higher recall; tied scores are accepted together); with 10,000 distinct ID scores the 9,500th
    auroc      chance that an OOD image scores above an ID image, ties count 1/2
    aupr_in    average precision (step-wise) with ID positive
    fpr95_out  the same rule with OOD positive: share of ID flagged when about 95 % of OOD is caught
    aupr_out   average precision with OOD positive

    id_scores (N,), ood_scores (M,): any real numbers, infinities included. Raises ValueError for empty input or NaN.
    """
    inner, outer = np.sort(as_vector(id_scores, "ID")), np.sort(as_vector(ood_scores, "OOD"))
    if np.isnan(inner[-1]) or np.isnan(outer[-1]):   # np.sort puts NaN last
        raise ValueError("scores hold NaN")
    n, m = len(inner), len(outer)
    # A stable sort of two sorted runs only merges them. Scores of -0.0 and 0.0 tie, as they must.
    joined = np.concatenate([inner, outer])
    order = np.argsort(joined, kind="stable")
    joined = joined[order]
    last = np.append(np.flatnonzero(joined[1:] != joined[:-1]), n + m - 1)   # last place of each distinct score
    # How many ID and OOD images score at most each distinct score, from the smallest (surest ID) up.
    id_below = np.cumsum(order < n)[last]
    ood_below = last + 1 - id_below
    id_here, ood_here = np.diff(id_below, prepend=0), np.diff(ood_below, prepend=0)
    id_above, ood_above = n - id_below + id_here, m - ood_below + ood_here
    return {
        "fpr95": float(ood_below[at_recall(id_below, id_here, n, recall)] / m),
        "auroc": float(ood_here @ (id_below - 0.5 * id_here) / n / m),
        "aupr_in": float(id_here @ (id_below / (last + 1)) / n),
        "fpr95_out": float(id_above[at_recall(ood_above, ood_here, m, recall)] / n),
        "aupr_out": float(ood_here @ (ood_above / (id_above + ood_above)) / m),
    }


def at_recall(caught, here, total, recall):
    """Index of the threshold, among the positives' own scores, whose recall is closest to ``recall``; the higher on a tie."""
    own = np.flatnonzero(here)
    distance = np.abs(caught[own] - recall * total)
    # Counts differ by whole images: a tie is exact but for the rounding of recall * total.
    closest = own[distance <= distance.min() + 1e-6]
    return closest[np.argmax(caught[closest])]


def as_vector(scores, which):
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"{which} scores have shape {scores.shape}; a vector of at least one score is needed")
    return scores


def quirks(id_scores, ood_scores):
    """What makes a row's numbers say less than they seem: a list out of "constant", "ties", "separated".

    "ties": more than one image in a hundred shares its score with an image of the other side.
    """
    id_scores, ood_scores = np.asarray(id_scores), np.asarray(ood_scores)
    if min(id_scores.min(), ood_scores.min()) == max(id_scores.max(), ood_scores.max()):
        return ["constant"]
    found = []
    shared = np.isin(ood_scores, id_scores).mean(), np.isin(id_scores, ood_scores).mean()
    if max(shared) > 0.01:
        found.append("ties")
    if id_scores.max() < ood_scores.min():
        found.append("separated")
    return found
