"""The pages' tables of what has been measured, out of the recorded results;
each function gives one block as Markdown.
"""

import csv
import re
import statistics
from pathlib import Path

from utils import runtime, snapshots
from utils.evaluation import report
from utils.evaluation.protocol import is_usual
from utils.losses import LOSSES
from utils.scores import SCORES
from utils.training import recipes

from . import provide, tables
from .tables import METHODS, RECORDED, TABLE_METHODS, own_name

NOTHING = "Not measured yet."


def table(header: list[str] | str, rows: list[list]) -> str:
    """A Markdown table; the cells' pipes are escaped. A header of fixed words is one string, its
    cells parted by " | ".
    """
    header = header.split(" | ") if isinstance(header, str) else header
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def both(row: dict) -> str:
    """FPR95 / AUROC of a row, as text."""
    return f"{row['fpr95']:.2f} / {row['auroc']:.2f}"


def with_sd(row: dict, metric: str) -> str:
    """A metric of a row, with its standard deviation over the draws where
    there are several, as text.
    """
    return f"{row[metric]:.2f}" + (f" ± {row['sd'][metric]:.2f}" if row.get("draws", 1) > 1 else "")


def fpr_cells(entry: dict) -> list[str]:
    """FPR95 of an entry on each set, then FPR95 / AUROC of their mean, as text."""
    return [*(with_sd(row, "fpr95") for row in entry["sets"]), both(entry["average"])]


def result_rows(name: str) -> list[tuple]:
    """(title, result entry, result, path) of each measured method of a data set's table,
    out of the recorded results.
    """
    measured = tables.measured_results((RECORDED,))
    methods = TABLE_METHODS if name in tables.ID_SETS else METHODS
    keys = {title: (name, "wrn", loss or "pretrained", score) for title, loss, score in methods}
    return [(title, *measured[key]) for title, key in keys.items() if key in measured]


def recorded_study(name: str, study: str) -> dict | None:
    """The recorded result of a study, or None."""
    path = RECORDED / f"{name}_{study}.json"
    return report.read_result(path) if path.exists() else None


def published_of(measured: dict) -> str:
    """The papers' tables, published beside measured, each under its title, then what their numbers
    were made of.
    """
    parts = []
    for id_set in tables.shown_sets(measured):
        for name, one in tables.TABLES.items():
            head, *rows = tables.grid(name, id_set, measured)
            parts.append(
                f"### {one.title} ({tables.display(id_set)}, `--table {name}`)\n\n"
                f"{table(head, rows)}"
            )
    notes = "\n".join(f"- {line}" for line in tables.describe_notes(measured))
    return "\n\n".join([*parts, f"### Notes\n\n{notes}"])


def render_summary(name: str) -> str:
    """The result that matters, means over the sets: the pre-trained network, whole SR runs from it,
    and the methods with outliers.
    """
    printed = published_averages(name)
    here = {title: (entry, result) for title, entry, result, _ in result_rows(name)}

    def rows_of(wanted):
        return [
            (title, *here[title], printed.get((loss or "pretrained", score), "-"))
            for title, loss, score in TABLE_METHODS
            if title in here and wanted(loss, score)
        ]

    rows, usual = [], recipes.resolve("tune", name, "sr")
    for result in whole_runs(name):
        recipe = result["snapshot"]["recipe"]
        same = all(recipe[key] == usual[key] for key in ("padding", "alpha"))
        title = f"SR, alpha {recipe['alpha']:g}" + ", with the random crop" * (
            recipe["padding"] > 0
        )
        published = printed.get(("sr", "energy"), "-") if same else "-"
        rows.append((title, report.entry_of(result, "energy"), result, published))
    before = rows_of(lambda loss, score: loss is None and score in ("msp", "energy"))
    rows = [*before, *rows, *rows_of(lambda loss, _: loss not in (None, "sr"))]
    return table(
        "method | FPR95 / AUROC here | as published | ID error here | epochs here",
        [
            [
                title,
                both(entry["average"]),
                published,
                f"{result['id']['error']:.2f}",
                result["snapshot"]["recipe"]["epochs"],
            ]
            for title, entry, result, published in rows
        ],
    )


