"""Seeds: every random number of the project is a function of a few named parts."""
import hashlib

import numpy as np
import torch


def derive_seed(*parts):
    """A seed below 2**48 that is a function of the parts alone: derive_seed(1, "outliers", 3)."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:6], "big")


def data_generator(*parts):
    """CPU generator for the order and augmentation of images."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def seed_epoch(seed, epoch):
    """Seed every generator as a function of (seed, epoch) alone and return a generator for the data order.

    A run that goes on at epoch e therefore draws exactly what an uninterrupted one draws in epoch e.
    """
    value = derive_seed(seed, epoch)
    torch.manual_seed(value)
    np.random.seed(value % 2**32)
    return data_generator(seed, epoch)
