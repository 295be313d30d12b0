"""Render the tables of the pages from the code's records and the recorded results:
``python -m utils.paper.pages``.

A block stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``, or ``<!-- NAME DATASET -->``;
everything between the two is replaced. Runs write to CIFAR/results and CIFAR/figures; the pages
show what ``--record DATASET`` has copied from there to their recorded/ folders, so that a run of
one's own does not change them. (reproduce.py --table renders the papers' tables from both:
CIFAR/README.md, RESULTS.csv and RESULTS.tex.)
"""

import argparse
import ast
import re
import sys
import textwrap
from pathlib import Path

from utils import loaders, runtime
from utils.evaluation import report
from utils.losses import LOSSES
from utils.scores import SCORES, described_defaults
from utils.training import options, recipes

from . import benchmarks, harmonised, matrix, rendered, tables
from .rendered import network_of, table
from .tables import RECORDED

FIGURES = runtime.CIFAR / "figures"
# of a data set's tables, studies, figures
KINDS = r"(s\d+_)?table|scores_matrix|sweep_alpha|ablation|densities|bars|roc|sparsity|training_\w+"


def page_files() -> list[Path]:
    """Every page of the project."""
    folders = (".", "CIFAR", "data", "models", "utils/*")
    return [path for at in folders for path in sorted(runtime.ROOT.glob(f"{at}/README.md"))]


def render_scores() -> str:
    """Every score with its formula, needs, defaults and paper."""
    rows = []
    for name, cls in SCORES.items():
        rows.append(
            [
                f"`{name}`",
                f"`{cls.formula}`",
                ", ".join(cls().needs),
                described_defaults(cls) or "-",
                f"{cls.paper.authors}, {cls.paper.venue} ({cls.paper.link})",
            ]
        )
    return table(["`--score`", "value (larger = more OOD)", "needs", "defaults", "paper"], rows)


def render_losses() -> str:
    """Every loss of tune.py: formula, outliers, hyper-parameters,
    the score of its paper, the paper.
    """
    rows = []
    for name, loss in LOSSES.items():
        defaults = ", ".join(f"{key}={value}" for key, value in loss.defaults.items())
        rows.append(
            [
                f"`{name}`",
                loss.title,
                f"`{loss.formula}`",
                "yes" if loss.outliers else "no",
                defaults or "-",
                f"`{loss.score}`",
                loss.paper,
            ]
        )
    return table(
        ["`--loss`", "method", "terms", "outliers", "defaults", "scored with", "paper"], rows
    )


def render_options() -> str:
    """Recipe options of the training scripts with every default and its origin."""
    rows = []
    for stage, script in (("pretrain", "baseline.py"), ("tune", "tune.py")):
        parser = options.Parser(prog=script)
        options.add_training(parser, stage)
        for action in parser._actions:
            described = recipes.describe(action.dest, stage)
            if described:
                rows.append(
                    [f"`{action.option_strings[0]}`", script, described.removeprefix("default: ")]
                )
    return table(["option", "script", "default (origin)"], rows)


def render_images() -> str:
    """Every set that data/download.py knows, then those that stand in:
    what it is, its images, where it lies.
    """
    sources, rows = loaders.SOURCES["sets"], []
    for name, entry in sources.items():
        rows.append(
            [
                f"`{name}`",
                entry["title"],
                f"{entry['images']:,}",
                f"`{entry['layout']}`",
                entry["licence"],
            ]
        )
    for name, entry in loaders.STAND_INS["sets"].items():
        rows.append(
            [
                f"`{name}`",
                f"in the place of `{entry['for']}`: {entry['kind']}",
                "yours",
                f"`ood/{name}.npz`",
                "-",
            ]
        )
    return table(["name", "what", "images", "path below the data folder", "licence"], rows)


def render_by_hand() -> str:
    """The sets of other protocols that nothing fetches: where they are, and where they go."""
    return table(
        ["name", "what", "from", "path below the data folder", "what goes there"],
        [
            [f"`{name}`", entry["title"], entry["from"], f"`{entry['layout']}`", entry["what"]]
            for name, entry in loaders.SOURCES["by_hand"].items()
        ],
    )


def render_loop() -> str:
    """The training loop of tune.py, as it stands there:
    the innermost ``for`` around ``backward()``.
    """
    source = (runtime.ROOT / "tune.py").read_text(encoding="utf-8")
    loops = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.For)
        and "backward"
        in {
            call.func.attr
            for call in ast.walk(node)
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        }
    ]
    loop = max(loops, key=lambda node: node.col_offset)
    return (
        "```python\n"
        + textwrap.dedent("\n".join(source.splitlines()[loop.lineno - 1 : loop.end_lineno]))
        + "\n```"
    )


