"""The project's scripts, run as a user would type them."""

import argparse
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from utils import runtime, snapshots
from utils.evaluation import report
from utils.training import options


def run_script(command: list) -> None:
    """Print and run a script of the project, [script, word, ...]; SystemExit with its status if it
    fails, its error being on stderr.
    """
    script, *words = map(str, command)
    print(f"\n$ python {' '.join([script, *words])}", flush=True)
    process = subprocess.Popen([sys.executable, "-u", str(runtime.ROOT / script), *words])
    try:
        status = process.wait()
    except KeyboardInterrupt:  # Ctrl-C reached the script too, which says how to go on
        process.wait()
        raise KeyboardInterrupt("The same command goes on with what is there") from None
    if status:
        raise SystemExit(status)


def evaluate(file: Path, score_names: list[str], args: argparse.Namespace) -> tuple[dict, Path]:
    """Run test.py and return (its result, the path of its files without suffix)."""
    words = ["--model", snapshots.short_name(file), "--score", ",".join(score_names)]
    run_script(["test.py", *words, "--save-scores", *options.common_words(args)])
    found = [
        path
        for path in report.RESULTS.glob(f"{report.result_name(file, score_names, 'paper')}*.json")
        if report.read_result(path, True)["snapshot"]["sha256"] == runtime.sha256_file(file)
    ]
    path = newest(found)
    return report.read_result(path), path.with_suffix("")


def newest(files: Iterable[Path]) -> Path | None:
    return max(files, key=lambda path: path.stat().st_mtime_ns, default=None)


def score_apart(file: Path, scores: str, place: Path, words: list) -> dict:
    """The result of test.py with these scores on a snapshot, written to a folder of its own among
    the caches.
    """
    run_script(["test.py", "--model", file, "--score", scores, *words, "--save", place])
    return report.read_result(newest(place.glob("*.json")), True)
