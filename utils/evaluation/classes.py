"""Each ID class by itself: which are confused, and which a detector gives up."""

import numpy as np

from utils.runtime import printable

from .case import Case, Rows
from .verdicts import find_threshold

TPR = 0.95


def by_class(case: Case, found: Rows) -> list[dict] | None:
    """For each class of the ID test images {"class": its name, or its number, "images", "error":
    percent that are taken for another class, "rejected": {score: percent above the threshold}}.

    The threshold is that of FPR95, which keeps 95 % of all ID test images: a class that loses many
    more than 5 % is one that the score takes for OOD. None without labels; the error is None where
    there are no logits.
    """
    images = case.sets.id
    if images.labels is None:
        return None
    labels, logits = images.labels.numpy(), case.network.outputs(images).logits
    wrong = logits.argmax(axis=1) != labels if logits.size else None
    above = {}
    for entry in found.measured:
        values = found.vectors[f"{entry['score']}/id"]
        above[entry["score"]] = values > find_threshold(values, TPR)
    names = images.classes or case.description.get("classes") or ()
    rows = []
    for label in np.unique(labels):
        own = labels == label
        rows.append(
            {
                "class": str(names[label]) if label < len(names) else str(label),
                "images": int(own.sum()),
                "error": None if wrong is None else round(100 * float(wrong[own].mean()), 4),
                "rejected": {
                    score: round(100 * float(part[own].mean()), 4) for score, part in above.items()
                },
            }
        )
    return rows


def format_classes(rows: list[dict]) -> str:
    """The table of ``by_class`` as text, a column a score."""
    scores = list(rows[0]["rejected"])
    names = [printable(row["class"]) for row in rows]
    width = max(map(len, [*names, "ID class"])) + 2
    columns = [max(len(score), 7) + 2 for score in scores]
    lines = [
        "error, and share above the threshold that keeps 95 % of all ID images; percent",
        f"{'ID class':{width}}{'images':>8}{'error':>9}"
        + "".join(f"{score:>{w}}" for score, w in zip(scores, columns)),
    ]
    for name, row in zip(names, rows):
        error = "unknown" if row["error"] is None else f"{row['error']:.2f}"
        lines.append(
            f"{name:{width}}{row['images']:>8}{error:>9}"
            + "".join(f"{row['rejected'][s]:>{w}.2f}" for s, w in zip(scores, columns))
        )
    return "\n".join(lines)
