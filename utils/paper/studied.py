"""The pages' tables of studies: SR's alpha, SR's parts, every score on every network, and what
``data/download.py --audit`` found in the images at hand.
"""

import numpy as np
from scipy.stats import rankdata

from .markdown import both, fpr_cells, table
from .published import set_names

SHOWN = 5  # scores that the sentence below the matrix names


def made_from(record: dict) -> str:
    """What all rows of a study were fine-tuned from and on."""
    precisions = {row.get("precision", record.get("precision")) for row in record["rows"]}
    return (
        f"From `{record['parent_name']}`, {record['images']:,} training images, "
        f"{record['epochs']} epochs (a complete schedule), seed {record['seed']}, "
        f"scored in {' and '.join(sorted(precisions))}"
    )


def sweep_table(record: dict) -> str:
    """SR's alpha on held-out training images and generated noise, FPR95 / AUROC in percent."""
    rows = []
    for row in record["rows"]:
        mark = " **(recommended)**" * (row["alpha"] == record["recommended"])
        names = [f"{row['alpha']:g}{mark}", row["accuracy"], f"{row['mean_l1']:.3f}"]
        rows.append([*names, *map(both, [*row["sets"], row])])
    noises = [noise["name"] for noise in record["ood"]]
    head = ["alpha", "accuracy, held-out ID", "mean ‖h‖₁", *noises, "mean of the noises"]
    return table(head, rows)


def render_sweep(record: dict) -> str:
    """``sweep_table``, with its rule."""
    return (
        f"{sweep_table(record)}\n\n{made_from(record)}; {record['id']['images']:,} held-out "
        f"training images against as many of each noise. Rule: {record['rule']}."
    )


def ablation_table(record: dict) -> str:
    """SR's fine-tuning with one thing changed at a time, against the network it starts from."""
    head = ["fine-tuning", "ID error", "mean ‖h‖₁", *set_names(record["rows"][0])]
    rows = [[row["name"], row["error"], row["mean_l1"], *fpr_cells(row)] for row in record["rows"]]
    return table(head, rows)


def render_ablation(record: dict) -> str:
    """``ablation_table``."""
    return (
        f"{ablation_table(record)}\n\n{made_from(record)}; {record['id']['images']:,} ID test "
        f"images, {record['num_to_avg']} draws."
    )


def short(name: str) -> str:
    """``tune_sr_code/cifar10_wrn_s1_tune_epoch_2`` -> ``tune_sr_code``."""
    return name.partition("/")[0]


def averages_of(record: dict) -> list[dict]:
    """{score's label: its means over the sets} of each network of a matrix."""
    return [{entry["score"]: entry["average"] for entry in row["scores"]} for row in record["rows"]]


def arrays(record: dict) -> tuple[list[str], list[str], np.ndarray, np.ndarray]:
    """(labels of S scores, names of N networks, mean FPR95 over the sets (S,N) in percent,
    mean rank (S,) from 1 = lowest), best mean rank first.

    Only scores that every network has.
    """
    networks = averages_of(record)
    labels = [label for label in networks[0] if all(label in one for one in networks)]
    fpr95 = np.array([[one[label]["fpr95"] for one in networks] for label in labels])
    ranks = rankdata(fpr95, axis=0).mean(axis=1)
    order = np.argsort(ranks, kind="stable")
    names = [row["name"] for row in record["rows"]]
    return [labels[i] for i in order], names, fpr95[order], ranks[order]


def matrix_table(record: dict) -> str:
    """Mean rank, and FPR95 / AUROC of every score on every network, best mean rank first."""
    labels, names, _, ranks = arrays(record)
    networks = averages_of(record)
    rows = [
        [f"`{label}`", f"{rank:.1f}", *(both(one[label]) for one in networks)]
        for label, rank in zip(labels, ranks)
    ]
    return table(["`--score`", "mean rank", *(f"`{short(name)}`" for name in names)], rows)


TABLES = {"sweep_alpha": sweep_table, "ablation": ablation_table, "scores_matrix": matrix_table}


def render_matrix(record: dict) -> str:
    """``matrix_table``, with what is best."""
    labels, names, fpr95, _ = arrays(record)
    best = ", ".join(
        f"`{labels[i]}` on `{short(network)}`" for network, i in zip(names, fpr95.argmin(axis=0))
    )
    first = ", ".join(f"`{label}`" for label in labels[:SHOWN])
    precisions = " and ".join(sorted({row["precision"] for row in record["rows"]}))
    errors = ", ".join(f"{row['error']:.2f}" for row in record["rows"])
    return (
        f"{matrix_table(record)}\n\n"
        f"Lowest mean rank over the networks: {first}; `energy` is at place "
        f"{labels.index('energy') + 1} of {len(labels)}. Lowest FPR95 on each: {best}. "
        f"{len(record['ood'])} OOD sets, {record['num_to_avg']} draws, {record['id']['images']:,} ID "
        f"test images, scored in {precisions}; ID errors: {errors}."
    )


def render_audit(record: dict) -> str:
    """The pairs of sets that share images, how near is meant, and what the hash finds again."""
    sizes = {entry["title"]: entry["images"] for entry in record["sets"]}
    shared = [pair for pair in record["pairs"] if pair["exact"] + pair["near"]]
    rows = []
    for pair in sorted(shared, key=lambda pair: -pair["percent"]):
        names = [f"`{pair['second']}`", f"{sizes[pair['second']]:,}", f"`{pair['first']}`"]
        counts = [f"{pair[kind]:,}" for kind in ("exact", "near", "mirrored")]
        rows.append([*names, *counts, pair["percent"]])
    flat = {entry["title"]: entry["flat"] for entry in record["sets"] if entry["flat"]}
    repeated = {entry["title"]: entry["repeated"] for entry in record["sets"] if entry["repeated"]}
    probes = record["probes"]
    again = "; ".join(f"{how}: {share:.1f} %" for how, share in probes["found"].items())
    note = (
        f"{len(shared)} of the {len(record['pairs'])} pairs of the {len(sizes)} sets share images; the "
        f"sets are {listed(sizes)}. Equal to another one of their own set are {listed(repeated)}. "
        f"Near: at most {record['bits']} of {record['signs']} signs of the hash differ, and the pixels, "
        f"each image brought to mean 0 and standard deviation 1, by at most {record['difference']:g} on "
        f"average; mirror images count. Flat images, whose grey values have a standard deviation below "
        f"{record['contrast']:g} of 255, are never near: {listed(flat)}. Of images of "
        f"`{probes['set']}` that were changed, these were found near again: {again}."
    )
    return table(
        "images of | images | also in | exact | near | of these mirrored | exact and near, %",
        rows,
        note,
    )


def listed(counts: dict[str, int]) -> str:
    """ "`svhn` (12), `isun` (3)", or "none"."""
    return ", ".join(f"`{name}` ({count:,})" for name, count in counts.items()) or "none"
