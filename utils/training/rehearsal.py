"""--dry-run: what a run would be and how long it would take, from its first steps."""

import contextlib
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from utils import runtime
from utils.loaders import TrainingBatches

from .files import load_state
from .steps import StepLog

WARM, TIMED = 3, 10  # steps before time is taken, and of which it is taken


class Rehearsal:
    """Stands in a training script where its ``Run`` would: trains the first steps and tests once,
    then says what the run would have been. It writes nothing.
    """

    epochs = range(1)

    def __init__(self, folder, stem, model, optimizer, args, description, head=None):
        self.folder, self.stem, self.args, self.description = folder, stem, args, description
        done = load_state(folder, stem)["epoch"] + 1 if args.resume else 0
        self.left = args.epochs - done
        self.device = next(model.parameters()).device
        self.times = []

    def interruptible(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def steps(self, batches: TrainingBatches, epoch: int) -> Iterator:
        """The first batches of the epoch, and of those after it where it has fewer, with the time at
        the beginning of each and at the end.
        """
        self.count = len(batches)
        endless = itertools.chain.from_iterable(map(batches.epoch, itertools.count(epoch)))
        for batch in itertools.islice(endless, WARM + TIMED):
            self.times.append(self.now())
            yield batch
        self.times.append(self.now())

    def end_epoch(self, epoch: int, log: StepLog, test_loss: float, test_error: float) -> None:
        log.check()  # a loss that is not finite is told here as it would be in the run
        self.tested = self.now() - self.times[-1]

    def finish(self, draw: Callable[[Path], None], error_before: float | None = None) -> None:
        """Print the recipe with the origin of each value, the steps, the memory and the time."""
        recipe, origins = self.args.recipe, self.args.origins
        print(f"{self.stem} would be trained so:")
        for option, value in recipe.items():
            print(f"  {option:16}{value!s:12}{origins.get(option, '')}".rstrip())
        each = [b - a for a, b in zip(self.times, self.times[1:])]
        each = each[WARM:]
        step = statistics.median(each)
        epoch = self.count * step + self.tested
        outliers = recipe.get("oe_batch_size")
        print(
            f"steps           {self.count:,} an epoch, {self.count * self.left:,} in "
            f"{self.left} epochs; {recipe['batch_size']} of {self.description['train_images']:,} "
            "images a step" + (f" and {outliers} outliers" if outliers else "")
        )
        print(
            f"time            {step:.3g} s a step, the median of {len(each)} ({min(each):.3g} to "
            f"{max(each):.3g}); {self.tested:.3g} s of testing after each epoch"
        )
        print(f"estimate        {duration(epoch * self.left)}, {duration(epoch)} an epoch")
        peak, whole = runtime.peak_memory(self.device), runtime.whole_memory(self.device)
        print(
            f"memory          {peak / 2**30:.2f} GiB at most so far"
            + (f", of {whole / 2**30:.1f} GiB" if whole else "")
            + f" ({self.device.type})"
        )
        print(f"It would write  {self.folder}/{self.stem}_... Nothing has been written there.")


def duration(seconds: float) -> str:
    """A time as people say it: "40 s", "12 min", "5.3 hours"."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"
