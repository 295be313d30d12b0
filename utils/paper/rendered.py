"""The pages' tables of a data set's networks, out of the recorded results;
each function gives one block as Markdown.
"""

import re

from utils import runtime
from utils.losses import LOSSES
from utils.scores import SCORES
from utils.training import recipes

from . import results, seeds
from .compared import error_of, families, first_with, lower
from .markdown import NOTHING, both, fpr_cells, network_of, table, with_sd
from .published import (
    ID_SETS,
    METHODS,
    TABLE_METHODS,
    TABLES,
    own_name,
    own_split,
    printed_number,
    published_rows,
    set_names,
)
from .results import epochs_of, parents_of, whole_sr_runs


def result_rows(name: str) -> list[tuple]:
    """(title, result entry, result) of each measured method of a data set's table,
    out of the recorded results.
    """
    measured = results.recorded()
    methods = TABLE_METHODS if name in ID_SETS else METHODS
    keys = {title: (name, "wrn", loss or "pretrained", score) for title, loss, score in methods}
    return [(title, *measured[key]) for title, key in keys.items() if key in measured]


def render_summary(name: str) -> str:
    """The result that matters, means over the sets: the pre-trained network, whole SR runs from it,
    and the methods with outliers; where these were made from another network, that one too.
    """
    printed, here = published_averages(name), {row[0]: row[1:] for row in result_rows(name)}
    parent = here["Energy"][1].sha256 if "Energy" in here else None
    before, after = [], []
    for title, loss, score in TABLE_METHODS:
        if title in here and loss != "sr" and (loss or score in ("msp", "energy")):
            row = (title, printed.get((loss or "pretrained", score)), *here[title])
            (after if loss else before).append(row)
    every, usual, runs = whole_sr_runs(name), recipes.resolve("tune", name, "sr"), []
    for result in [one for one in every if one.parent == parent] or every:
        recipe = result.recipe
        same = all(recipe[key] == usual[key] for key in ("padding", "alpha"))
        crop = ", with the random crop" if recipe["padding"] > 0 else ""
        published = printed.get(("sr", "energy")) if same else None
        runs.append((f"SR, alpha {recipe['alpha']:g}{crop}", published, result.entry(), result))
    for network in parents_of([result for *_, result in (*runs, *after)]):
        if network.sha256 != parent:
            before.append(("Energy", None, network.entry(), network))
    rows = [
        [title, both(entry["average"]), published, result.error, epochs_of(result)]
        for title, published, entry, result in [*before, *runs, *after]
    ]
    return table("method | FPR95 / AUROC here | as published | ID error here | epochs here", rows)


def render_result(name: str) -> str:
    """FPR95 / AUROC of every method on every set, with what the numbers were measured on."""
    found, printed = result_rows(name), published_averages(name)
    if not found:
        return NOTHING
    if len({tuple(result.sets) for *_, result in found}) > 1:
        raise runtime.UserError(
            f"the recorded results of {name} are of different OOD images. Run: "
            f"python reproduce.py {name}{' --table all' * bool(printed)}, then: "
            f"python -m utils.paper.pages --record {name}"
        )
    rows = []
    for title, entry, result in found:
        row = [title, epochs_of(result), result.error]
        row += [f"{with_sd(one, 'fpr95')} / {one['auroc']:.2f}" for one in entry["sets"]]
        row.append(f"**{both(entry['average'])}**")
        rows.append(row + [printed.get((result.stage, entry["score"]))] * bool(printed))
    _, entry, result = found[-1]
    network = result["snapshot"]
    sets = [f"{own_name(row)} (n {row['n']})" for row in entry["sets"]]
    head = ["method", "epochs", "ID error", *sets, "average"]
    head += ["average, published (the papers' sets)"] * bool(printed)
    note = (
        f"{network_of(network).upper()}, {network['train_images']:,} training images, "
        f"{result['id']['images']:,} ID test images, seed {network['seed']}, "
        f"{result['num_to_avg']} draws of {max(row['drawn'] for row in entry['sets']):,} OOD images. "
        f"{own_split(result['id'])}"
    )
    return table(head, rows, note.rstrip())


def published_averages(name: str) -> dict[tuple[str, str], str]:
    """{(stage, score): the papers' mean FPR95 / AUROC over their own six sets as text}: [SRF]'s
    where it has them, else [Energy]'s. Of the flags only a misprint is told.
    """
    found = {}
    for source in ("srf1", "energy"):
        rows = published_rows(TABLES[source], name)
        for (_, network, score, stage), sets in rows.items():
            if network == "wrn" and {"fpr95", "auroc"} <= set(sets.get("average", {})):
                cells = [sets["average"][metric] for metric in ("fpr95", "auroc")]
                text = " / ".join(printed_number(one, ("misprint",)) for one in cells)
                found.setdefault((stage, score), text)
    return found


