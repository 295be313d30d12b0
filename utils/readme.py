"""Render the tables of README.md from the code's records and the recorded results: ``python -m utils.readme``.

A block stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``; everything between the two is replaced. Runs write to
CIFAR/results and CIFAR/figures; the page shows what ``--record DATASET`` has copied from there to their recorded/ folders, so
that a run of one's own does not change the page. (reproduce.py --table writes CIFAR/RESULTS.* anew from both.)
"""
import re
import sys
from pathlib import Path

from . import options, provide, recipes, results, runtime, tables
from .losses import LOSSES
from .scores import SCORES

README = runtime.ROOT / "README.md"
RECORDED = results.RESULTS / "recorded"
FIGURES = runtime.CIFAR / "figures"


def table(header, rows):
    """A Markdown table; the cells' pipes are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def render_scores():
    """Every score with its formula, needs, defaults and paper."""
    rows = []
    for name, cls in SCORES.items():
        defaults = ", ".join(f"{key}={value}" for key, value in cls.defaults.items())
        rows.append([f"`{name}`", f"`{cls.formula}`", ", ".join(cls().needs), defaults or "-",
                     f"{cls.paper.authors}, {cls.paper.venue} ({cls.paper.link})"])
    return table(["`--score`", "value (larger = more OOD)", "needs", "defaults", "paper"], rows)


def render_options():
    """Recipe options of the training scripts with every default and its origin."""
    rows = []
    for stage, script in (("pretrain", "baseline.py"), ("tune", "tune.py")):
        parser = options.Parser(prog=script)
        options.add_training(parser, stage)
        if stage == "tune":
            options.add_tuning(parser)
        for action in parser._actions:
            described = recipes.describe(action.dest, stage)
            if described:
                rows.append([f"`{action.option_strings[0]}`", script, described.removeprefix("default: ")])
    return table(["option", "script", "default (origin)"], rows)


def render_losses():
    """Every loss of tune.py."""
    return table(["`--loss`", "method", "outliers", "scored with"],
                 [[f"`{name}`", loss.title, "yes" if loss.outliers else "no", f"`{loss.score}`"] for name, loss in LOSSES.items()])


def result_rows(name, folder=RECORDED):
    """(title, result entry, result, path) of each method of a data set's table, out of the recorded results."""
    from reproduce import METHODS, TABLE_METHODS
    measured = tables.measured_results((folder,))
    for title, loss, score in TABLE_METHODS if name.startswith("cifar") else METHODS:
        key = (name, "wrn", loss or "pretrained", score)
        if key in measured:
            yield title, *measured[key]


def record(name):
    """Copy the results of a data set's tables, and its figures, to the recorded/ folders that git tracks.

    A recorded result goes once a new one of the same stage is of another snapshot or has its scores; all else stays.
    """
    measured = {key: found for key, found in tables.measured_results((results.RESULTS,)).items() if key[0] == name}
    paths = {path for _, _, path in measured.values()}
    if not paths:
        raise runtime.UserError(f"there is no result of {name} in {results.RESULTS}. Run: python reproduce.py {name}")
    files = [file for path in paths for file in (path, path.with_suffix(".csv"))]
    files += [*results.RESULTS.glob(f"{name}_table.csv"), *results.RESULTS.glob(f"{name}_sweep_alpha.json"),
              *results.RESULTS.glob(f"{name}_ablation.json"), *FIGURES.glob(f"{name}_*")]
    for file in files:
        runtime.write_bytes(file.parent / "recorded" / file.name, file.read_bytes())
    for old in RECORDED.glob(f"{name}_*.json"):
        result = results.read_result(old)
        if "snapshot" in result and old.name not in {path.name for path in paths}:
            stage = (name, result["snapshot"]["arch"], result["snapshot"].get("loss", "pretrained"))
            new = {key[3]: found[1] for key, found in measured.items() if key[:3] == stage}
            if new and (set(new) >= {entry["score"] for entry in result["scores"]}
                        or next(iter(new.values()))["snapshot"]["sha256"] != result["snapshot"]["sha256"]):
                old.unlink()
                old.with_suffix(".csv").unlink(missing_ok=True)


