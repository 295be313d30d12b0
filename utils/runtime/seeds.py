"""Seeds: every random number of the project is a function of a few named parts."""

import hashlib

import numpy as np
import torch

from . import ranks

STREAMS = 2  # the version of ``Streams`` that new runs are made with; recorded in every recipe


def derive_seed(*parts: object) -> int:
    """A seed below 2**48 that is a function of the parts alone: derive_seed(1, "outliers", 3)."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:6], "big")


def data_generator(*parts: object) -> torch.Generator:
    """CPU generator for the order and augmentation of images."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def seed_all(*parts: object) -> None:
    """Seed the global generators of torch (initial weights, dropout) and NumPy."""
    value = derive_seed(*parts)
    torch.manual_seed(value)
    np.random.seed(value % 2**32)


class Streams:
    """The random numbers of a stage ("pretrain" or "tune"):
    each epoch's are a function of seed, stage and epoch alone.

    A run that goes on at epoch e therefore draws exactly what an uninterrupted one draws in epoch
    e. Version 1, of runs made before there was a version, has one seed an epoch for the network and
    the ID images of either stage, so that fine-tuning replays the order of the
    first epochs of pre-training.
    """

    def __init__(self, seed: int, stage: str, version: int = STREAMS):
        self.seed, self.stage, self.version = seed, stage, version

    def seed_network(self, epoch: int) -> None:
        """Seed what the network draws in an epoch: dropout, on every rank for its own images."""
        own = [f"rank {ranks.rank()}"] if ranks.rank() else []
        if self.version == 1:
            seed_all(self.seed, epoch, *own)
        else:
            seed_all(self.seed, self.stage, "network", epoch, *own)

    def images(self, epoch: int) -> torch.Generator:
        """Generator of an epoch's order and augmentation of the ID images."""
        parts = (
            (self.seed, epoch) if self.version == 1 else (self.seed, self.stage, "images", epoch)
        )
        return data_generator(*parts)

    def outliers(self, epoch: int) -> torch.Generator:
        """Generator of an epoch's order and augmentation of the outliers."""
        first = (self.seed, f"outliers {epoch}")
        return data_generator(
            *(first if self.version == 1 else (self.seed, self.stage, "outliers", epoch))
        )
