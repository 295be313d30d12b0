"""Render the tables of the pages from the code's records and the recorded results:
``python -m utils.paper.pages``.

A block stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``, or ``<!-- NAME DATASET -->``;
everything between the two is replaced. Runs write to CIFAR/results and CIFAR/figures; the pages
show what ``--record DATASET`` has copied from there to their recorded/ folders, so that a run of
one's own does not change them. (reproduce.py --table renders the papers' tables from both:
CIFAR/README.md, RESULTS.csv and RESULTS.tex.)
"""

import argparse
import re
import sys
from pathlib import Path

from utils import runtime, snapshots
from utils.evaluation import report
from utils.training import options

from . import beside, listed, others, provide, questions, rendered, results, speed, studied, tables

FIGURES = runtime.CIFAR / "figures"
# of a data set's tables, studies, figures; that of --audit is called audit alone
KINDS = r"(s\d+_)?table|scores_matrix|sweep_alpha|ablation|densities|bars|roc|sparsity|training_\w+"


def page_files() -> list[Path]:
    """Every page of the project."""
    folders = (".", "CIFAR", "data", "models", "utils/*")
    return [path for at in folders for path in sorted(runtime.ROOT.glob(f"{at}/README.md"))]


BLOCKS = {
    "loop": listed.render_loop,
    "scores": listed.render_scores,
    "losses": listed.render_losses,
    "options": listed.render_options,
    "images": listed.render_images,
    "memory": speed.render_memory,
    "performance": speed.render_performance,
    "step_costs": speed.render_losses,
    "kept_memory": speed.render_kept,
    "processes": speed.render_processes,
    "peers": speed.render_peers,
    "streaming": speed.render_streaming,
    "snapshots": provide.render_snapshots,
    "harmonised": others.render_harmonised,
    "openood": others.render_openood,
    "by_hand": listed.render_by_hand,
    "workflows": listed.render_workflows,
    "audit": results.block_of("audit", studied.render_audit),
    "matrix": results.block_of("{}_scores_matrix", studied.render_matrix),
    "imagenet4": others.render_imagenet4,
    "published": tables.render_markdown,
    # of a data set, which stands in the marker
    "questions": questions.render_questions,
    "summary": rendered.render_summary,
    "result": rendered.render_result,
    "seeds": rendered.render_seeds,
    "same_score": rendered.render_same_score,
    "every": rendered.render_every,
    "answer": rendered.render_answer,
    "sweep": results.block_of("{}_sweep_alpha", studied.render_sweep),
    "ablation": results.block_of("{}_ablation", studied.render_ablation),
    "whole": rendered.render_whole,
    "beside": beside.render_beside,
}


def render(text: str, folders: tuple[Path, ...] = (results.RECORDED,)) -> str:
    """A page's text with every block made anew; the papers' tables are of
    the results in ``folders``.
    """

    def block(match: re.Match) -> str:
        name, words = match[2], match[3].split()
        if name not in BLOCKS:
            raise runtime.UserError(
                f"<!-- {name} --> is no block of a page. There is: {', '.join(BLOCKS)}"
            )
        given = [results.measured_results(folders)] if name == "published" else words
        return f"{match[1]}{BLOCKS[name](*given)}\n{match[4]}"

    return re.sub(r"(<!-- (\w+)((?: \w+)*) -->\n).*?(<!-- /\2 -->)", block, text, flags=re.S)


def render_all(folders: tuple[Path, ...] = (results.RECORDED,)) -> dict[Path, bytes]:
    """{path: content} of every page, RESULTS.csv and RESULTS.tex."""
    measured = results.measured_results(folders)
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


def stale(folders: tuple[Path, ...] = (results.RECORDED,)) -> dict[Path, bytes]:
    """{path: content} of what ``render_all`` makes otherwise than it is on disk."""
    made = render_all(folders).items()
    return {path: new for path, new in made if not path.exists() or path.read_bytes() != new}


def record(name: str) -> None:
    """Copy the results of a data set's tables, and its figures,
    to the recorded/ folders that git tracks.

    A recorded result goes once a new one of the same stage and name of a run is of another snapshot
    or has its scores; all else stays.
    """
    measured = results.measured_results((report.RESULTS,))
    measured = {key: found for key, found in measured.items() if key[0] == name}
    paths = {result.path for _, result in measured.values()}
    for path in report.RESULTS.glob(f"{name}_*.json"):
        result = results.Result(path)
        other = report.is_of_scores(result) and (
            others.quality_of(result) is not None or result["protocol"] == "openood"
        )
        if other:
            paths.add(path)
    files = [file for path in paths for file in (path, path.with_suffix(".csv"))]
    kinds = re.compile(f"{re.escape(name)}(_({KINDS}))?")
    for folder in (report.RESULTS, FIGURES):
        files += [file for file in folder.glob(f"{name}*") if kinds.fullmatch(file.stem)]
    if not files:
        raise runtime.UserError(
            f"there is no result of {name} in {report.RESULTS}. Run: python reproduce.py {name}"
        )
    for file in files:
        runtime.write_bytes(file.parent / "recorded" / file.name, file.read_bytes())
    for old in results.RECORDED.glob(f"{name}_*.json"):
        if old.name not in {path.name for path in paths} and is_replaced(old, measured):
            old.unlink()
            old.with_suffix(".csv").unlink(missing_ok=True)


def is_replaced(path: Path, measured: dict) -> bool:
    """Whether new results of the same stage and name of a run have all scores of a recorded one, or
    another snapshot.
    """
    old = results.Result(path)
    if not results.enters(old):
        return False
    run = snapshots.stem_of(old.name)
    new = [result for _, result in measured.values() if result.of == old.of]
    new = [result for result in new if snapshots.stem_of(result.name) == run]
    scores = {entry["score"] for result in new for entry in result["scores"]}
    covered = all(entry["score"] in scores for entry in old["scores"])
    return bool(new) and (covered or new[0].sha256 != old.sha256)


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
