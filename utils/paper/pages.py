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

from utils import loaders, runtime, snapshots
from utils.evaluation import report
from utils.losses import LOSSES
from utils.scores import SCORES, described_defaults
from utils.training import options, recipes

from . import (
    audited,
    benchmarks,
    harmonised,
    matrix,
    provide,
    questions,
    rendered,
    speed,
    tables,
    workflows,
)
from .markdown import table

FIGURES = runtime.CIFAR / "figures"
# of a data set's tables, studies, figures; that of --audit is called audit alone
KINDS = r"(s\d+_)?table|scores_matrix|sweep_alpha|ablation|densities|bars|roc|sparsity|training_\w+"


def page_files() -> list[Path]:
    """Every page of the project."""
    folders = (".", "CIFAR", "data", "models", "utils/*")
    return [path for at in folders for path in sorted(runtime.ROOT.glob(f"{at}/README.md"))]


def render_scores() -> str:
    """Every score with its formula, needs, defaults and paper."""
    rows = []
    for name, score in SCORES.items():
        paper = f"{score.paper.authors}, {score.paper.venue} ({score.paper.link})"
        needs, defaults = ", ".join(score().needs), described_defaults(score) or None
        rows.append([f"`{name}`", f"`{score.formula}`", needs, defaults, paper])
    return table("`--score` | value (larger = more OOD) | needs | defaults | paper", rows)


def render_losses() -> str:
    """Every loss of tune.py: formula, outliers, hyper-parameters,
    the score of its paper, the paper.
    """
    rows = []
    for name, loss in LOSSES.items():
        defaults = ", ".join(f"{key}={value}" for key, value in loss.defaults.items()) or None
        needs = "yes" if loss.outliers else "no"
        names = [f"`{name}`", loss.title, f"`{loss.formula}`"]
        rows.append([*names, needs, defaults, f"`{loss.score}`", loss.paper])
    return table("`--loss` | method | terms | outliers | defaults | scored with | paper", rows)


def render_options() -> str:
    """Recipe options of the training scripts with every default and its origin."""
    rows = []
    for stage, script in (("pretrain", "baseline.py"), ("tune", "tune.py")):
        parser = options.Parser(prog=script)
        options.add_training(parser, stage)
        for action in parser._actions:
            described = recipes.describe(action.dest, stage).removeprefix("default: ")
            if described:
                rows.append([f"`{action.option_strings[0]}`", script, described])
    return table("option | script | default (origin)", rows)


def render_images() -> str:
    """Every set that data/download.py knows, then those that stand in:
    what it is, its images, where it lies.
    """
    rows = []
    for name, entry in loaders.SOURCES["sets"].items():
        images, path = f"{entry['images']:,}", f"`{entry['layout']}`"
        rows.append([f"`{name}`", entry["title"], images, path, entry["licence"]])
    for name, entry in loaders.STAND_INS["sets"].items():
        what = f"in the place of `{entry['for']}`: {entry['kind']}"
        rows.append([f"`{name}`", what, "yours", f"`ood/{name}.npz`", None])
    return table("name | what | images | path below the data folder | licence", rows)


def render_by_hand() -> str:
    """The sets of other protocols that nothing fetches: where they are, and where they go."""
    return table(
        "name | what | from | path below the data folder | what goes there",
        [
            [f"`{name}`", entry["title"], entry["from"], f"`{entry['layout']}`", entry["what"]]
            for name, entry in loaders.SOURCES["by_hand"].items()
        ],
    )


def render_loop() -> str:
    """The training loop of tune.py, as it stands there:
    the innermost ``for`` around ``backward()`` and the optimiser's step.
    """
    source = (runtime.ROOT / "tune.py").read_text(encoding="utf-8")
    loops = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.For)
        and all(call in ast.unparse(node) for call in (".backward()", ".step()"))
    ]
    loop = max(loops, key=lambda node: node.col_offset)
    lines = source.splitlines()[loop.lineno - 1 : loop.end_lineno]
    return "```python\n" + textwrap.dedent("\n".join(lines)) + "\n```"


