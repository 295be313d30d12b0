"""Commands, and functions of this package, in processes of their own, whose peak memory is theirs.

``python -m utils.benchmark.apart MODULE:FUNCTION '[ARGUMENT, ...]' [--keep]`` is such a function:
its arguments come as JSON, and what it returns is printed as JSON.
"""

import importlib
import json
import os
import subprocess
import sys
import time
from typing import Any

from utils import runtime

# A process started by this one would have this one's size in its peak memory, which outlives exec;
# a small one lies between.
LAUNCH = """import os, sys
pid = os.posix_spawn(sys.executable, sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
print(usage.ru_maxrss, file=sys.stderr)
sys.exit(min(abs(os.waitstatus_to_exitcode(status)), 255))"""
KEEP = "--keep"  # freed memory (``runtime.keep_freed_memory``); else malloc is as it comes


def run_apart(command: list, **environment: str) -> tuple[str, float, float]:
    """(what it printed, seconds, peak memory in MiB) of a command of Python in a process of its own;
    UserError with its last line where it fails.
    """
    start = time.perf_counter()
    command = [sys.executable, "-S", "-c", LAUNCH, sys.executable, *map(str, command)]
    given = {"cwd": runtime.ROOT, "env": {**os.environ, **environment}}
    child = subprocess.run(command, check=False, capture_output=True, text=True, **given)
    seconds, messages = time.perf_counter() - start, child.stderr.strip().splitlines()
    if child.returncode:
        raise runtime.UserError(
            f"{' '.join(command[5:9])} ... failed: {(messages[:-1] or ['without a word'])[-1]}"
        )
    # ru_maxrss is in bytes on macOS, in KiB elsewhere
    unit = 1 if sys.platform == "darwin" else 1024
    return child.stdout, seconds, int(messages[-1]) * unit / 2**20


def call_apart(function: str, *given: Any, keep: bool = False) -> tuple[Any, float, float]:
    """(what it returns, seconds, peak memory in MiB) of ``MODULE:FUNCTION`` of this package."""
    words = ["-m", "utils.benchmark.apart", function, json.dumps(given, default=str)]
    printed, seconds, peak = run_apart([*words, *[KEEP] * keep])
    return json.loads(printed.splitlines()[-1]), seconds, peak


def main(argv: list[str] | None = None) -> None:
    name, given, *_ = sys.argv[1:] if argv is None else argv
    module, _, function = name.partition(":")
    found = importlib.import_module(f"utils.benchmark.{module}")
    print(json.dumps(getattr(found, function)(*json.loads(given))))


if __name__ == "__main__":
    # before the first tensor, and so before the words are looked at
    sys.exit(runtime.run(main, keep_memory=KEEP in sys.argv))
