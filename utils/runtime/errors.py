"""The errors a user sees, and how a script ends."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import torch

from utils.output import guard_streams, printable

from . import ranks
from .memory import keep_freed_memory

SHOWN = 1000  # characters at the beginning of an error, and at its end


class UserError(Exception):
    """What went wrong, where it looked, what there is, and the next command:
    printed as one line, exit status 2.
    """


def run(main: Callable[[], int | None], keep_memory: bool = True) -> int:
    """Call ``main()`` for a script and return its exit status:
    0, 2 after a user's error, 130 after Ctrl-C.

    ``keep_memory``: with ``keep_freed_memory``. A worker of the standard library or torch reports a
    full disk in its own words; they become one line too.
    """
    program = Path(sys.argv[0]).name
    guard_streams()
    if keep_memory:
        keep_freed_memory()
    loud = sys.stderr
    try:
        ranks.join()
        return main() or 0
    except ranks.NotJoined as error:
        say(
            f"{program}: the processes of this run do not find one another: {error}. Start it with "
            "torchrun, or unset WORLD_SIZE and RANK",
            loud,
        )
        return 2
    except UserError as error:
        say(f"{program}: {shortened(' '.join(str(error).split()))}", loud)
        return 2
    except (MemoryError, RuntimeError) as error:
        if ranks.size() > 1 and ranks.lost(error):
            say(
                f"{program}: another process of this run has ended; its error is on stderr too. "
                "Start all of them again; a training with --resume goes on after its last epoch",
                loud,
            )
            ranks.end_at_once(2)
        if "does not have a deterministic implementation" in str(error):
            say(
                f"{program}: --deterministic: {str(error).partition(' does not')[0]} has no algorithm "
                "that adds up in a fixed order on this device. Leave --deterministic out, or take "
                "--device cpu",
                loud,
            )
            return 2
        if "home directory" in str(error):  # of pathlib's expanduser
            say(f"{program}: a path begins with ~ and a name that no user has. Write it out", loud)
            return 2
        if not out_of_memory(error):
            raise
        say(
            f"{program}: out of memory "
            f"({str(error).partition(chr(10))[0][:200] or 'too large an array'}). Try fewer or "
            "smaller images at once: --batch_size, --oe_batch_size, --test_bs, --image-size",
            loud,
        )
        return 2
    except OSError as error:
        where = printable(str(error.filename or "while reading or writing"))
        say(
            f"{program}: {error.strerror or error}: {where}. Mend that (rights, space, "
            "the path), then run the same command again",
            loud,
        )
        return 2
    except KeyboardInterrupt as interrupt:
        print(f"\n{program}: interrupted. {interrupt}", file=sys.stderr)
        return 130
    except Exception:
        if ranks.rank():  # its traceback is to be seen
            sys.stderr = loud
        raise
    finally:
        ranks.leave()


def shortened(text: str) -> str:
    """A text without its middle where it is longer than a screen: a name in a file may be of any
    length, and what to do stands at the end.
    """
    return text if len(text) <= 2 * SHOWN else f"{text[:SHOWN]} ... {text[-SHOWN:]}"


def say(text: str, loud: TextIO) -> None:
    """Print an error on the stderr that a rank began with, with the number of one that prints
    nothing otherwise.
    """
    print(f"rank {ranks.rank()}: {text}" if ranks.rank() else text, file=loud)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory of the host or the device was not enough: torch has a
    class for the device's alone.
    """
    return (
        isinstance(error, (MemoryError, torch.OutOfMemoryError))
        or "can't allocate memory" in str(error)
        or "out of memory" in str(error)
    )
