"""Batches made on the device: a set lives there as one uint8 tensor;
flip, crop and normalise are tensor operations.
"""

import argparse
import functools
import math
from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from utils.losses import Loss
from utils.losses.sampling import CANDIDATES
from utils.runtime import Streams, UserError, to_device

from .sets import MEAN, STD, ImageSet, Statistics, outlier_statistics
from .views import random_view

Labelled = tuple[Tensor, Tensor | None]  # x float32 (B,3,H,W) normalised, y int64 (B,) or None


def normalise(images: Tensor, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """uint8 (B,H,W,3) -> float32 (B,3,H,W) in channels_last memory:
    (x/255 - mean) / std per channel.
    """
    count, height, width, channels = images.shape
    scale, shift = row_constants(tuple(mean), tuple(std), width, images.device)
    pixels = images.reshape(count, height, width * channels).float().mul_(scale).add_(shift)
    return pixels.view(count, height, width, channels).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=32)
def row_constants(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """(scale, shift) that normalise a row of pixels, (3 width,) each: broadcasting over a last
    dimension of three values is slow.
    """
    std = torch.tensor(std, dtype=torch.float32)
    scale, shift = 1 / (255 * std), -torch.tensor(mean, dtype=torch.float32) / std
    return scale.repeat(width).to(device), shift.repeat(width).to(device)


def flip_and_crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Random horizontal flip and random crop out of the zero-padded image:
    uint8 (B,H,W,3) -> the same shape.

    Equal in distribution to RandomHorizontalFlip() and RandomCrop(H, padding): each image has its
    own offsets, uniform on 0..2*padding, and its own fair coin. Padding is black in pixel space, as
    there. Padding 0 leaves the flip. The random numbers come from the CPU generator, so that a seed
    draws the same on every device; they go there without the host waiting for it.
    """
    count, height, width, channels = images.shape
    flip = torch.rand(count, generator=generator) < 0.5
    top, left = torch.randint(0, 2 * padding + 1, (2, count), generator=generator)
    padded_height, row = height + 2 * padding, (width + 2 * padding) * channels
    padded = F.pad(images, (0, 0, padding, padding, padding, padding)).contiguous()
    # windows[i, r, l] is the run of W pixels from row r, column l of padded image i on:
    # a crop gathers H such runs.
    shape = (count, padded_height, 2 * padding + 1, width * channels)
    strides = (padded_height * row, row, channels, 1)
    windows = padded.as_strided(shape, strides)
    rows = torch.arange(height) + top[:, None]
    image, rows, left = (
        to_device(index, images.device)
        for index in (torch.arange(count)[:, None], rows, left[:, None])
    )
    cropped = windows[image, rows, left].view(images.shape)
    flipped = to_device(flip.nonzero().flatten(), images.device)
    return cropped.index_copy_(0, flipped, cropped.index_select(0, flipped).flip(2))


class Batches:
    """Batches (x float32 (B,3,H,W) normalised, y int64 (B,) or None) of an ImageSet
    that lives on the device, or is decoded as it streams by.

    Training (``augment``): ``epoch(generator)`` shuffles, augments and keeps the last, smaller
    batch. With ``steps`` it gives exactly that many full batches, shuffling anew each time the set
    is used up, so that a small outlier set never shortens an epoch. Evaluation: iterate over it;
    the order is the set's own.
    """

    def __init__(
        self,
        images: ImageSet,
        batch_size: int,
        device: torch.device | str,
        augment: bool = False,
        padding: int = 4,
        steps: int | None = None,
        statistics: Statistics = (MEAN, STD),
    ):
        self.device, self.streamed = torch.device(device), images.streamed
        self.images = (
            images.images if self.streamed else images.images.permute(0, 2, 3, 1).to(device)
        )
        self.labels = None if images.labels is None else images.labels.to(device)
        self.batch_size = batch_size
        self.augment = augment
        self.padding = padding
        self.steps = steps
        self.mean, self.std = statistics
        self.balanced = False

    def __len__(self) -> int:
        return self.steps or math.ceil(len(self.images) / self.batch_size)

    def __iter__(self) -> Iterator[Labelled]:
        return self.from_image(0)

    def from_image(self, first: int, each: int = 1, begin: int = 0) -> Iterator[Labelled]:
        """The batches from an image on, in the set's order; or each so-manieth of them, from number
        ``begin`` on.
        """
        if self.streamed:
            parts = torch.arange(first, len(self.images)).split(self.batch_size)[begin::each]
            for index, images in zip(parts, self.images.read(parts)):
                part = slice(int(index[0]), int(index[-1]) + 1)
                labels = None if self.labels is None else self.labels[part]
                yield normalise(to_device(images, self.device), self.mean, self.std), labels
            return
        step = self.batch_size
        for start in range(first + begin * step, len(self.images), each * step):
            part = slice(start, start + self.batch_size)
            labels = None if self.labels is None else self.labels[part]
            yield normalise(self.images[part], self.mean, self.std), labels

    def epoch(self, generator: torch.Generator) -> Iterator[Labelled]:
        order = self.order(generator)
        decoded = self.images.read(order) if self.streamed else None
        for index in order:
            index = to_device(index, self.device)
            labels = None if self.labels is None else self.labels[index]
            images = (
                to_device(next(decoded), self.device)
                if self.streamed
                else self.images.index_select(0, index)
            )
            yield self.augmented(images, labels, generator)

    def augmented(
        self, images: Tensor, labels: Tensor | None, generator: torch.Generator
    ) -> Labelled:
        """A batch (x, y) of the images uint8 (B,H,W,3) and their labels (B,)."""
        if self.augment:
            images = flip_and_crop(images, self.padding, generator)
        return normalise(images, self.mean, self.std), labels

    def order(self, generator: torch.Generator) -> Sequence[Tensor]:
        """Index tensors of an epoch's batches."""
        count = len(self.images)
        if self.balanced:
            return balanced_order(self.labels.cpu(), generator).split(self.batch_size)
        if self.steps is None:
            return torch.randperm(count, generator=generator).split(self.batch_size)
        rounds = math.ceil(self.steps * self.batch_size / count)
        order = torch.cat([torch.randperm(count, generator=generator) for _ in range(rounds)])
        return order[: self.steps * self.batch_size].split(self.batch_size)


def balanced_order(labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Indices (N,) of an epoch of N images in random order in which every class that labels (N,)
    hold comes equally often, but for one; a class's images are drawn without repeats until they are
    used up.
    """
    classes = labels.unique()
    each = math.ceil(len(labels) / len(classes))
    parts = []
    for label in classes:
        own = (labels == label).nonzero().flatten()
        rounds = [
            torch.randperm(len(own), generator=generator) for _ in range(-(-each // len(own)))
        ]
        parts.append(own[torch.cat(rounds)[:each]])
    # one of each class after the other: what is cut off at the end is of different classes
    index = torch.stack(parts, dim=1).flatten()[: len(labels)]
    return index[torch.randperm(len(index), generator=generator)]


class PairedBatches(Batches):
    """Training batches of two views of each image: x (2B,3,H,W), the first views before the second,
    and y (2B,). A smaller last batch is left out, unless it is the only one: its pairs are fewer.
    """

    def __len__(self):
        return max(len(self.images) // self.batch_size, 1)

    def order(self, generator: torch.Generator) -> Sequence[Tensor]:
        return super().order(generator)[: len(self)]

    def augmented(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> Labelled:
        views = torch.cat([random_view(images, generator) for _ in range(2)])
        mean, std = (
            torch.tensor(values, device=views.device).view(1, 3, 1, 1)
            for values in (self.mean, self.std)
        )
        x = views.sub_(mean).div_(std).contiguous(memory_format=torch.channels_last)
        return x, labels.repeat(2)


class TrainingBatches:
    """The batches of training epochs: (x, y, x_out) with outliers beside the ID
    images, or an empty x_out.

    x (B,3,H,W) and x_out (M,3,H,W) float32, flipped, cropped and normalised, y int64 (B,). args:
    batch_size, padding and statistics, and for outliers oe_batch_size, outlier_padding and outlier_norm;
    ``streams`` gives the random numbers. A loss that chooses its outliers gets ``CANDIDATES`` times
    as many to choose of, one of pairs both views of each image; with ``args.balance`` an epoch has
    the classes equally often.
    """

    def __init__(
        self,
        images: ImageSet,
        outliers: ImageSet | None,
        args: argparse.Namespace,
        device: torch.device,
        streams: Streams,
        loss: Loss | type[Loss] = Loss,
    ):
        self.streams, self.outliers = streams, None
        kind = PairedBatches if loss.views == 2 else Batches
        statistics = getattr(args, "statistics", (MEAN, STD))
        self.images = kind(
            images,
            args.batch_size,
            device,
            augment=True,
            padding=args.padding,
            statistics=statistics,
        )
        self.images.balanced = getattr(args, "balance", False)
        candidates = CANDIDATES if getattr(loss, "chooses_outliers", False) is True else 1
        if outliers is not None:
            if candidates > 1 and len(outliers) < args.batch_size:
                raise UserError(
                    f"--sampling clusters: {outliers.source or outliers.name} holds "
                    f"{len(outliers)} images, fewer than the {args.batch_size} clusters of a step, "
                    "one for each ID image. Give more outliers (--outliers) or a smaller "
                    "--batch_size"
                )
            self.outliers = Batches(
                outliers,
                candidates * args.oe_batch_size,
                device,
                augment=True,
                padding=args.outlier_padding,
                steps=len(self.images),
                statistics=outlier_statistics(args.outlier_norm, statistics),
            )

    def __len__(self):
        return len(self.images)

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        batches = self.images.epoch(self.streams.images(epoch))
        if self.outliers is None:
            yield from ((x, y, x[:0]) for x, y in batches)
        else:
            outliers = self.outliers.epoch(self.streams.outliers(epoch))
            yield from ((x, y, x_out) for (x, y), (x_out, _) in zip(batches, outliers))


def check_fits(model: nn.Module, images: ImageSet) -> None:
    """UserError unless the model takes images of this ImageSet's size;
    one of them goes through it.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(normalise(images.images[:1].permute(0, 2, 3, 1).to(device)))
    except (ValueError, RuntimeError, AssertionError) as error:
        raise UserError(
            f"the network does not take the images of '{images.name}', "
            f"{tuple(images.images.shape[1:])} each: {str(error).partition(chr(10))[0]}. "
            "Bring them to another size: --image-size N"
        ) from None
    finally:
        model.train(training)
