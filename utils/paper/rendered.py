"""The pages' tables of measured detectors, out of the recorded results."""
import csv
import statistics
from pathlib import Path

from utils import runtime, snapshots
from utils.evaluation import report
from utils.losses import LOSSES
from utils.scores import SCORES

from . import provide, tables
from .methods import METHODS, TABLE_METHODS
from .tables import RECORDED


def table(header, rows):
    """A Markdown table; the cells' pipes are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def result_rows(name, folder=RECORDED):
    """(title, result entry, result, path) of each method of a data set's table, out of the recorded results."""
    measured = tables.measured_results((folder,))
    for title, loss, score in TABLE_METHODS if name.startswith("cifar") else METHODS:
        key = (name, "wrn", loss or "pretrained", score)
        if key in measured:
            yield title, *measured[key]


def render_result(name):
    """FPR95 / AUROC of every method on every set, with what the numbers were measured on."""
    rows, last, printed = [], None, published_averages(name)
    for title, entry, result, _ in result_rows(name):
        cells = [f"{with_sd(row, 'fpr95')} / {row['auroc']:.2f}" for row in entry["sets"]]
        epochs = result["snapshot"]["recipe"]["epochs"]
        key = (result["snapshot"].get("loss", "pretrained"), entry["score"])
        rows.append([title, epochs, f"{result['id']['error']:.2f}", *cells, f"**{entry['average']['fpr95']:.2f} / {entry['average']['auroc']:.2f}**",
                     *([printed.get(key, "-")] if printed else [])])
        last = entry, result
    if last is None:
        return "No result file yet."
    entry, result = last
    sets = {tuple((row["set"], row["n"]) for row in entry["sets"]) for _, entry, *_ in result_rows(name)}
    if len(sets) > 1:
        raise runtime.UserError(f"the recorded results of {name} are of different OOD images. Run: python reproduce.py {name}"
                                f"{' --table all' * name.startswith('cifar')}, then: python -m utils.paper.pages --record {name}")
    names = [f"{tables.own_name(row)} (n {row['n']})" for row in entry["sets"]]
    network = result["snapshot"]
    caption = (f"{network_of(network).upper()}, {network['train_images']:,} training images, "
               f"{result['id']['images']:,} ID test images, seed {network['seed']}, {result['num_to_avg']} draws of "
               f"{max(row['drawn'] for row in entry['sets']):,} OOD images (or all, where there are fewer). "
               f"FPR95 ± sd over the draws (none where all images are one draw) / AUROC in percent, ID positive; epochs = length of the complete schedule of that stage.")
    return table(["method", "epochs", "ID error", *names, "average", *(["average, published (the papers' sets)"] if printed else [])], rows) + "\n\n" + caption


def render_seeds(name):
    """Mean and standard deviation over training seeds of each method's averages, out of the recorded tables."""
    files = sorted([*RECORDED.glob(f"{name}_table.csv"), *RECORDED.glob(f"{name}_s*_table.csv")])
    found = {}
    for file in files:
        with file.open(newline="") as lines:
            for row in csv.DictReader(lines):
                if row["set"] == "average":
                    found.setdefault(row["method"], []).append([float(row[key]) for key in ("fpr95", "auroc", "id_error")])
    if len(files) < 2:
        return "Not measured yet."
    rows = [[method, *(f"{statistics.mean(column):.2f} ± {statistics.stdev(column):.2f}" for column in zip(*values))] for method, values in found.items()]
    return table(["method", "FPR95, average", "AUROC, average", "ID error"], rows) + f"\n\nMean ± sd over {len(files)} training seeds, percent."


def published_averages(name):
    """{(stage, score): the papers' mean FPR95 / AUROC over their own six sets as text}: [SRF]'s where it has them, else [Energy]'s."""
    found = {}
    for source in ("srf1", "energy"):
        for (_, network, score, stage), sets in tables.published_rows(tables.TABLES[source], name).items():
            if network == "wrn" and {"fpr95", "auroc"} <= set(sets.get("average", {})):
                cells = [sets["average"][metric] for metric in ("fpr95", "auroc")]
                found.setdefault((stage, score), " / ".join(
                    f"{cell['value']:.2f}" + " [misprint]" * (cell.get("flag", {}).get("kind") == "misprint") for cell in cells))
    return found


def render_same_score(name="cifar10"):
    """MSP and energy on every network of the table, with what tells the networks apart: losses compared at one score."""
    measured, rows = tables.measured_results((RECORDED,)), []
    for title, loss in (("pre-trained", "pretrained"), *((loss.title, key) for key, loss in LOSSES.items())):
        both = [measured.get((name, "wrn", loss, score)) for score in ("msp", "energy")]
        if all(both):
            result = both[0][1]
            rows.append([title, f"{result['id']['error']:.2f}", f"{result['id']['mean_l1']:.2f}",
                         *(f"{entry['average']['fpr95']:.2f} / {entry['average']['auroc']:.2f}" for entry, *_ in both)])
    return table(["network", "ID error", "mean ‖h‖₁", "`msp`, average", "`energy`, average"], rows) if rows else "Not measured yet."


