"""What the programs print: nothing in it moves a terminal's cursor, and no reader has to stay."""

import contextlib
import os
import sys
from typing import Any, TextIO


def printable(text: str, kept: str = "") -> str:
    """A text on one line that any file and terminal takes; the rest, all but the characters
    ``kept``, is written out as Python escapes it.

    Names of files, of members of an archive, of classes, and what a server says, come from
    strangers: an escape sequence in them would write anywhere on the terminal.
    """
    if text.isprintable():
        return text
    text = text.encode("utf-8", "backslashreplace").decode()  # names that are not UTF-8
    return "".join(
        c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in text
    )


def print_note(text: str) -> None:
    """A remark beside what a program prints, one line on stderr; the program goes on."""
    print(f"note: {' '.join(text.split())}", file=sys.stderr)


class Printed:
    """A text stream whose text is ``printable``, in any locale, and whose reader may have gone.

    A log on a full disk, a closed pipe: training goes on without them, what is written is lost.
    """

    def __init__(self, stream: TextIO, kept: str):
        self.stream, self.kept, self.broken = stream, kept, False
        if hasattr(stream, "reconfigure"):  # what the locale cannot print is written as an escape
            stream.reconfigure(errors="backslashreplace")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self.attempt(lambda: self.stream.write(printable(text, self.kept)))
        return len(text)

    def flush(self) -> None:
        self.attempt(self.stream.flush)

    def attempt(self, action: Any) -> None:
        if self.broken:
            return
        try:
            action()
        except (OSError, ValueError):  # ValueError: a closed file
            self.broken = True
            with contextlib.suppress(OSError, ValueError):
                # so that Python, which flushes at its end, has where to
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


def open_missing() -> None:
    """Open on nothing what of standard input, output and error is closed."""
    while (number := os.open(os.devnull, os.O_RDWR)) < 3:
        os.set_inheritable(number, True)
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def guard_streams() -> None:
    """Put ``Printed`` streams in the place of standard output and error; one that the caller has
    closed is opened on nothing, as the next file that is opened would get its number.
    """
    open_missing()
    if not isinstance(sys.stdout, Printed):
        sys.stdout = Printed(sys.stdout, "\n\t")
    if not isinstance(sys.stderr, Printed):
        sys.stderr = Printed(sys.stderr, "\n\t\r")
