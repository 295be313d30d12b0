"""Dropout whose mask is cheap on a CPU, where the stock one costs as much as a convolution."""

import torch

LEVELS = 2**16


def takes(x: torch.Tensor) -> bool:
    """Whether the mask can be drawn for this input: on a CPU, four values at a time."""
    return x.device.type == "cpu" and x.numel() % 4 == 0


def dropout(x: torch.Tensor, p: float) -> torch.Tensor:
    """Zero each value of x with chance p, in 0 < p < 1, and scale the others by 1 / (1 - p).

    Equal in distribution to torch.nn.functional.dropout with p rounded to a multiple of 2^-16. One
    64-bit random number decides four values; the stock operator draws one number a value, on one
    thread.
    """
    return x * keep_mask(x, p)


def keep_mask(x: torch.Tensor, p: float) -> torch.Tensor:
    """0 with chance p, else 1 / (1 - p), in the shape, memory layout and type of x."""
    threshold = round(p * LEVELS)
    bits = torch.empty_like(x, dtype=torch.int16)
    # the signed 16-bit numbers are uniform
    bits.as_strided((x.numel(),), (1,)).view(torch.int64).random_(-(2**63), None)
    return (bits >= threshold - LEVELS // 2).to(x.dtype).mul_(LEVELS / (LEVELS - threshold))