def render_result(name: str) -> str:
    """FPR95 / AUROC of every method on every set, with what the numbers were measured on."""
    found, printed = result_rows(name), published_averages(name)
    if not found:
        return NOTHING
    if len({tuple((row["set"], row["n"]) for row in entry["sets"]) for _, entry, *_ in found}) > 1:
        raise runtime.UserError(
            f"the recorded results of {name} are of different OOD images. Run: "
            f"python reproduce.py {name}{' --table all' * bool(printed)}, then: "
            f"python -m utils.paper.pages --record {name}"
        )
    rows = []
    for title, entry, result, _ in found:
        stage = result["snapshot"].get("loss", "pretrained")
        rows.append(
            [
                title,
                result["snapshot"]["recipe"]["epochs"],
                f"{result['id']['error']:.2f}",
                *(f"{with_sd(row, 'fpr95')} / {row['auroc']:.2f}" for row in entry["sets"]),
                f"**{both(entry['average'])}**",
                *([printed.get((stage, entry["score"]), "-")] if printed else []),
            ]
        )
    _, entry, result, _ = found[-1]
    network = result["snapshot"]
    header = [
        "method",
        "epochs",
        "ID error",
        *(f"{own_name(row)} (n {row['n']})" for row in entry["sets"]),
        "average",
        *(["average, published (the papers' sets)"] if printed else []),
    ]
    return table(header, rows) + (
        f"\n\n{network_of(network).upper()}, {network['train_images']:,} training images, "
        f"{result['id']['images']:,} ID test images, seed {network['seed']}, "
        f"{result['num_to_avg']} draws of {max(row['drawn'] for row in entry['sets']):,} "
        "OOD images (or all, where there are fewer). FPR95 ± sd over the draws "
        "(none where all images are one draw) / AUROC in percent, ID positive; "
        "epochs = length of the complete schedule of that stage."
    )


def published_averages(name: str) -> dict:
    """{(stage, score): the papers' mean FPR95 / AUROC over their own six sets as text}: [SRF]'s
    where it has them, else [Energy]'s.
    """
    found = {}
    for source in ("srf1", "energy"):
        for (_, network, score, stage), sets in tables.published_rows(
            tables.TABLES[source], name
        ).items():
            if network == "wrn" and {"fpr95", "auroc"} <= set(sets.get("average", {})):
                cells = [sets["average"][metric] for metric in ("fpr95", "auroc")]
                marked = [
                    f"{c['value']:.2f}"
                    + " [misprint]" * (c.get("flag", {}).get("kind") == "misprint")
                    for c in cells
                ]
                found.setdefault((stage, score), " / ".join(marked))
    return found


def render_seeds(name: str) -> str:
    """Mean and standard deviation over training seeds of each method's averages,
    out of the recorded tables.
    """
    files = [
        file
        for file in sorted(RECORDED.glob(f"{name}_*table.csv"))
        if re.fullmatch(rf"{re.escape(name)}(_s\d+)?_table", file.stem)
    ]
    found = {}
    for file in files:
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                if row["set"] == "average":
                    found.setdefault(row["method"], []).append(
                        [float(row[key]) for key in ("fpr95", "auroc", "id_error")]
                    )
    if len(files) < 2:
        return NOTHING
    rows = [
        [
            method,
            *(
                f"{statistics.mean(column):.2f} ± {statistics.stdev(column):.2f}"
                for column in zip(*values)
            ),
        ]
        for method, values in found.items()
    ]
    return (
        table("method | FPR95, average | AUROC, average | ID error", rows)
        + f"\n\nMean ± sd over {len(files)} training seeds, percent."
    )


def render_same_score(name: str) -> str:
    """MSP and energy on every network of the table, with what tells the networks apart:
    losses compared at one score.
    """
    measured, rows = tables.measured_results((RECORDED,)), []
    for title, loss in (
        ("pre-trained", "pretrained"),
        *((loss.title, key) for key, loss in LOSSES.items()),
    ):
        found = [measured.get((name, "wrn", loss, score)) for score in ("msp", "energy")]
        if all(found):
            given = found[0][1]["id"]
            rows.append(
                [
                    title,
                    f"{given['error']:.2f}",
                    f"{given['mean_l1']:.2f}",
                    *(both(entry["average"]) for entry, *_ in found),
                ]
            )
    return (
        table("network | ID error | mean ‖h‖₁ | `msp`, average | `energy`, average", rows)
        if rows
        else NOTHING
    )


def render_every(name: str) -> str:
    """Every score on the pre-trained network, where the recorded results have
    more than the tables ask for.
    """
    measured = {
        key[3]: found
        for key, found in tables.measured_results((RECORDED,)).items()
        if key[:3] == (name, "wrn", "pretrained") and key[3].split(":")[0] in SCORES
    }
    if len(measured) < len(SCORES) / 2:
        return NOTHING
    found = [
        (label, *measured[label])
        for label in sorted(
            measured, key=lambda label: (list(SCORES).index(label.split(":")[0]), label)
        )
    ]
    rows = [
        [f"`{label_of(entry, name)}`", *map(both, [*entry["sets"], entry["average"]])]
        for _, entry, *_ in found
    ]
    _, entry, result, _ = found[0]
    return table(["`--score`", *map(own_name, entry["sets"]), "average"], rows) + (
        f"\n\nFPR95 / AUROC in percent on `{result['snapshot']['name']}`, "
        f"{result['num_to_avg']} draws; hyper-parameters are the scores' defaults."
    )


