"""Ctrl-C while a script still imports its libraries: one line, as later. To be imported first."""

import sys
from pathlib import Path
from types import TracebackType


def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """In the place of ``sys.excepthook``: no traceback for Ctrl-C; the exit status stays 130."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"\n{Path(sys.argv[0]).name}: interrupted before it began", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = hook
