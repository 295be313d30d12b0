"""The scripts' parser, and the kinds of values that their options take."""

import argparse
import math
from collections.abc import Callable
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """ArgumentParser that knows each long option with - and _,
    and prints a bad one as one line, exit status 2.
    """

    def __init__(self, **keywords):
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **keywords
        )

    def add(self, *names: str, **keywords: Any) -> argparse.Action:
        spellings = []
        for name in names:
            spellings.append(name)
            if name.startswith("--"):
                word = name[2:]
                spellings += [f"--{word.replace('-', '_')}", f"--{word.replace('_', '-')}"]
        return self.add_argument(*dict.fromkeys(spellings), **keywords)

    def error(self, message: str) -> NoReturn:
        self.exit(
            2, f"{self.prog}: {message}. See: python {self.prog.removeprefix('python ')} --help\n"
        )


def whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def limited(
    read: Callable[[str], float], fits: Callable[[float], bool], otherwise: str
) -> Callable:
    """An option's type: what ``read`` gives and ``fits``; else an error that says ``otherwise``."""

    def limit(text: str) -> float:
        value = read(text)
        if not fits(value):
            raise argparse.ArgumentTypeError(f"{text} {otherwise}")
        return value

    return limit


positive_int = limited(whole, lambda value: value > 0, "is not a positive whole number")
count = limited(whole, lambda value: value >= 0, "is negative")
finite = limited(number, math.isfinite, "is not a finite number")
positive = limited(number, lambda value: 0 < value < math.inf, "is not a positive number")
non_negative = limited(number, lambda value: 0 <= value < math.inf, "is not a number of at least 0")
fraction = limited(number, lambda value: 0 <= value < 1, "is not in [0, 1)")
share = limited(number, lambda value: 0 < value < 1, "is not between 0 and 1")
