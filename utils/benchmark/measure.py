"""Seconds and peak memory of alternatives that do the same work,
taken in turn round after round.
"""

import ctypes
import gc
import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch

import models
from utils import loaders, runtime

# seconds that a measurement takes at least: a function that is quicker is called several times
SHORTEST = 0.2


def random_set(count: int) -> loaders.ImageSet:
    """Labelled ImageSet of ``count`` random 32x32 images."""
    rng = np.random.default_rng(0)
    return loaders.make_set(
        rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8),
        rng.integers(0, 10, count),
        "random",
    )


def timed(function: Callable, device: torch.device, calls: int = 1) -> float:
    """Seconds of a call, the mean over ``calls``."""
    start = time.perf_counter()
    for _ in range(calls):
        function()
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()
    return (time.perf_counter() - start) / calls


def passes(
    model: Callable, x: torch.Tensor, device: torch.device, precision: str
) -> Callable[[], list[torch.Tensor]]:
    """Function that takes a batch through a network as ``evaluation.Network`` does."""
    parts = x.contiguous(memory_format=torch.channels_last)
    parts = parts.split(runtime.inference_batch(len(x), device))

    def run():
        with torch.inference_mode(), runtime.autocast(device, precision):
            return [torch.cat(given) for given in zip(*[model(part) for part in parts])]

    return run


def folded(
    model: torch.nn.Module, size: torch.Size, device: torch.device, precision: str
) -> Callable | None:
    """The network with all folded that can be, in bf16 on a CPU; None elsewhere."""
    if precision != "bf16" or device.type != "cpu":
        return None
    with torch.inference_mode(), runtime.autocast(device, precision):
        return models.fold(model, tuple(size))


def status_kib(key: str) -> int:
    """VmRSS or another size in this process's /proc status."""
    return next(
        int(line.split()[1])
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith(f"{key}:")
    )


def peak_memory(function: Callable, device: torch.device) -> float | None:
    """MiB that a call adds at its peak to this process, on CUDA to the device;
    None where that cannot be read.

    Measured of an alternative's first call, so that what a library keeps from call to call counts
    as well; compilation, which comes before, does not.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        timed(function, device)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    before = None
    with suppress(OSError, AttributeError):
        # memory that is free but still this process's would hide what is needed
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError, StopIteration):
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM, the highest VmRSS, starts anew
        before = status_kib("VmRSS")
    timed(function, device)
    return None if before is None else (status_kib("VmHWM") - before) / 1024


def compare(
    part: str, alternatives: dict[str, Callable], items: int, rounds: int, device: torch.device
) -> list[dict]:
    """Rows of a part: alternatives is {name: function},
    each call of which handles ``items`` images or scores.

    rate: items a second; ratio: median over the rounds of plain seconds / own seconds; spread:
    interquartile range of the seconds over their median; peak_mib: see ``peak_memory``.
    """
    if device.type == "cuda":
        for function in alternatives.values():
            function()  # the search for the fastest convolutions has memory of its own
    # also warms up
    peaks = {name: peak_memory(function, device) for name, function in alternatives.items()}
    calls = {
        name: math.ceil(SHORTEST / max(timed(function, device), SHORTEST / 1000))
        for name, function in alternatives.items()
    }
    seconds = {name: [] for name in alternatives}
    for _ in range(rounds):
        for name, function in alternatives.items():
            seconds[name].append(timed(function, device, calls[name]))
    return rows_of(part, seconds, items, peaks)


def rows_of(
    part: str, seconds: dict[str, list[float]], items: int, peaks: dict[str, float | None]
) -> list[dict]:
    """Rows of what was measured: {name: seconds of each round}, the first one the plain
    alternative, and {name: MiB}.
    """
    plain = np.array(next(iter(seconds.values())))
    return [
        {
            "part": part,
            "what": name,
            "rate": items / float(np.median(values)),
            "ratio": float(np.median(plain / values)),
            "spread": float(
                (np.quantile(values, 0.75) - np.quantile(values, 0.25)) / np.median(values)
            ),
            "rounds": len(values),
            "seconds": values,
            "peak_mib": peaks[name],
        }
        for name, values in seconds.items()
    ]
