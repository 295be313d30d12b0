"""The table of every score on every network, out of a record of ``reproduce.py --scores-matrix``."""

import numpy as np
from scipy.stats import rankdata

from .markdown import NOTHING, both, table
from .rendered import recorded_study

FIGURES = "../../CIFAR/figures/recorded"  # from utils/scores/README.md
SHOWN = 5  # scores that the sentence below the table names


def short(name: str) -> str:
    """``tune_sr_code/cifar10_wrn_s1_tune_epoch_2`` -> ``tune_sr_code``."""
    return name.partition("/")[0]


def arrays(record: dict) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """(labels of S scores, names of N networks, mean FPR95 over the sets (S,N) in percent,
    mean rank (S,) from 1 = lowest), best mean rank first.

    Only scores that every network has.
    """
    tables = [{entry["score"]: entry for entry in row["scores"]} for row in record["rows"]]
    labels = [label for label in tables[0] if all(label in one for one in tables)]
    fpr95 = np.array([[one[label]["average"]["fpr95"] for one in tables] for label in labels])
    ranks = rankdata(fpr95, axis=0).mean(axis=1)
    order = np.argsort(ranks, kind="stable")
    names = [row["name"] for row in record["rows"]]
    return [labels[i] for i in order], names, fpr95[order], ranks[order]


def format_matrix(labels: list[str], names: list[str], fpr95: np.ndarray, ranks: np.ndarray) -> str:
    """The matrix as text: a line a score, best mean rank first."""
    columns = [short(name) for name in names]
    lines = [f"{'FPR95, percent':16}{'rank':>7}" + "".join(f"{c:>14}" for c in columns)]
    for label, values, rank in zip(labels, fpr95, ranks):
        lines.append(f"{label:16}{rank:7.1f}" + "".join(f"{v:14.2f}" for v in values))
    return "\n".join(lines)


def render_matrix(name: str) -> str:
    """Mean rank, and FPR95 / AUROC of every score on every network, best mean rank first."""
    record = recorded_study(name, "scores_matrix")
    if record is None:
        return NOTHING
    labels, names, fpr95, ranks = arrays(record)
    tables = [{entry["score"]: entry for entry in row["scores"]} for row in record["rows"]]
    rows = [
        [f"`{label}`", f"{rank:.1f}", *(both(one[label]["average"]) for one in tables)]
        for label, rank in zip(labels, ranks)
    ]
    best = ", ".join(
        f"`{labels[i]}` on `{short(network)}`" for network, i in zip(names, fpr95.argmin(axis=0))
    )
    first = ", ".join(f"`{label}`" for label in labels[:SHOWN])
    energy = labels.index("energy") + 1
    precisions = " and ".join(sorted({row["precision"] for row in record["rows"]}))
    errors = ", ".join(f"{row['error']:.2f}" for row in record["rows"])
    return table(
        ["`--score`", "mean rank", *(f"`{short(network)}`" for network in names)],
        rows,
        (
            f"Lowest mean rank over the networks: {first}; `energy` is at place {energy} of "
            f"{len(labels)}. Lowest FPR95 on each: {best}. FPR95 / AUROC, means over "
            f"{len(record['ood'])} OOD sets, {record['num_to_avg']} draws, ID positive, in percent; "
            f"rank 1 = lowest FPR95. ID errors: {errors}. Scored in {precisions} on "
            f"{record['id']['images']:,} ID test images; hyper-parameters are the scores' defaults."
            f"\n\n![Mean FPR95 of every score on every network]({FIGURES}/{name}_scores_matrix.png)"
        ),
    )