def with_sd(row, metric):
    """A metric of a row, with its standard deviation over the draws where there are several, as text."""
    return f"{row[metric]:.2f}" + (f" ± {row['sd'][metric]:.2f}" if row.get("draws", 1) > 1 else "")


def render_every(name="cifar10"):
    """Every score on the pre-trained network, where the recorded results have more than the tables ask for."""
    measured = {key[3]: found for key, found in tables.measured_results((RECORDED,)).items() if key[:3] == (name, "wrn", "pretrained")}
    if len(measured) < len(SCORES) / 2:
        return "Not measured yet."
    found = [(label, *measured[label]) for label in sorted(measured, key=lambda label: (list(SCORES).index(label.split(":")[0]), label))]
    rows = [[f"`{label}`", *(f"{cell['fpr95']:.2f} / {cell['auroc']:.2f}" for cell in [*entry["sets"], entry["average"]])] for label, entry, *_ in found]
    result = found[0][2]
    return table(["`--score`", *(tables.own_name(cell) for cell in found[0][1]["sets"]), "average"], rows) + (
        f"\n\nFPR95 / AUROC in percent on `{result['snapshot']['name']}`, {result['num_to_avg']} draws; hyper-parameters are the defaults of the table of scores.")


def render_answer(name="cifar10"):
    """Energy score before and after SR, set by set: does SR lower FPR95 at equal ID accuracy?

    The standard error is the binomial one of n OOD images before and after, as if these were other images, which overstates it.
    """
    rows = {title: (entry, result) for title, entry, result, _ in result_rows(name)}
    if not {"Energy", "SR"} <= set(rows):
        return "Not measured yet."
    (before, first), (after, second) = rows["Energy"], rows["SR"]
    if [row["set"] for row in before["sets"]] != [row["set"] for row in after["sets"]] or second["snapshot"].get("parent_sha256") != first["snapshot"]["sha256"]:
        return "Not measured yet: the recorded results before and after SR are not of one network and the same sets."
    lines = []
    later = {row["set"]: row for row in [*after["sets"], after["average"]]}
    for old in [*before["sets"], before["average"]]:
        new = later[old["set"]]
        lines.append([tables.own_name(old) if "n" in old else "average", with_sd(old, "fpr95"), with_sd(new, "fpr95"), f"{new['fpr95'] - old['fpr95']:+.2f}",
                      f"{standard_error(old, new):.2f}" if "n" in old else "", with_sd(old, "auroc"), with_sd(new, "auroc"), f"{new['auroc'] - old['auroc']:+.2f}"])
    lower = [old for old in before["sets"] if later[old["set"]]["fpr95"] < old["fpr95"]]
    clear = [old for old in lower if old["fpr95"] - later[old["set"]]["fpr95"] > 2 * standard_error(old, later[old["set"]])]
    return table(["OOD set", "FPR95, energy", "FPR95, SR", "difference", "standard error", "AUROC, energy", "AUROC, SR", "difference"], lines) + (
        f"\n\nFPR95 is lower after SR on {len(lower)} of {len(before['sets'])} sets, on {len(clear)} of them by more than two standard errors; ID error {first['id']['error']:.2f} % before, "
        f"{second['id']['error']:.2f} % after; mean ‖h‖₁ of the ID test images {first['id']['mean_l1']:.2f} before, {second['id']['mean_l1']:.2f} after. "
        "± is the sd over the draws, of which a set with no more images than one draw takes has none; the standard error of the FPR95's difference is "
        "that of the number of OOD images, binomial, at the threshold of these ID images.")


def standard_error(before, after):
    """Standard error in percent of the difference of two FPR95 on a set's n OOD images."""
    return sum(row["fpr95"] * (100 - row["fpr95"]) / row["n"] for row in (before, after)) ** 0.5


def render_snapshots():
    """The provided snapshots of manifest.json."""
    if not provide.MANIFEST.exists():
        return "None yet."
    entries = report.read_result(provide.MANIFEST)["snapshots"]
    rows = [[f"`{Path(e['file']).parent.name}/{Path(e['file']).stem}`", e["dataset"], network_of(e), e["loss"] or "cross-entropy",
             outliers_of(e), e["epochs"], seconds_of(e), e["seed"], f"{e['id_accuracy']:.2f}", stored_as(e), f"{e['bytes'] / 1e6:.1f}"] for e in entries]
    return table(["snapshot", "ID", "network", "loss", "outliers", "epochs", "s an epoch", "seed", "ID accuracy, %", "stored as", "MB"], rows)