def label_of(entry: dict, dataset: str) -> str:
    """A recorded score's label by the defaults of today, which are not always those it had then."""
    return SCORES[entry["score"].split(":")[0]](dataset, **entry["hyper"]).label


def render_answer(name: str) -> str:
    """Energy score before and after SR, set by set: does SR lower FPR95 at equal ID accuracy?

    The standard error is the binomial one of n OOD images before and after, as if these were other
    images, which overstates it.
    """
    rows = {title: (entry, result) for title, entry, result, _ in result_rows(name)}
    if not {"Energy", "SR"} <= set(rows):
        return (
            NOTHING[:-1] + " with the recipe of the code in its usual folder; "
            "the table of whole runs below has what there is."
        )
    (before, first), (after, second) = rows["Energy"], rows["SR"]
    pairs = list(zip(before["sets"], after["sets"]))
    if (
        any(old["set"] != new["set"] for old, new in pairs)
        or second["snapshot"].get("parent_sha256") != first["snapshot"]["sha256"]
    ):
        return (
            NOTHING[:-1]
            + ": the recorded results before and after SR are not of one network and the same sets."
        )
    lines = [
        [
            own_name(old) if "n" in old else "average",
            with_sd(old, "fpr95"),
            with_sd(new, "fpr95"),
            f"{new['fpr95'] - old['fpr95']:+.2f}",
            f"{standard_error(old, new):.2f}" if "n" in old else "",
            with_sd(old, "auroc"),
            with_sd(new, "auroc"),
            f"{new['auroc'] - old['auroc']:+.2f}",
        ]
        for old, new in [*pairs, (before["average"], after["average"])]
    ]
    gains = [(old["fpr95"] - new["fpr95"], standard_error(old, new)) for old, new in pairs]
    return table(
        "OOD set | FPR95, energy | FPR95, SR | difference | standard error | "
        "AUROC, energy | AUROC, SR | difference",
        lines,
    ) + (
        f"\n\nFPR95 is lower after SR on {sum(gain > 0 for gain, _ in gains)} of {len(gains)} "
        f"sets, on {sum(gain > 2 * error and gain > 0 for gain, error in gains)} "
        f"of them by more than two standard errors; ID error {first['id']['error']:.2f} % before, "
        f"{second['id']['error']:.2f} % after; mean ‖h‖₁ of the ID test images "
        f"{first['id']['mean_l1']:.2f} before, {second['id']['mean_l1']:.2f} after. "
        "± is the sd over the draws, of which a set with no more images than one draw takes has "
        "none; the standard error of the FPR95's difference is that of the number of OOD images, "
        "binomial, at the threshold of these ID images."
    )


def standard_error(before: dict, after: dict) -> float:
    """Standard error in percent of the difference of two FPR95 on a set's n OOD images."""
    return sum(row["fpr95"] * (100 - row["fpr95"]) / row["n"] for row in (before, after)) ** 0.5


def render_snapshots() -> str:
    """The provided snapshots of manifest.json."""
    if not provide.MANIFEST.exists():
        return "None yet."
    rows = []
    for entry in report.read_result(provide.MANIFEST)["snapshots"]:
        file = Path(entry["file"])
        outliers = entry.get("outliers")
        moved = entry.get("float16_moves")
        rows.append(
            [
                f"`{file.parent.name}/{file.stem}`",
                entry["dataset"],
                network_of(entry),
                entry["loss"] or "cross-entropy",
                f"{outliers['name']} ({outliers['images']:,})" if outliers else "-",
                entry["epochs"],
                seconds_of(entry),
                entry["seed"],
                f"{entry['id_accuracy']:.2f}",
                trained_in(entry),
                f"{entry['weights']} (float16 "
                + ("not tried)" if moved is None else f"moves a metric by {moved:.2g})"),
                f"{entry['bytes'] / 1e6:.1f}",
            ]
        )
    return table(
        "snapshot | ID | network | loss | outliers | epochs | s an epoch | seed | ID accuracy, % | "
        "trained in | stored as | MB",
        rows,
    )


def seconds_of(entry: dict) -> str:
    """Median seconds of an epoch, from the log beside a provided snapshot."""
    file = provide.MANIFEST.parent / entry["file"]
    log = file.with_name(f"{snapshots.stem_of(file)}_training_results.csv")
    if not log.exists():
        return "-"
    with log.open(newline="") as lines:
        return f"{statistics.median(float(row['time(s)']) for row in csv.DictReader(lines)):,.0f}"


