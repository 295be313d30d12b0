"""What is printed moves no cursor, needs no reader and no locale."""

import io
import os
import subprocess
import sys

import pytest

from utils.output import guard_streams
from utils.runtime import ROOT, Printed, print_note, printable

PROGRAM = """
import sys
from utils import runtime
def main():
    name = "\\x1b[31mGr\\xf6\\xdfe"
    print(name)
    print("note", name, file=sys.stderr)
    raise runtime.UserError("no such thing as " + name)
sys.exit(runtime.run(main, keep_memory=False))
"""


@pytest.mark.parametrize(
    "text,shown",
    [
        ("Größe 小", "Größe 小"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("a\rb\x9bc\x00", "a\\rb\\x9bc\\x00"),
        ("right\u202eto left\u2028x", "right\\u202eto left\\u2028x"),
        (b"not \xff utf-8".decode("utf-8", "surrogateescape"), "not \\udcff utf-8"),
    ],
)
def test_control_characters_are_written_out(text, shown):
    assert printable(text) == shown
    stream = io.StringIO()
    print(text, file=Printed(stream, "\n"))
    assert stream.getvalue() == shown + "\n"


def test_lines_stay_lines_and_a_progress_bar_may_go_back():
    assert printable("a\tb\nc", "\n\t") == "a\tb\nc"
    stream = io.StringIO()
    Printed(stream, "\n\r").write("\r 5%")
    assert stream.getvalue() == "\r 5%"


def test_a_full_or_closed_log_stops_nothing():
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(28, "No space left on device")

    stream = Printed(Full(), "\n")
    assert stream.write("lost") == 4
    stream.flush()
    closed = io.StringIO()
    closed.close()
    print("lost", file=Printed(closed, "\n"))


def test_a_program_in_an_ascii_locale_whose_reader_has_gone():
    environment = {**os.environ, "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    run = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(run, capture_output=True, cwd=ROOT, env=environment, timeout=100)
    assert done.returncode == 2
    assert done.stdout == b"\\x1b[31mGr\\xf6\\xdfe\n"
    assert done.stderr.endswith(b"no such thing as \\x1b[31mGr\\xf6\\xdfe\n")
    assert b"\x1b" not in done.stderr
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        run, stdout=write, stderr=subprocess.PIPE, cwd=ROOT, env=environment, timeout=100
    )
    os.close(write)
    assert done.returncode == 2 and b"Broken" not in done.stderr


def test_streams_that_the_caller_has_closed():
    """The next file that is opened would get the number of one, and what is printed."""
    child = os.fork()
    if child == 0:
        with open(os.devnull, "w") as out:
            os.dup2(out.fileno(), 2)
        os.close(0)
        os.close(1)
        sys.stdout = sys.stderr = None
        guard_streams()
        print("lost")
        good = os.open(os.devnull, os.O_RDONLY) > 2 and sys.stdout is not None
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_note_is_one_line_whatever_a_file_says(capsys):
    print_note("it was made by a\nnote: all is well")
    assert capsys.readouterr().err == "note: it was made by a note: all is well\n"