def render_seeds(name: str) -> str:
    """Mean and standard deviation over training seeds of each method's averages,
    out of the recorded tables.
    """
    usual = re.compile(rf"{re.escape(name)}(_s\d+)?_table")
    found = sorted(results.RECORDED.glob(f"{name}_*table.csv"))
    files = [file for file in found if usual.fullmatch(file.stem)]
    if len(files) < 2:
        return NOTHING
    note = f"\n\nMean ± sd over {len(files)} training seeds, percent."
    return seeds.format_means(seeds.mean_over_seeds(files)) + note


def render_same_score(name: str) -> str:
    """MSP and energy on every network of the table, with what tells the networks apart:
    losses compared at one score.
    """
    measured, rows = results.recorded(), []
    titles = {"pretrained": "pre-trained", **{key: loss.title for key, loss in LOSSES.items()}}
    for stage, title in titles.items():
        found = [measured.get((name, "wrn", stage, score)) for score in ("msp", "energy")]
        if all(found):
            given = found[0][1]["id"]
            averages = [both(entry["average"]) for entry, _ in found]
            epochs = epochs_of(found[0][1])
            rows.append([title, epochs, given["error"], given["mean_l1"], *averages])
    header = "network | epochs | ID error | mean ‖h‖₁ | `msp`, average | `energy`, average"
    return table(header, rows)


def render_every(name: str) -> str:
    """Every score on the pre-trained network of which the recorded results have most of them, where
    these are more than the tables ask for.
    """
    order, networks = list(SCORES), {}
    for result in results.recorded_results(name):
        if results.enters(result):
            found = networks.setdefault((*result.of, result.made_of), {})
            for entry in result["scores"]:
                if entry["score"].split(":")[0] in order:
                    found[entry["score"]] = (entry, result)
    wanted = [found for key, found in networks.items() if key[:3] == (name, "wrn", "pretrained")]
    found = max(wanted, key=len, default={})
    if len(found) < len(SCORES) / 2:
        return NOTHING
    labels = sorted(found, key=lambda label: (order.index(label.split(":")[0]), label))
    rows = []
    for label in labels:
        entry, result = found[label]
        values = map(both, [*entry["sets"], entry["average"]])
        rows.append([f"`{label_of(entry, name)}`", *values])
    note = f"On `{result.name}`, {result['num_to_avg']} draws."
    return table(["`--score`", *set_names(entry)], rows, note)


def label_of(entry: dict, dataset: str) -> str:
    """A recorded score's label by the defaults of today, which are not always those it had then."""
    return SCORES[entry["score"].split(":")[0]](dataset, **entry["hyper"]).label


def render_answer(name: str) -> str:
    """Energy score before and after SR, set by set: does SR lower FPR95 at equal ID accuracy?"""
    family = first_with(families(name), "sr")
    if family is None:
        return NOTHING
    before, after = family.entry("pretrained"), family.entry("sr")
    pairs = list(zip(before["sets"], after["sets"]))
    lines = []
    for old, new in [*pairs, (before["average"], after["average"])]:
        fpr95, auroc = (
            [with_sd(old, metric), with_sd(new, metric), f"{new[metric] - old[metric]:+.2f}"]
            for metric in ("fpr95", "auroc")
        )
        error = f"{error_of(old, new):.2f}" if "n" in old else ""
        lines.append([own_name(old), *fpr95, error, *auroc])
    l1 = [family[stage]["id"]["mean_l1"] for stage in ("pretrained", "sr")]
    note = (
        f"FPR95 is {lower(before, after)}; ID error {family.error('pretrained'):.2f} % before, "
        f"{family.error('sr'):.2f} % after; mean ‖h‖₁ of the ID test images {l1[0]:.2f} before, "
        f"{l1[1]:.2f} after. {own_split(family['sr']['id'])}"
    )
    head = "OOD set | FPR95, energy | FPR95, SR | difference | standard error"
    return table(f"{head} | AUROC, energy | AUROC, SR | difference", lines, note.rstrip())


def render_whole(name: str) -> str:
    """Whole SR runs with and without the random crop and the norm, each after the network they were
    made from, energy score.
    """
    runs = whole_sr_runs(name)
    rows, columns, notes = [], [], {}
    for before in parents_of(runs):
        made = [one for one in runs if one.parent == before.sha256]
        for result in [before, *made]:
            network, entry = result["snapshot"], result.entry()
            recipe = network["recipe"] if network.get("loss") else {}  # pre-training has neither
            changed = [str(recipe[key]) if key in recipe else None for key in ("padding", "alpha")]
            changed.append(str(network["recipe"]["epochs"]))
            given = [result.error, result["id"]["mean_l1"]]
            rows.append([f"`{network['name']}`", *changed, *given, *fpr_cells(entry)])
            columns, notes[own_split(result["id"])] = set_names(entry), None
    head = ["whole run", "padding of the crop", "alpha", "epochs", "ID error", "mean ‖h‖₁"]
    return table([*head, *columns], rows, " ".join(filter(None, notes)))