def trained_in(entry: dict) -> str:
    """The precision that a provided snapshot's .json says it was trained in."""
    made = snapshots.read_description(provide.MANIFEST.parent / entry["file"]) or {}
    return made.get("computed", {}).get("precision") or made.get("recipe", {}).get(
        "precision", "not recorded"
    )


def network_of(entry: dict) -> str:
    """The network's name, a WRN's with depth and width."""
    return (
        f"{entry['arch']}-{entry['layers']}-{entry['widen_factor']}"
        if entry["arch"] == "wrn"
        else entry["arch"]
    )


def made_from(record: dict) -> str:
    """What all rows of a study were fine-tuned from and on."""
    precisions = {row.get("precision", record.get("precision")) for row in record["rows"]}
    return (
        f"From `{record['parent_name']}`, {record['images']:,} training images, "
        f"{record['epochs']} epochs (a complete schedule), seed {record['seed']}, "
        f"scored in {' and '.join(sorted(precisions))}"
    )


def render_sweep(name: str) -> str:
    """SR's alpha on held-out training images and generated noise."""
    record = recorded_study(name, "sweep_alpha")
    if record is None:
        return NOTHING
    rows = [
        [
            f"{row['alpha']:g}" + " **(recommended)**" * (row["alpha"] == record["recommended"]),
            f"{row['accuracy']:.2f}",
            f"{row['mean_l1']:.3f}",
            *map(both, [*row["sets"], row]),
        ]
        for row in record["rows"]
    ]
    return table(
        "alpha | accuracy, held-out ID | mean ‖h‖₁ | "
        f"{' | '.join(noise['name'] for noise in record['ood'])} | mean of the noises",
        rows,
    ) + (
        f"\n\nFPR95 / AUROC in percent. {made_from(record)}; "
        f"{record['id']['images']:,} held-out training images against as many of each noise. "
        f"Rule: {record['rule']}.\n\n![Accuracy, mean L1 norm, validation FPR95 and AUROC against "
        f"alpha](figures/recorded/{name}_sweep_alpha.png)"
    )


def render_ablation(name: str) -> str:
    """SR's fine-tuning with one thing changed at a time, against the network it starts from."""
    record = recorded_study(name, "ablation")
    if record is None:
        return NOTHING
    rows = [
        [row["name"], f"{row['error']:.2f}", f"{row['mean_l1']:.2f}", *fpr_cells(row)]
        for row in record["rows"]
    ]
    return table(
        "fine-tuning | ID error | mean ‖h‖₁ | "
        f"{' | '.join(map(own_name, record['rows'][0]['sets']))} | average",
        rows,
    ) + (
        f"\n\n{made_from(record)}; whole runs as named. Energy score, {record['id']['images']:,} "
        f"ID test images, {record['num_to_avg']} draws. FPR95 ± sd over the draws; average: "
        "FPR95 / AUROC, in percent."
    )


def whole_runs(name: str) -> list[dict]:
    """Recorded results of whole SR runs, whatever their recipe,
    in the order of crop, alpha and epochs.
    """
    found = [report.read_result(path) for path in sorted(RECORDED.glob(f"{name}_wrn_*.json"))]
    found = [
        one
        for one in found
        if one.get("snapshot", {}).get("loss") == "sr"
        and snapshots.is_complete(one["snapshot"])
        and is_usual(one)  # no other protocol's numbers beside these
        and any(entry["score"] == "energy" for entry in one["scores"])
    ]
    return sorted(
        found,
        key=lambda one: [one["snapshot"]["recipe"][key] for key in ("padding", "alpha", "epochs")],
    )


def render_whole(name: str) -> str:
    """Whole SR runs with and without the random crop and the norm after the network they
    were made from, energy score.
    """
    rows = []
    before = tables.measured_results((RECORDED,)).get(
        (name, "wrn", "pretrained", "energy"), (None, None)
    )[1]
    for result in [before] * bool(before) + whole_runs(name):
        network, entry = result["snapshot"], report.entry_of(result, "energy")
        own = network["recipe"] if network.get("loss") else {"padding": "-", "alpha": "-"}
        rows.append(
            [
                f"`{network['name']}`",
                own.get("padding"),
                own.get("alpha"),
                network["recipe"]["epochs"],
                f"{result['id']['error']:.2f}",
                f"{result['id']['mean_l1']:.2f}",
                *fpr_cells(entry),
            ]
        )
    if not rows:
        return NOTHING
    return table(
        "whole run | padding of the crop | alpha | epochs | ID error | mean ‖h‖₁ | "
        f"{' | '.join(map(own_name, entry['sets']))} | average",
        rows,
    )
