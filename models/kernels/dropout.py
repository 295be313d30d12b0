"""Dropout whose mask is cheap on a CPU, where the stock one costs as much as a convolution."""

import torch
from torch.nn import functional as F

from models import kernels

LEVELS = 2**16


def dropout(x, p, training):
    """Zero each value of x with chance p in training and scale the others by 1/(1-p);
    the identity otherwise.

    Equal in distribution to torch.nn.functional.dropout with p rounded to a multiple of 2^-16. On a
    CPU one 64-bit random number decides four values; the stock operator there draws one
    number a value, on one thread.
    """
    if not training or p == 0:
        return x
    if kernels.stock or x.device.type != "cpu" or x.numel() % 4:
        return F.dropout(x, p, True)
    return x * keep_mask(x, p)


def keep_mask(x, p):
    """0 with chance p, else 1/(1-p), in the shape, memory layout and type of x."""
    threshold = round(p * LEVELS)
    bits = torch.empty_like(x, dtype=torch.int16)
    # the signed 16-bit numbers are uniform
    bits.as_strided((x.numel(),), (1,)).view(torch.int64).random_(-(2**63), None)
    return (bits >= threshold - LEVELS // 2).to(x.dtype).mul_(LEVELS / (LEVELS - threshold))