def render_result(name):
    """FPR95 / AUROC of every method on every set, with what the numbers were measured on."""
    rows, last = [], None
    for title, entry, result, _ in result_rows(name):
        cells = [f"{with_sd(row, 'fpr95')} / {row['auroc']:.2f}" for row in entry["sets"]]
        epochs = result["snapshot"]["recipe"]["epochs"]
        rows.append([title, epochs, f"{result['id']['error']:.2f}", *cells, f"**{entry['average']['fpr95']:.2f} / {entry['average']['auroc']:.2f}**"])
        last = entry, result
    if last is None:
        return "No result file yet."
    entry, result = last
    sets = {tuple((row["set"], row["n"]) for row in entry["sets"]) for _, entry, *_ in result_rows(name)}
    if len(sets) > 1:
        raise runtime.UserError(f"the recorded results of {name} are of different OOD images. Run: python reproduce.py {name}"
                                f"{' --table all' * name.startswith('cifar')}, then: python -m utils.readme --record {name}")
    names = [f"{tables.own_name(row)} (n {row['n']})" for row in entry["sets"]]
    network = result["snapshot"]
    caption = (f"{network_of(network).upper()}, {network['train_images']:,} training images, "
               f"{result['id']['images']:,} ID test images, seed {network['seed']}, {result['num_to_avg']} draws of "
               f"{max(row['drawn'] for row in entry['sets']):,} OOD images (or all, where there are fewer). "
               f"FPR95 ± sd over the draws (none where all images are one draw) / AUROC in percent, ID positive; epochs = length of the complete schedule of that stage.")
    return table(["method", "epochs", "ID error", *names, "average"], rows) + "\n\n" + caption


def with_sd(row, metric):
    """A metric of a row, with its standard deviation over the draws where there are several, as text."""
    return f"{row[metric]:.2f}" + (f" ± {row['sd'][metric]:.2f}" if row.get("draws", 1) > 1 else "")


def render_every(name="cifar10"):
    """Every score on the pre-trained network, where the recorded results have more than the tables ask for."""
    measured = tables.measured_results((RECORDED,))
    found = [(score, *measured[name, "wrn", "pretrained", score]) for score in SCORES if (name, "wrn", "pretrained", score) in measured]
    if len(found) < len(SCORES) / 2:
        return "Not measured yet."
    rows = [[f"`{score}`", *(f"{cell['fpr95']:.2f} / {cell['auroc']:.2f}" for cell in [*entry["sets"], entry["average"]])] for score, entry, *_ in found]
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
    entries = results.read_result(provide.MANIFEST)["snapshots"]
    rows = [[f"`{Path(e['file']).parent.name}/{Path(e['file']).stem}`", e["dataset"], network_of(e), e["loss"] or "cross-entropy",
             outliers_of(e), e["epochs"], e["seed"], f"{e['id_accuracy']:.2f}", stored_as(e), f"{e['bytes'] / 1e6:.1f}"] for e in entries]
    return table(["snapshot", "ID", "network", "loss", "outliers", "epochs", "seed", "ID accuracy, %", "stored as", "MB"], rows)


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
    record = results.read_result(path)
    rows = [[f"{row['alpha']:g}" + (" **(recommended)**" if row["alpha"] == record["recommended"] else ""), f"{row['accuracy']:.2f}", f"{row['mean_l1']:.3f}",
             *(f"{cell['fpr95']:.2f} / {cell['auroc']:.2f}" for cell in [*row["sets"], row])] for row in record["rows"]]
    noises = [noise["name"] for noise in record["ood"]]
    return table(["alpha", "accuracy, held-out ID", "mean ‖h‖₁", *noises, "mean of the noises"], rows) + (
        f"\n\nFPR95 / AUROC in percent. From `{record['parent_name']}`, {record['images']:,} training images, {record['epochs']} epochs (a complete schedule), seed "
        f"{record['seed']}, {record['precision']}; {record['id']['images']:,} held-out training images against as many of each noise. Rule: {record['rule']}."
        f"\n\n![Accuracy, mean L1 norm, validation FPR95 and AUROC against alpha](CIFAR/figures/recorded/{name}_sweep_alpha.png)")


def render_ablation(name="cifar10"):
    """SR's fine-tuning with one thing changed at a time, against the network it starts from."""
    path = RECORDED / f"{name}_ablation.json"
    if not path.exists():
        return "Not measured yet."
    record = results.read_result(path)
    first = record["rows"][0]
    rows = [[row["name"], f"{row['error']:.2f}", f"{row['mean_l1']:.2f}", *(with_sd(cell, "fpr95") for cell in row["sets"]),
             f"{row['average']['fpr95']:.2f} / {row['average']['auroc']:.2f}"] for row in record["rows"]]
    return table(["fine-tuning", "ID error", "mean ‖h‖₁", *(tables.own_name(cell) for cell in first["sets"]), "average"], rows) + (
        f"\n\nFrom `{record['parent_name']}`, {record['images']:,} training images, {record['epochs']} epochs (a complete schedule), seed {record['seed']}, "
        f"{record['precision']}; energy score, {record['id']['images']:,} ID test images, {record['num_to_avg']} draws. FPR95 ± sd over the draws; average: FPR95 / AUROC, in percent.")