BLOCKS = {
    "loop": render_loop,
    "scores": render_scores,
    "losses": render_losses,
    "options": render_options,
    "images": render_images,
    "memory": speed.render_memory,
    "performance": speed.render_performance,
    "step_costs": speed.render_losses,
    "kept_memory": speed.render_kept,
    "peers": speed.render_peers,
    "snapshots": provide.render_snapshots,
    "harmonised": harmonised.render_harmonised,
    "openood": benchmarks.render_openood,
    "by_hand": render_by_hand,
    "workflows": workflows.render_workflows,
    "audit": audited.render_audit,
    "matrix": matrix.render_matrix,
    "imagenet4": benchmarks.render_imagenet4,
    "published": rendered.published_of,
    # of a data set, which stands in the marker
    "questions": questions.render_questions,
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


def render(text: str, folders: tuple[Path, ...] = (tables.RECORDED,)) -> str:
    """A page's text with every block made anew; the papers' tables are of
    the results in ``folders``.
    """

    def block(match: re.Match) -> str:
        name, words = match[2], match[3].split()
        if name not in BLOCKS:
            raise runtime.UserError(
                f"<!-- {name} --> is no block of a page. There is: {', '.join(BLOCKS)}"
            )
        given = [tables.measured_results(folders)] if name == "published" else words
        return f"{match[1]}{BLOCKS[name](*given)}\n{match[4]}"

    return re.sub(r"(<!-- (\w+)((?: \w+)*) -->\n).*?(<!-- /\2 -->)", block, text, flags=re.S)


def render_all(folders: tuple[Path, ...] = (tables.RECORDED,)) -> dict[Path, bytes]:
    """{path: content} of every page, RESULTS.csv and RESULTS.tex."""
    measured = tables.measured_results(folders)
    made = {path: render(path.read_text(encoding="utf-8"), folders) for path in page_files()}
    made[tables.OUTPUT.with_suffix(".csv")] = tables.render_csv(measured)
    made[tables.OUTPUT.with_suffix(".tex")] = tables.render_tex(measured)
    return {path: text.encode() for path, text in made.items()}


def write_published(folders: tuple[Path, ...]) -> list[Path]:
    """Write the papers' tables of the results in ``folders`` and return their paths."""
    made = render_all(folders)
    places = [runtime.CIFAR / "README.md"]
    places += [tables.OUTPUT.with_suffix(suffix) for suffix in (".csv", ".tex")]
    runtime.write_files({path: made[path] for path in places})
    return places


def stale(folders: tuple[Path, ...] = (tables.RECORDED,)) -> dict[Path, bytes]:
    """{path: content} of what ``render_all`` makes otherwise than it is on disk."""
    made = render_all(folders).items()
    return {path: new for path, new in made if not path.exists() or path.read_bytes() != new}


def record(name: str) -> None:
    """Copy the results of a data set's tables, and its figures,
    to the recorded/ folders that git tracks.

    A recorded result goes once a new one of the same stage and name of a run is of another snapshot
    or has its scores; all else stays.
    """
    measured = tables.measured_results((report.RESULTS,))
    measured = {key: found for key, found in measured.items() if key[0] == name}
    paths = {path for _, _, path in measured.values()}
    for path in report.RESULTS.glob(f"{name}_*.json"):
        result = report.read_result(path)
        if harmonised.quality_of(result) is not None or result.get("protocol") == "openood":
            paths.add(path)
    files = [file for path in paths for file in (path, path.with_suffix(".csv"))]
    files += [
        file
        for folder in (report.RESULTS, FIGURES)
        for file in folder.glob(f"{name}*")
        if re.fullmatch(f"{re.escape(name)}(_({KINDS}))?", file.stem)
    ]
    if not files:
        raise runtime.UserError(
            f"there is no result of {name} in {report.RESULTS}. Run: python reproduce.py {name}"
        )
    for file in files:
        runtime.write_bytes(file.parent / "recorded" / file.name, file.read_bytes())
    for old in tables.RECORDED.glob(f"{name}_*.json"):
        if old.name not in {path.name for path in paths} and is_replaced(old, measured):
            old.unlink()
            old.with_suffix(".csv").unlink(missing_ok=True)


def is_replaced(path: Path, measured: dict) -> bool:
    """Whether new results of the same stage and name of a run have all scores of a recorded one, or
    another snapshot.
    """
    old = report.read_result(path)
    if not tables.enters(old):
        return False
    stage, run = tables.stage_of(old["snapshot"]), snapshots.stem_of(old["snapshot"]["name"])
    new = {
        key[3]: result
        for key, (_, result, _) in measured.items()
        if key[:3] == stage and snapshots.stem_of(result["snapshot"]["name"]) == run
    }
    scores = {entry["score"] for entry in old["scores"]}
    return bool(new) and (
        scores <= set(new)
        or next(iter(new.values()))["snapshot"]["sha256"] != old["snapshot"]["sha256"]
    )


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


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    for name in args.record:
        record(name)
    found = stale()
    if args.check and found:
        raise runtime.UserError(
            f"{', '.join(str(runtime.short_path(path)) for path in found)}: stale. Run: "
            "python -m utils.paper.pages"
        )
    runtime.write_files(found)


if __name__ == "__main__":
    sys.exit(runtime.run(main))