def seconds_of(entry):
    """Median seconds of an epoch, from the log beside a provided snapshot."""
    file = provide.MANIFEST.parent / entry["file"]
    log = file.with_name(f"{snapshots.stem_of(file)}_training_results.csv")
    if not log.exists():
        return "-"
    with log.open(newline="") as lines:
        return f"{statistics.median(float(row['time(s)']) for row in csv.DictReader(lines)):,.0f}"


def stored_as(entry):
    """The type of a provided snapshot's weights, and how far float16 moved a metric where it was tried."""
    moved = entry.get("float16_moves")
    return entry["weights"] + (" (float16 not tried)" if moved is None else f" (float16 moves a metric by {moved:.2g})")


def network_of(entry):
    """The network's name, a WRN's with depth and width."""
    return f"{entry['arch']}-{entry['layers']}-{entry['widen_factor']}" if entry["arch"] == "wrn" else entry["arch"]


def outliers_of(entry):
    """Name and number of the auxiliary outliers that a snapshot was fine-tuned with, or a dash."""
    outliers = entry.get("outliers")
    return f"{outliers['name']} ({outliers['images']:,})" if outliers else "-"


def render_sweep(name="cifar10"):
    """SR's alpha on held-out training images and generated noise."""
    path = RECORDED / f"{name}_sweep_alpha.json"
    if not path.exists():
        return "Not measured yet."
    record = report.read_result(path)
    rows = [[f"{row['alpha']:g}" + (" **(recommended)**" if row["alpha"] == record["recommended"] else ""), f"{row['accuracy']:.2f}", f"{row['mean_l1']:.3f}",
             *(f"{cell['fpr95']:.2f} / {cell['auroc']:.2f}" for cell in [*row["sets"], row])] for row in record["rows"]]
    noises = [noise["name"] for noise in record["ood"]]
    return table(["alpha", "accuracy, held-out ID", "mean ‖h‖₁", *noises, "mean of the noises"], rows) + (
        f"\n\nFPR95 / AUROC in percent. From `{record['parent_name']}`, {record['images']:,} training images, {record['epochs']} epochs (a complete schedule), seed "
        f"{record['seed']}, {record['precision']}; {record['id']['images']:,} held-out training images against as many of each noise. Rule: {record['rule']}."
        f"\n\n![Accuracy, mean L1 norm, validation FPR95 and AUROC against alpha](CIFAR/figures/recorded/{name}_sweep_alpha.png)")


def render_whole(name="cifar10"):
    """Whole SR runs with and without the random crop and the norm, energy score, out of the recorded results."""
    rows = []
    runs = [report.read_result(path) for path in RECORDED.glob(f"{name}_wrn_s1_tune_sr_*.json")]
    for result in sorted(runs, key=lambda result: [result["snapshot"]["recipe"][key] for key in ("padding", "alpha", "epochs")]):
        recipe = result["snapshot"]["recipe"]
        entry = next(entry for entry in result["scores"] if entry["score"] == "energy")
        rows.append([f"`{result['snapshot']['name']}`", recipe["padding"], recipe["alpha"], recipe["epochs"], f"{result['id']['error']:.2f}", f"{result['id']['mean_l1']:.2f}",
                     *(with_sd(cell, "fpr95") for cell in entry["sets"]), f"{entry['average']['fpr95']:.2f} / {entry['average']['auroc']:.2f}"])
    if not rows:
        return "Not measured yet."
    return table(["whole run of SR", "padding of the crop", "alpha", "epochs", "ID error", "mean ‖h‖₁", *(tables.own_name(cell) for cell in entry["sets"]), "average"], rows)


def render_ablation(name="cifar10"):
    """SR's fine-tuning with one thing changed at a time, against the network it starts from."""
    path = RECORDED / f"{name}_ablation.json"
    if not path.exists():
        return "Not measured yet."
    record = report.read_result(path)
    first = record["rows"][0]
    rows = [[row["name"], f"{row['error']:.2f}", f"{row['mean_l1']:.2f}", *(with_sd(cell, "fpr95") for cell in row["sets"]),
             f"{row['average']['fpr95']:.2f} / {row['average']['auroc']:.2f}"] for row in record["rows"]]
    return table(["fine-tuning", "ID error", "mean ‖h‖₁", *(tables.own_name(cell) for cell in first["sets"]), "average"], rows) + (
        f"\n\nFrom `{record['parent_name']}`, {record['images']:,} training images, {record['epochs']} epochs (a complete schedule; whole runs: as named), seed {record['seed']}, "
        f"{record['precision']}; energy score, {record['id']['images']:,} ID test images, {record['num_to_avg']} draws. FPR95 ± sd over the draws; average: FPR95 / AUROC, in percent.")