def render_memory():
    """Seconds and peak memory of the scores that keep or pass over all training features."""
    rows = []
    for path in sorted(RECORDED.glob("benchmark_scores*.json")):
        for record in results.read_result(path)["records"]:
            rows.append([f"`{record['score']}`", f"{record['images']:,} x {record['width']:,}", record["features_dtype"],
                         f"{record['queries']:,}", f"{record['fit_s']:.1f}", f"{record['score_s']:.1f}", f"{record['peak_mib'] / 1024:.1f}"])
    return table(["score", "training images x width", "features in", "queries", "fit, s", "score, s", "peak memory of the process, GiB"], rows)


def render_performance():
    """Every alternative of each machine's recorded benchmark, and what bfloat16 moves there."""
    paths = [path for path in sorted(RECORDED.glob("benchmark*.json")) if not path.name.startswith("benchmark_scores")]
    return "\n\n".join(map(performance_of, map(results.read_result, paths))) or "Not measured yet."


def performance_of(record):
    """The table of one run of ``utils.benchmark`` and what it was measured on."""
    rows = [[row["part"], row["what"].strip(), f"{row['rate']:,.0f}", f"{row['ratio']:.2f}",
             "-" if row["spread"] is None else f"{row['spread']:.0%}", "-" if row["peak_mib"] is None else f"{row['peak_mib']:,.0f}"]
            for row in record["rows"]]
    machine, given, accuracy = record["machine"], record["arguments"], record["accuracy"]
    caption = (f"{machine['device_name']}, {machine['threads']} threads, torch {machine['torch']}, commit {str(machine['commit'])[:7]}; {network_of(given).upper()}, "
               f"medians of {given['rounds']} interleaved rounds (evaluation: one). Per second: images, of the metrics scores. Ratio: to "
               "the first row of the part. Spread: interquartile range over median. Peak: what the first call adds; of evaluation the "
               "largest process.")
    for row in record["rows"]:
        if "start_s" in row:
            caption += f" Starting a process takes {row['start_s']:.1f} s of the evaluation's; without these starts its ratio is {row['ratio_after_start']:.2f}."
    if accuracy:
        names = ", ".join(dict.fromkeys(row["score"] for row in accuracy["rows"]))
        caption += (f"\n\nFrom fp32 to bf16 `{accuracy['snapshot']}` ({names}; {accuracy['id_images']:,} ID test images, "
                    f"{len({row['set'] for row in accuracy['rows']})} OOD sets) moves by at most {accuracy['largest']['fpr95']:.2f} points "
                    f"of FPR95 and {accuracy['largest']['auroc']:.2f} of AUROC.")
    return table(["part", "what", "per second", "ratio", "spread", "peak MiB"], rows) + "\n\n" + caption


BLOCKS = {"memory": render_memory, "scores": render_scores, "options": render_options, "losses": render_losses,
          "performance": render_performance, "digits": lambda: render_result("digits"), "cifar10": lambda: render_result("cifar10"),
          "every": render_every, "answer": render_answer, "snapshots": render_snapshots, "sweep": render_sweep,
          "ablation": render_ablation}


def render(text):
    """README text with every block made anew."""
    for name, block in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        if pattern.search(text):
            content = block()
            text = pattern.sub(lambda match, content=content: f"{match[1]}{content}\n{match[2]}", text)
    return text


def main(argv=None):
    parser = options.Parser(prog="python -m utils.readme", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 2 if README.md is stale")
    parser.add_argument("--record", nargs="+", default=[], metavar="DATASET", help="first copy these data sets' results to recorded/")
    args = parser.parse_args(argv)
    for name in args.record:
        record(name)
    text = README.read_text()
    fresh = render(text)
    stale = [path for path, content in tables.render((RECORDED,)).items() if not path.exists() or path.read_bytes() != content]
    if args.check and (fresh != text or stale):
        what = ["README.md"] * (fresh != text) + [str(runtime.short_path(path)) for path in stale]
        raise runtime.UserError(f"{', '.join(what)}: stale. Run: python -m utils.readme")
    if stale:
        tables.write((RECORDED,))
    if fresh != text:
        runtime.write_text(README, fresh)


if __name__ == "__main__":
    sys.exit(runtime.run(main))
