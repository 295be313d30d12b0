"""Render the tables of README.md from the code's records and the recorded results: ``python -m utils.readme``.

A block stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``; everything between the two is replaced. Runs write to
CIFAR/results and CIFAR/figures; the page shows what ``--record DATASET`` has copied from there to their recorded/ folders, so
that a run of one's own changes neither the page nor any file that git tracks.
"""
import argparse
import re
import sys

from . import options, recipes, results, runtime
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
    return table(["`--loss`", "method", "outliers", "scored with"],
                 [[f"`{name}`", loss.title, "yes" if loss.outliers else "no", f"`{loss.score}`"] for name, loss in LOSSES.items()])


def result_rows(name, folder=None):
    """(title, result entry, result, path) of each method of a data set's table, out of the recorded results."""
    from reproduce import METHODS
    for title, loss, score in METHODS:
        stem = f"{name}_wrn_s1_tune_{loss}" if loss else f"{name}_wrn_pretrained"
        for path in sorted((folder or RECORDED).glob(f"{stem}_*.json")):
            result = results.read_result(path)
            entry = next((entry for entry in result["scores"] if entry["score"] == score), None)
            usual = result["protocol"] == "paper" and not result["arguments"]["ood"] and not result["snapshot"]["name"].endswith("_best")
            if entry and usual:
                yield title, entry, result, path
                break


def record(name):
    """Copy the results of a data set's table, and its figures, to the recorded/ folders that git tracks."""
    paths = {path for _, _, _, path in result_rows(name, results.RESULTS)}
    if not paths:
        raise runtime.UserError(f"there is no result of {name} in {results.RESULTS}. Run: python reproduce.py {name}")
    for old in RECORDED.glob(f"{name}_wrn_*"):
        old.unlink()
    files = [file for path in paths for file in (path, path.with_suffix(".csv"))]
    files += [file for file in (*results.RESULTS.glob(f"{name}_table.csv"), *FIGURES.glob(f"{name}_*"))]
    for file in files:
        runtime.write_bytes(file.parent / "recorded" / file.name, file.read_bytes())


def render_result(name):
    """FPR95 / AUROC of every method on every set, with what the numbers were measured on."""
    rows, last = [], None
    for title, entry, result, _ in result_rows(name):
        cells = [f"{row['fpr95']:.2f} ± {row['sd']['fpr95']:.2f} / {row['auroc']:.2f}" for row in entry["sets"]]
        epochs = result["snapshot"]["recipe"]["epochs"]
        rows.append([title, epochs, f"{result['id']['error']:.2f}", *cells, f"**{entry['average']['fpr95']:.2f} / {entry['average']['auroc']:.2f}**"])
        last = entry, result
    if last is None:
        return "No result file yet."
    entry, result = last
    names = [f"{row['set']} (n {row['n']})" for row in entry["sets"]]
    network = result["snapshot"]
    caption = (f"{network['arch'].upper()}-{network['layers']}-{network['widen_factor']}, {network['train_images']:,} training images, "
               f"{result['id']['images']:,} ID test images, seed {network['seed']}, {result['num_to_avg']} draws of "
               f"{max(row['drawn'] for row in entry['sets']):,} OOD images (or all, where there are fewer). "
               f"FPR95 ± sd over the draws / AUROC in percent, ID positive; epochs = length of the complete schedule of that stage.")
    return table(["method", "epochs", "ID error", *names, "average"], rows) + "\n\n" + caption


def render_memory():
    """Seconds and peak memory of the scores that keep or pass over all training features."""
    rows = []
    for path in sorted(RECORDED.glob("benchmark_scores*.json")):
        for record in results.read_result(path)["records"]:
            rows.append([f"`{record['score']}`", f"{record['images']:,} x {record['width']:,}", record["features_dtype"],
                         f"{record['queries']:,}", f"{record['fit_s']:.1f}", f"{record['score_s']:.1f}", f"{record['peak_mib'] / 1024:.1f}"])
    return table(["score", "training images x width", "features in", "queries", "fit, s", "score, s", "peak memory of the process, GiB"], rows)


BLOCKS = {"memory": render_memory, "scores": render_scores, "options": render_options, "losses": render_losses,
          "digits": lambda: render_result("digits"), "cifar10": lambda: render_result("cifar10")}


def render(text):
    """README text with every block made anew."""
    for name, block in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        if pattern.search(text):
            content = block()
            text = pattern.sub(lambda match, content=content: f"{match[1]}{content}\n{match[2]}", text)
    return text


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m utils.readme", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit status 2 if README.md is stale")
    parser.add_argument("--record", nargs="+", default=[], metavar="DATASET", help="first copy these data sets' results to recorded/")
    args = parser.parse_args(argv)
    for name in args.record:
        record(name)
    text = README.read_text()
    fresh = render(text)
    if args.check and fresh != text:
        raise runtime.UserError("README.md is stale. Run: python -m utils.readme")
    if fresh != text:
        runtime.write_text(README, fresh)


if __name__ == "__main__":
    sys.exit(runtime.run(main))
