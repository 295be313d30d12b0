"""Many small image files read once from disk: torchvision's ImageFolder in a DataLoader against this
project's streamed set, with as many workers, the same transform and the same batches.

    python -m utils.benchmark.streaming      # 200,000 files for a while, some minutes -> CIFAR/results

Each pass is a process of its own, the two in turn. Its clock starts after its imports: the folder is
listed, the first batch comes, then all others. The files are in the system's memory.
"""

import argparse
import io
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from utils import loaders
from utils.loaders import streaming
from utils.runtime import CIFAR, UserError, describe_machine, run, write_json
from utils.training.options import Parser, positive_int

from .apart import call_apart
from .measure import rows_of

PICTURES, STORED = 500, (64, 48)  # distinct ones, and their width and height
CLASSES, SIDE, BATCH = 100, 32, 200  # folders; what a reader makes of a picture
BLOCK = 4096  # bytes that a smaller file takes on a disk
EVERY = 0.2  # seconds from one look at the memory to the next
PLAIN, OURS = "torchvision ImageFolder", "this project"
HEADER = f"{'':26}{'first batch, s':>16}{'per second':>12}{'ratio':>8}{'peak MiB':>10}"


def make_pictures(count: int) -> list[bytes]:
    """JPEGs of smooth noise of about the size in bytes that photographs have."""
    rng, made = np.random.default_rng(0), []
    for _ in range(count):
        noise = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
        file = io.BytesIO()
        noise.resize(STORED, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        made.append(file.getvalue())
    return made


def write_files(folder: Path, count: int) -> None:
    """``count`` JPEGs in class folders, no two equal: a number follows where the picture ends.

    UserError where the disk has no space for them.
    """
    pictures = make_pictures(min(count, PICTURES))
    needed = sum(-(-(len(one) + 8) // BLOCK) * BLOCK for one in pictures) / len(pictures) * count
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"{folder.parent} has {free >> 20:,} MiB free, {count:,} files need {needed / 2**20:,.0f}. "
            "Give another folder (TMPDIR=FOLDER before the command), or fewer: --images N"
        )
    print(f"{count:,} files in {folder}, {needed / 2**20:,.0f} MiB; they go at the end", flush=True)
    for label in range(CLASSES):
        (folder / f"class_{label:02}").mkdir()
    for i in range(count):
        with open(f"{folder}/class_{i % CLASSES:02}/{i:07}.jpg", "wb") as file:
            file.write(pictures[i % PICTURES] + i.to_bytes(8, "big"))


def torchvision_reader(folder: str, workers: int) -> Callable[[], Iterable]:
    from torchvision import datasets
    from torchvision import transforms as T

    steps = [T.Resize(SIDE), T.CenterCrop(SIDE), T.ToTensor()]
    transform = T.Compose([*steps, T.Normalize(loaders.MEAN, loaders.STD)])

    def batches():
        images = datasets.ImageFolder(folder, transform)
        return torch.utils.data.DataLoader(images, BATCH, num_workers=workers)

    return batches


def our_reader(folder: str, workers: int) -> Callable[[], Iterable]:
    def batches():
        streaming.use_streaming("on", workers)
        return loaders.Batches(loaders.load("small", path=folder, size=SIDE), BATCH, "cpu")

    return batches


READERS = {PLAIN: torchvision_reader, OURS: our_reader}


def tree_mib() -> float | None:
    """MiB of this process and those it has started, what they share counted once; None where the
    system does not say.
    """
    kib = 0
    for process in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        with suppress(FileNotFoundError, ProcessLookupError):  # has ended
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                kib += int(line.split()[1]) if line.startswith("Pss:") else 0
    return kib / 1024 or None


def read_all(name: str, folder: str, workers: int, memory: bool) -> dict:
    """One pass over the folder by one of ``READERS``: seconds to the first batch and to the last,
    images, and sums that are another reader's where both read the same; with ``memory``, which takes
    time, also MiB after the imports and at the peak.
    """
    make, peaks, looked, images, labels, pixels = READERS[name](folder, workers), [], 0.0, 0, 0, 0.0
    Image.init()
    imports, start, first = tree_mib() if memory else None, time.perf_counter(), None
    for x, y in make():
        now = time.perf_counter()
        first = first or now - start
        images, labels, pixels = images + len(x), labels + int(y.sum()), pixels + float(x.mean())
        if memory and now - looked > EVERY:
            peaks, looked = [*peaks, tree_mib()], now
    made = {"first_s": first, "seconds": time.perf_counter() - start, "images": images}
    made |= {"labels": labels, "pixels": pixels, "imports_mib": imports}
    return {**made, "peak_mib": max(filter(None, peaks), default=None)}


def measure(count: int, workers: int, rounds: int) -> list[dict]:
    """A row of each reader as of ``rows_of``, and ``first_s``, ``first_ratio``, ``imports_mib``;
    peak_mib is that of all processes together, in a pass before the timed ones.
    """
    with tempfile.TemporaryDirectory(prefix="small-files-") as folder:
        write_files(Path(folder), count)
        passes = {name: [] for name in READERS}
        for turn in range(rounds + 1):
            for name, made in passes.items():
                given = "streaming:read_all", name, folder, workers, turn == 0
                # the scripts keep freed memory; plain code has malloc as it comes
                made.append(call_apart(*given, keep=name == OURS)[0])
    for made in passes.values():
        memory = made.pop(0)
        made[0] |= {key: memory[key] for key in ("peak_mib", "imports_mib")}
    part = f"{count:,} files, {workers} worker{'s' * (workers > 1)}"
    peaks = {name: made[0]["peak_mib"] for name, made in passes.items()}
    seconds, first = (
        {name: [one[key] for one in made] for name, made in passes.items()}
        for key in ("seconds", "first_s")
    )
    rows = rows_of(part, seconds, count, peaks)
    for row, firsts in zip(rows, rows_of(part, first, 1, peaks)):
        row |= {"first_s": 1 / firsts["rate"], "first_ratio": firsts["ratio"]}
        row["imports_mib"] = passes[row["what"]][0]["imports_mib"]
    return rows


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m utils.benchmark.streaming", description=__doc__.split("\n\n")[0]
    )
    add, number = parser.add_argument, {"type": positive_int, "metavar": "N"}
    add("--images", **number, default=200_000, help="files (default %(default)s)")
    add(
        "--workers",
        **number,
        default=os.cpu_count(),
        help="decoding processes (default: one a core)",
    )
    add("--rounds", **number, default=3, help="timed passes of each (default %(default)s)")
    told = "the JSON file to write (default CIFAR/results/streaming.json)"
    add("--out", type=Path, default=CIFAR / "results" / "streaming.json", help=told)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    rows = measure(args.images, args.workers, args.rounds)
    print(HEADER)
    for row in rows:
        peak = "-" if row["peak_mib"] is None else f"{row['peak_mib']:,.0f}"
        numbers = f"{row['first_s']:16.2f}{row['rate']:12,.0f}{row['ratio']:8.2f}{peak:>10}"
        print(f"{row['what']:26}{numbers}")
    given = {"images": args.images, "workers": args.workers, "stored": STORED, "side": SIDE}
    given |= {"batch": BATCH, "rounds": args.rounds, "rows": rows}
    write_json(args.out, {**given, "machine": describe_machine(torch.device("cpu"))})
    print(f"written: {args.out}")


if __name__ == "__main__":
    sys.exit(run(main, keep_memory=False))