def render_memory() -> str:
    """Seconds and peak memory of the scores that keep or pass over all training features."""
    rows, machines = [], []
    for path in sorted(RECORDED.glob("benchmark_scores*.json")):
        recorded = report.read_result(path)
        machine = recorded["machine"]
        machines.append(
            f"`{path.name}`: {machine['device_name']}, {machine['threads']} "
            f"thread{'s' * (machine['threads'] > 1)}, torch {machine['torch']}, "
            f"commit {str(machine['commit'])[:7]}{', with changes' * machine['modified']}"
        )
        for record in recorded["records"]:
            rows.append(
                [
                    f"`{record['score']}`",
                    f"{record['images']:,} x {record['width']:,}",
                    record["features_dtype"],
                    f"{record['queries']:,}",
                    f"{record['fit_s']:.1f}",
                    f"{record['score_s']:.1f}",
                    f"{record['peak_mib'] / 1024:.1f}",
                ]
            )
    return (
        table(
            "score | training images x width | features in | queries | fit, s | score, s | "
            "peak memory of the process, GiB",
            rows,
        )
        + f"\n\n{'; '.join(machines)}."
    )


def render_performance() -> str:
    """``benchmark.json`` row by row; what was recorded on other machines has a line each."""
    paths = sorted(RECORDED.glob("benchmark*.json"))
    records = {
        path.stem: report.read_result(path)
        for path in paths
        if not path.name.startswith("benchmark_scores")
    }
    if not records:
        return rendered.NOTHING
    first = records.pop("benchmark", None)
    parts = [performance_of(first)] if first else []
    if records:
        parts.append(other_machines(records))
    return "\n\n".join(parts)


def other_machines(records: dict[str, dict]) -> str:
    """A line a machine: this project's and OpenVINO's ratios to the first row of each part."""
    lines = {}
    for name, record in records.items():
        machine, accuracy = record["machine"], record["accuracy"]
        lines[name] = cells = {
            "machine": f"`{name}.json`: {machine['device_name']}, {record['precision']}, "
            f"commit {str(machine['commit'])[:7]}"
        }
        for row in record["rows"]:
            what = row["what"].strip()
            if what.startswith(("this project", "OpenVINO")) and not what.endswith("eager"):
                part = row["part"]
                if not part.startswith("inference"):
                    part = part.split(",")[0]
                cells[part if "project" in what else f"{part}, OpenVINO"] = f"{row['ratio']:.2f}"
        if accuracy:
            cells["bf16 moves FPR95 by"] = f"{accuracy['largest']['fpr95']:.2f}"
    columns = list(dict.fromkeys(column for cells in lines.values() for column in cells))
    return table(columns, [[cells.get(c, "") for c in columns] for cells in lines.values()])


def performance_of(record: dict) -> str:
    """The table of one run of ``utils.benchmark`` and what it was measured on."""
    rows = [
        [
            row["part"],
            row["what"].strip(),
            f"{row['rate']:,.0f}",
            f"{row['ratio']:.2f}",
            "-" if row["spread"] is None else f"{row['spread']:.0%}",
            "-" if row["peak_mib"] is None else f"{row['peak_mib']:,.0f}",
        ]
        for row in record["rows"]
    ]
    machine, given, accuracy = record["machine"], record["arguments"], record["accuracy"]
    caption = (
        f"{machine['device_name']}, {machine['threads']} threads, torch {machine['torch']}, commit "
        f"{str(machine['commit'])[:7]}; {network_of(given).upper()}, medians of {given['rounds']} "
        "interleaved rounds (evaluation: one). Per second: images, of the metrics scores. Ratio: "
        "to the first row of the part. Spread: interquartile range over median. Peak: "
        "what the first call adds; of evaluation the largest process."
    )
    for row in record["rows"]:
        if "start_s" in row:
            caption += (
                f" Starting a process takes {row['start_s']:.1f} s of the evaluation's; "
                f"without these starts its ratio is {row['ratio_after_start']:.2f}."
            )
    if accuracy:
        names = ", ".join(dict.fromkeys(row["score"] for row in accuracy["rows"]))
        caption += (
            f"\n\nFrom fp32 to bf16 `{accuracy['snapshot']}` ({names}; {accuracy['id_images']:,} "
            f"ID test images, {len({row['set'] for row in accuracy['rows']})} "
            f"OOD sets) moves by at most {accuracy['largest']['fpr95']:.2f} points of FPR95 and "
            f"{accuracy['largest']['auroc']:.2f} of AUROC."
        )
    return (
        table(["part", "what", "per second", "ratio", "spread", "peak MiB"], rows)
        + "\n\n"
        + caption
    )


