"""The mean and standard deviation that images are normalised with, by name or as numbers."""

import argparse
import math

from models.plain import PACKAGES

from .sets import STATISTICS


def channels(text: str) -> str:
    """A value of --mean or --std as typed: a name of STATISTICS, three numbers "0.5,0.4,0.4", or one
    for all channels.
    """
    if text in STATISTICS:
        return text
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) not in (1, 3) or not all(0 <= value < math.inf for value in values):
        raise argparse.ArgumentTypeError(
            f"'{text}' is neither three numbers of at least 0, as 0.5,0.5,0.5, or one for all, nor "
            f"one of {', '.join(STATISTICS)}"
        )
    return text


def typed_statistics(mean: str | None, std: str | None) -> tuple[tuple, tuple] | None:
    """(mean, std), three numbers each, of what was typed; a name for one of them stands for both.
    None where nothing was typed. ValueError: numbers for one alone, a std of 0, a mean above 1.
    """
    if mean is None and std is None:
        return None
    for text in filter(None, (mean, std)):
        try:  # a state may hold any text
            channels(text)
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"mean or std: {error}") from None
    if None in (mean, std) and (mean or std) not in STATISTICS:
        told = f"--mean {mean}" if mean else f"--std {std}"
        raise ValueError(f"{told} stands alone. Give each, --mean and --std, its own numbers")
    mean, std = mean or std, std or mean
    found = tuple(
        STATISTICS[text][which] if text in STATISTICS else three_numbers(text)
        for which, text in enumerate((mean, std))
    )
    if min(found[1]) <= 0:
        raise ValueError(f"--std {std} divides by 0")
    if max(found[0]) > 1:
        meant = (",".join(f"{value / 255:.4f}" for value in part) for part in found)
        raise ValueError(
            f"--mean {mean} is of values of 0 to 255; images have values of 0 to 1. Give "
            "--mean {} --std {}".format(*meant)
        )
    return found


def three_numbers(text: str) -> tuple[float, ...]:
    values = tuple(map(float, text.split(",")))
    return values * (3 // len(values))


def assumed_statistics(arch: str) -> tuple[tuple, tuple]:
    """(mean, std) of a network whose file does not say with what it was trained: ImageNet's for one
    of a package, else this project's.
    """
    return STATISTICS["imagenet" if arch.partition(":")[0] in PACKAGES else "cifar"]


def described_statistics(description: dict) -> tuple[tuple, tuple] | None:
    """(mean, std) that a snapshot's description says it was trained with, or None."""
    if description.get("mean") is None or description.get("std") is None:
        return None
    return tuple(description["mean"]), tuple(description["std"])


def shown(statistics: tuple[tuple, tuple]) -> str:
    """Both as text: "mean 0.491,0.482,0.447 and std 0.247,0.244,0.262"."""
    mean, std = (",".join(f"{value:.4g}" for value in part) for part in statistics)
    return f"mean {mean} and std {std}"
