"""The project's scripts, run as a user would type them."""

import subprocess
import sys
from pathlib import Path

from utils import runtime, snapshots
from utils.evaluation import report

from .results import Result


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


def evaluate(file: Path, labels: list[str], words: list, place: Path | None = None) -> Result:
    """The result of test.py with these scores and options on a snapshot, written in CIFAR/results
    or another place.
    """
    where = ["--save", place] if place else []
    model = file if place else snapshots.short_name(file)
    run_script(["test.py", "--model", model, "--score", ",".join(labels), *words, *where])
    name, sha256 = report.result_name(file, labels), runtime.sha256_file(file)
    found = map(Result, (place or report.RESULTS).glob(f"{name}*.json"))
    made = [result for result in found if result.sha256 == sha256]
    return max(made, key=lambda result: result.path.stat().st_mtime_ns)
