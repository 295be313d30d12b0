"""The project's scripts, run as a user would type them."""

import subprocess
import sys
from pathlib import Path

from utils import runtime, snapshots
from utils.evaluation import report


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


def evaluate(
    file: Path, labels: list[str], words: list, place: Path | None = None
) -> tuple[dict, Path]:
    """Run test.py with these scores and options on a snapshot, in CIFAR/results or another place;
    returns (its result, the path of its files without suffix).
    """
    where = ["--save", place] if place else []
    model = file if place else snapshots.short_name(file)
    run_script(["test.py", "--model", model, "--score", ",".join(labels), *words, *where])
    found = [
        path
        for path in (place or report.RESULTS).glob(f"{report.result_name(file, labels)}*.json")
        if report.read_result(path, True)["snapshot"]["sha256"] == runtime.sha256_file(file)
    ]
    path = max(found, key=lambda path: path.stat().st_mtime_ns)
    return report.read_result(path), path.with_suffix("")
