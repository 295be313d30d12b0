"""Exact percentiles of features of any size and float type, without a copy of them."""

import numpy as np

from .blocks import slices


def sortable(values: np.ndarray) -> np.ndarray:
    """Unsigned integers in the order of the floats ``values`` (any shape):
    (n,) of the same width.
    """
    unsigned = f"u{values.dtype.itemsize}"
    bits = np.ascontiguousarray(values).ravel().view(unsigned)
    sign = bits.dtype.type(1 << (8 * bits.itemsize - 1))
    return np.where(bits & sign, ~bits, bits | sign)


def nth_smallest(features: np.ndarray, rank: int) -> float:
    """The ``rank``-th smallest (from 0) of all entries of features (N,D),
    exactly and without a copy of them.

    Radix selection: each pass over the blocks counts the next 16 bits of the entries
    that are still in question.
    """
    width = 8 * features.dtype.itemsize
    known = 0
    for shift in range(width - 16, -1, -16):
        counts = np.zeros(1 << 16, dtype=np.int64)
        for rows in slices(len(features)):
            keys = sortable(features[rows])
            if shift < width - 16:
                keys = keys[keys >> (shift + 16) == known]
            counts += np.bincount(
                ((keys >> shift) & 0xFFFF).astype(np.int64), minlength=len(counts)
            )
        digit = int(np.searchsorted(counts.cumsum(), rank, side="right"))
        rank -= int(counts[:digit].sum())
        known = known << 16 | digit
    sign = 1 << (width - 1)
    bits = known ^ sign if known & sign else known ^ ((1 << width) - 1)
    return float(np.array(bits, dtype=f"u{width // 8}").view(features.dtype))


def percentile_of(features: np.ndarray, p: float) -> float:
    """``np.percentile(features, p)`` in float64: over all N*D entries,
    linear between the two nearest ranks.

    numpy itself ranks float16 and float32 input in that precision,
    which cannot count beyond 65,504 or 2**24 entries.
    """
    position = (features.size - 1) * (p / 100)
    rank = int(position)
    low = nth_smallest(features, rank)
    part = position - rank
    return low if part == 0 else low + part * (next_smallest(features, rank, low) - low)


def next_smallest(features: np.ndarray, rank: int, value: float) -> float:
    """The entry of rank + 1, where ``value`` is the one of ``rank``: it again if it occurs often
    enough, else the smallest one above it.
    """
    value, up_to, above = features.dtype.type(value), 0, np.inf
    for rows in slices(len(features)):
        block = features[rows]
        larger = block > value
        up_to += block.size - np.count_nonzero(larger)
        above = min(above, np.where(larger, block, np.inf).min())
    return float(value if up_to > rank + 1 else above)
