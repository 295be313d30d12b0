"""Files are opened only where they are files: a pipe or a device would be waited for, or never
end.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from .errors import UserError

TEXT_LIMIT = 1 << 26  # bytes of a list of images, far above what the programs write
JSON_LIMIT = 1 << 25  # bytes of a .json, of which up to 25 times as much memory is made
KINDS = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISDIR, "a folder"),
)


def check_regular(path: str | Path) -> None:
    """UserError where the path, or what a link of this name leads to, is no regular file.

    OSError where there is nothing.
    """
    refuse_other(path, os.stat(path).st_mode)


def open_regular(path: str | Path) -> BinaryIO:
    """The file, opened for reading bytes; errors as of ``check_regular``. What is no path of the
    disk, a file inside an archive (utils/loaders/inside.py), opens itself.
    """
    if hasattr(path, "open_member"):
        return path.open_member()
    check_regular(path)
    # what has taken its place since then is not waited for either
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        refuse_other(path, os.fstat(handle).st_mode)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def refuse_other(path: str | Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in KINDS if is_kind(mode)), "something else")
        raise UserError(f"{path} is {kind}, not a file. Remove it, or give another path")


def read_regular_text(path: str | Path, limit: int = TEXT_LIMIT) -> str:
    """A text in UTF-8 of at most ``limit`` bytes; UserError beyond it, ValueError for other bytes."""
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise UserError(f"{path} is longer than {limit >> 20} MB, which no such file is")
    return content.decode()


def read_json(path: str | Path) -> Any:
    """The content of a .json; UserError where it is none, or nested deeper than any that the
    programs write. OSError where there is nothing.
    """
    try:
        return json.loads(read_regular_text(path, JSON_LIMIT))
    except RecursionError:
        raise UserError(f"{path} is not readable as JSON (nested too deeply)") from None
    except ValueError as error:
        raise UserError(f"{path} is not readable as JSON ({error})") from None
