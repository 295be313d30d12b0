"""What names and commands leave out: the usual network, seed and preset."""

import argparse

from utils.training import arch_name

USUAL = {"arch": "wrn", "seed": 1, "preset": "paper"}


def file_name(args: argparse.Namespace, what: str) -> str:
    """Name of a table, figure or study: another network, seed or preset than the usual is named and
    takes no usual one's place.
    """
    unusual = [
        f"s{args.seed}" if key == "seed" else arch_name(getattr(args, key))
        for key, usual in USUAL.items()
        if getattr(args, key) != usual
    ]
    return "_".join([args.dataset, *unusual, what])


def unusual_words(options: dict) -> list[str]:
    """Those of arch, seed and preset that are not the usual ones, as on a command line."""
    found = {key: value for key, value in options.items() if value != USUAL[key]}
    return [word for key, value in found.items() for word in (f"--{key}", str(value))]


def changed(args: argparse.Namespace, **options: object) -> argparse.Namespace:
    """These options with some of them otherwise."""
    return argparse.Namespace(**{**vars(args), **options})
