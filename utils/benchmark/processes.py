"""The part "processes": ``torchrun baseline.py`` with a process a core, or a GPU, against one process
with all cores, or with one GPU.

Whole trainings of smooth random images. The seconds are those of an epoch, its test among them, as
the run's own file has them, from the second epoch on.
"""

import argparse
import csv
import tempfile
from pathlib import Path

import torch

from .apart import run_apart
from .evaluation import NAME, write_images
from .measure import rows_of

STEPS = 20  # of an epoch
TORCHRUN = ("-m", "torch.distributed.run", "--standalone")


def epoch_seconds(
    folder: Path, epochs: int, words: list, threads: int, launcher: tuple = ()
) -> tuple[list[float], float]:
    """(seconds of each epoch after the first, peak MiB of the largest process) of a training."""
    save = folder / f"threads{threads}"
    words = [*launcher, "baseline.py", NAME, "--id", folder, "--save", save, *words]
    _, _, peak = run_apart([*words, "--epochs", epochs], OMP_NUM_THREADS=str(threads))
    with next(save.rglob("*_training_results.csv")).open() as file:
        return [float(row["time(s)"]) for row in csv.DictReader(file)][1:], peak


def part_processes(args: argparse.Namespace, device: torch.device, precision: str) -> list[dict]:
    """Rows of an epoch of training with the same global batch; none on one core or one GPU."""
    cuda = device.type == "cuda"
    count = torch.cuda.device_count() if cuda else torch.get_num_threads()
    if count < 2:
        print("processes are left out: there is one core or GPU")
        return []
    words = ["--device", device.type, "--precision", precision, "--batch-size", args.train_batch]
    words += ["--arch", args.arch, "--layers", args.layers, "--widen-factor", args.widen_factor]
    several = (*TORCHRUN, "--nproc_per_node", count)
    images = STEPS * args.train_batch
    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder), images // 5)
        given = Path(folder), args.rounds + 1, words
        one = epoch_seconds(*given, torch.get_num_threads())
        more = epoch_seconds(*given, max(torch.get_num_threads() // count, 1), several)
    names = (f"one process, {'a GPU' if cuda else f'{count} threads'}", f"{count} processes")
    seconds, peaks = (dict(zip(names, found)) for found in zip(one, more))
    return rows_of(f"torchrun, batch {args.train_batch}", seconds, images, peaks)
