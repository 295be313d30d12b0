"""Render the tables of README.md from the code's records and the recorded results: ``python -m utils.paper.pages``.

A block stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``; everything between the two is replaced. Runs write to
CIFAR/results and CIFAR/figures; the page shows what ``--record DATASET`` has copied from there to their recorded/ folders, so
that a run of one's own does not change the page. (reproduce.py --table writes CIFAR/RESULTS.* anew from both.)
"""
import re
import sys

from utils import runtime
from utils.evaluation import report
from utils.losses import LOSSES
from utils.scores import SCORES
from utils.training import options, recipes

from . import tables
from .rendered import (
    network_of,
    render_ablation,
    render_answer,
    render_every,
    render_result,
    render_same_score,
    render_seeds,
    render_snapshots,
    render_sweep,
    render_whole,
    table,
)
from .tables import RECORDED

README = runtime.ROOT / "README.md"
FIGURES = runtime.CIFAR / "figures"


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


def record(name):
    """Copy the results of a data set's tables, and its figures, to the recorded/ folders that git tracks.

    A recorded result goes once a new one of the same stage is of another snapshot or has its scores; all else stays.
    """
    measured = {key: found for key, found in tables.measured_results((report.RESULTS,)).items() if key[0] == name}
    paths = {path for _, _, path in measured.values()}
    if not paths:
        raise runtime.UserError(f"there is no result of {name} in {report.RESULTS}. Run: python reproduce.py {name}")
    files = [file for path in paths for file in (path, path.with_suffix(".csv"))]
    files += [*report.RESULTS.glob(f"{name}_table.csv"), *report.RESULTS.glob(f"{name}_s*_table.csv"), *report.RESULTS.glob(f"{name}_sweep_alpha.json"),
              *report.RESULTS.glob(f"{name}_ablation.json"), *FIGURES.glob(f"{name}_*")]
    for file in files:
        runtime.write_bytes(file.parent / "recorded" / file.name, file.read_bytes())
    for old in RECORDED.glob(f"{name}_*.json"):
        result = report.read_result(old)
        if "snapshot" in result and tables.enters(result) and old.name not in {path.name for path in paths}:
            stage = (name, result["snapshot"]["arch"], result["snapshot"].get("loss", "pretrained"))
            new = {key[3]: found[1] for key, found in measured.items() if key[:3] == stage}
            if new and (set(new) >= {entry["score"] for entry in result["scores"]}
                        or next(iter(new.values()))["snapshot"]["sha256"] != result["snapshot"]["sha256"]):
                old.unlink()
                old.with_suffix(".csv").unlink(missing_ok=True)


def render_memory():
    """Seconds and peak memory of the scores that keep or pass over all training features."""
    rows, machines = [], []
    for path in sorted(RECORDED.glob("benchmark_scores*.json")):
        recorded = report.read_result(path)
        machine = recorded["machine"]
        machines.append(f"`{path.name}`: {machine['device_name']}, {machine['threads']} thread{'s' * (machine['threads'] > 1)}, torch {machine['torch']}, "
                        f"commit {str(machine['commit'])[:7]}{', with changes' * machine['modified']}")
        for record in recorded["records"]:
            rows.append([f"`{record['score']}`", f"{record['images']:,} x {record['width']:,}", record["features_dtype"],
                         f"{record['queries']:,}", f"{record['fit_s']:.1f}", f"{record['score_s']:.1f}", f"{record['peak_mib'] / 1024:.1f}"])
    return table(["score", "training images x width", "features in", "queries", "fit, s", "score, s", "peak memory of the process, GiB"], rows) + f"\n\n{'; '.join(machines)}."


def render_performance():
    """Every alternative of each machine's recorded benchmark, and what bfloat16 moves there."""
    paths = [path for path in sorted(RECORDED.glob("benchmark*.json")) if not path.name.startswith("benchmark_scores")]
    return "\n\n".join(map(performance_of, map(report.read_result, paths))) or "Not measured yet."


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
          "performance": render_performance, "digits": lambda: render_result("digits"), "digits_seeds": lambda: render_seeds("digits"), "cifar10": lambda: render_result("cifar10"),
          "same_score": render_same_score, "every": render_every, "answer": render_answer, "snapshots": render_snapshots, "sweep": render_sweep,
          "ablation": render_ablation, "whole": render_whole}


def render(text):
    """README text with every block made anew."""
    for name, block in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        if pattern.search(text):
            content = block()
            text = pattern.sub(lambda match, content=content: f"{match[1]}{content}\n{match[2]}", text)
    return text


def main(argv=None):
    parser = options.Parser(prog="python -m utils.paper.pages", description=__doc__)
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
        raise runtime.UserError(f"{', '.join(what)}: stale. Run: python -m utils.paper.pages")
    if stale:
        tables.write((RECORDED,))
    if fresh != text:
        runtime.write_text(README, fresh)


if __name__ == "__main__":
    sys.exit(runtime.run(main))