BLOCKS = {
    "loop": render_loop,
    "scores": render_scores,
    "losses": render_losses,
    "options": render_options,
    "images": render_images,
    "memory": render_memory,
    "performance": render_performance,
    "snapshots": rendered.render_snapshots,
    "harmonised": harmonised.render_harmonised,
    "openood": benchmarks.render_openood,
    "by_hand": render_by_hand,
    "matrix": matrix.render_matrix,
    "imagenet4": benchmarks.render_imagenet4,
    "published": rendered.published_of,
    # of a data set, which stands in the marker
    "summary": rendered.render_summary,
    "result": rendered.render_result,
    "seeds": rendered.render_seeds,
    "same_score": rendered.render_same_score,
    "every": rendered.render_every,
    "answer": rendered.render_answer,
    "sweep": rendered.render_sweep,
    "ablation": rendered.render_ablation,
    "whole": rendered.render_whole,
}


def render(text: str, folders: tuple[Path, ...] = (RECORDED,)) -> str:
    """A page's text with every block made anew; the papers' tables are of
    the results in ``folders``.
    """

    def block(match):
        name, words = match[2], match[3].split()
        if name not in BLOCKS:
            raise runtime.UserError(
                f"<!-- {name} --> is no block of a page. There is: {', '.join(BLOCKS)}"
            )
        given = [tables.measured_results(folders)] if name == "published" else words
        return f"{match[1]}{BLOCKS[name](*given)}\n{match[4]}"

    return re.sub(r"(<!-- (\w+)((?: \w+)*) -->\n).*?(<!-- /\2 -->)", block, text, flags=re.S)


def render_all(folders: tuple[Path, ...] = (RECORDED,)) -> dict[Path, str]:
    """{path: content} of every page, RESULTS.csv and RESULTS.tex."""
    measured = tables.measured_results(folders)
    made = {path: render(path.read_text(encoding="utf-8"), folders) for path in page_files()}
    return {
        **made,
        tables.OUTPUT.with_suffix(".csv"): tables.render_csv(measured),
        tables.OUTPUT.with_suffix(".tex"): tables.render_tex(measured),
    }


def write_published(folders: tuple[Path, ...]) -> list[Path]:
    """Write the papers' tables of the results in ``folders`` and return their paths."""
    places = (
        runtime.CIFAR / "README.md",
        *(tables.OUTPUT.with_suffix(suffix) for suffix in (".csv", ".tex")),
    )
    made = {path: text.encode() for path, text in render_all(folders).items() if path in places}
    runtime.write_files(made)
    return list(made)


def stale(folders: tuple[Path, ...] = (RECORDED,)) -> dict[Path, str]:
    """{path: content} of what ``render_all`` makes otherwise than it is on disk."""
    return {
        path: text
        for path, text in render_all(folders).items()
        if not path.exists() or path.read_bytes() != text.encode()
    }


def record(name: str) -> None:
    """Copy the results of a data set's tables, and its figures,
    to the recorded/ folders that git tracks.

    A recorded result goes once a new one of the same stage is of another snapshot or has
    its scores; all else stays.
    """
    measured = {
        key: found
        for key, found in tables.measured_results((report.RESULTS,)).items()
        if key[0] == name
    }
    paths = {path for _, _, path in measured.values()} | harmonised.results_of(name)
    paths |= benchmarks.results_of(name)
    files = [file for path in paths for file in (path, path.with_suffix(".csv"))]
    files += [
        file
        for folder in (report.RESULTS, FIGURES)
        for file in folder.glob(f"{name}_*")
        if re.fullmatch(f"{re.escape(name)}_({KINDS})", file.stem)
    ]
    if not files:
        raise runtime.UserError(
            f"there is no result of {name} in {report.RESULTS}. Run: python reproduce.py {name}"
        )
    for file in files:
        runtime.write_bytes(file.parent / "recorded" / file.name, file.read_bytes())
    for old in RECORDED.glob(f"{name}_*.json"):
        result = report.read_result(old)
        if (
            "snapshot" in result
            and tables.enters(result)
            and old.name not in {path.name for path in paths}
        ):
            stage = (name, result["snapshot"]["arch"], result["snapshot"].get("loss", "pretrained"))
            new = {key[3]: found[1] for key, found in measured.items() if key[:3] == stage}
            if new and (
                set(new) >= {entry["score"] for entry in result["scores"]}
                or next(iter(new.values()))["snapshot"]["sha256"] != result["snapshot"]["sha256"]
            ):
                old.unlink()
                old.with_suffix(".csv").unlink(missing_ok=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = options.Parser(prog="python -m utils.paper.pages", description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit status 2 if a page is stale"
    )
    parser.add_argument(
        "--record",
        nargs="+",
        default=[],
        metavar="DATASET",
        help="first copy these data sets' results to recorded/",
    )
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    for name in args.record:
        record(name)
    found = stale()
    if args.check and found:
        raise runtime.UserError(
            f"{', '.join(str(runtime.short_path(path)) for path in found)}: stale. Run: "
            "python -m utils.paper.pages"
        )
    runtime.write_files({path: text.encode() for path, text in found.items()})


if __name__ == "__main__":
    sys.exit(runtime.run(main))
