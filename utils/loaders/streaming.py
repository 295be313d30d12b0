"""Images that stay on disk: listed once, decoded by worker processes, given in order.

A batch is decoded by one worker, and each worker is at most ``AHEAD`` batches ahead of what is
used, so that memory holds a few batches whatever the set's size.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from utils.runtime import UserError, printable

from . import bounds, containers, readers
from .readers import Size
from .sets import ImageSet
from .splits import Place

AHEAD = 2  # batches a worker
SHARE = 0.4  # of the memory that is free: what a resident set may take

wanted = {"stream": "auto", "workers": 0}


def use_streaming(stream: str = "auto", workers: int = 0) -> dict:
    """Have sets from folders, lists and archives stream: "on", "off", or "auto", where they would
    take more than ``SHARE`` of the free memory. ``workers``: decoding processes, 0 = one a core.
    Returns what was, for ``use_streaming(**before)``.
    """
    before = dict(wanted)
    wanted.update(stream=stream, workers=workers)
    return before


def free_memory() -> float:
    """Bytes of memory that are free here; infinite where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(
            next(line for line in lines if line.startswith("MemAvailable")).split()[1]
        )
    except (OSError, StopIteration, ValueError, IndexError):
        return float("inf")


def source_to_stream(place: Place, size: Size) -> readers.Source | None:
    """A folder, list or archive that is to stream, listed; None of one that is not. UserError where
    that is wanted of an archive that can only be read from its beginning.
    """
    if wanted["stream"] == "off":
        return None
    packed = place.path.name.lower().endswith((".gz", ".tgz", ".bz2", ".xz"))
    if wanted["stream"] == "auto" or not packed:
        source = readers.open_source(place.path, place.inside)
        packed = isinstance(source, containers.Archive) and bounds.is_packed(source.file)
        needed = 3 * len(source.names) * readers.crop_side(size) ** 2
        if wanted["stream"] == "auto" and needed <= SHARE * free_memory():
            return None
    if packed:
        raise UserError(
            f"{place.path}: a compressed tar is read from its beginning for every image. Unpack it, or "
            "keep its images in memory: --stream off"
        )
    return source


class StreamedPixels(Dataset):
    """Stands where a resident set has its uint8 tensor (N,3,H,W): ``pixels[index]`` decodes those
    images here and now, ``read`` many batches by worker processes.
    """

    def __init__(self, source: readers.Source, index: np.ndarray, size: Size, crop_only: bool):
        self.source, self.index, self.size, self.crop_only = source, index, size, crop_only
        side = readers.crop_side(size)
        self.shape = (len(index), 3, side, side)
        self.process = os.getpid()

    def __len__(self) -> int:
        return len(self.index)

    def part(self, index: np.ndarray) -> "StreamedPixels":
        """Some of the images, in the order of ``index``."""
        return StreamedPixels(self.source, self.index[index], self.size, self.crop_only)

    def __getitem__(self, index) -> torch.Tensor:
        """uint8 (B,3,H,W) in channels_last memory of a slice or indices, (3,H,W) of one index."""
        found = self.index[index]
        pixels = torch.from_numpy(self.decode(np.atleast_1d(found))).permute(0, 3, 1, 2)
        return pixels if np.ndim(found) else pixels[0]

    def decode(self, places: np.ndarray) -> np.ndarray:
        """uint8 (B,H,W,3) of the images at these places of the listing."""
        if self.process != os.getpid():
            # a worker has file handles of its own, but lists nothing anew: with a file more or
            # less each place would be another image's, and the label another's
            self.source = self.source.reopened()
            self.process = os.getpid()
        side = readers.crop_side(self.size)
        pixels = np.empty((len(places), side, side, 3), np.uint8)
        for row, place in zip(pixels, places):
            name = self.source.names[place]
            try:
                row[:] = readers.read_image(self.source, name, self.size, self.crop_only)
            except Exception as error:
                raise readers.unreadable(self.source, name, error) from None
        return pixels

    def read(self, batches: list) -> Iterator[torch.Tensor]:
        """uint8 (B,H,W,3) of each index array, in their order, decoded by worker processes."""
        yield from in_order(lambda index: self.decode(self.index[np.asarray(index)]), batches)

    def readable(self) -> np.ndarray:
        """bool (N,): which images can be decoded; a pass over all of them."""

        def check(index):
            good = []
            for place in self.index[index]:
                try:
                    good.append(len(self.decode(np.array([place]))))
                except UserError:
                    good.append(0)
            return np.array(good, dtype=np.uint8)

        parts = np.array_split(np.arange(len(self)), max(1, len(self) // 100))
        return torch.cat(list(in_order(check, parts))).numpy().astype(bool)


class Calls(Dataset):
    """``function`` of each item as a data set; a worker's UserError comes as its text."""

    def __init__(self, function: Callable, items: list):
        self.function, self.items = function, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i):
        try:
            return torch.from_numpy(self.function(self.items[i])), ""
        except UserError as error:
            return torch.empty(0, dtype=torch.uint8), str(error)


def in_order(function: Callable, items: list) -> Iterator[torch.Tensor]:
    """``function`` (item -> array) of every item as a tensor, in the items' order, by workers."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    workers = min(wanted["workers"] or cores, len(items))
    loader = DataLoader(
        Calls(function, items),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=AHEAD if workers else None,
        multiprocessing_context="fork" if workers and os.name == "posix" else None,
    )
    try:
        for result, error in loader:
            if error:
                raise UserError(error)
            yield result
    except RuntimeError as error:  # as torch says that the system has ended one
        if "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"a process that decodes images has ended ({str(error)[:200]}). Memory may have run "
            "out: take fewer processes, --prefetch N"
        ) from None


def stream(
    source: readers.Source, place: Place, name: str, size: Size, crop_only: bool, skip_bad: bool
) -> ImageSet:
    """The ImageSet of a place that ``source_to_stream`` has listed, whose images stay on disk.

    Its fingerprint is of the files' names, sizes and times of change and of the labels: pixels are
    not read for it. With ``skip_bad`` one pass finds the images that cannot be read.
    """
    path = place.path
    if not source.names:
        raise readers.no_image(source)
    labels, classes = readers.labels_of(source)
    pixels = StreamedPixels(source, np.arange(len(source.names)), size, crop_only)
    good = pixels.readable() if skip_bad else np.ones(len(pixels), bool)
    if not good.any():
        raise UserError(f"{source.path}: none of its {len(good)} images can be read")
    names = np.array(source.names, dtype=object)
    pixels = StreamedPixels(source, np.flatnonzero(good), size, crop_only)
    digest = readers.decoding_digest(source, path, size, crop_only, "stream")
    for array in (good, labels):
        digest.update(b"" if array is None else array.tobytes())
    return ImageSet(
        pixels,
        None if labels is None else torch.from_numpy(labels[good]),
        name,
        digest.hexdigest(),
        classes,
        printable(str(path / place.inside)),
        tuple(map(printable, names[~good])),
        tuple(map(printable, names[good])),
    )
