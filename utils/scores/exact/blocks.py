"""Rows a block at a time, so that training features in float16 or in a memory
map are never upcast whole.
"""

from collections.abc import Callable, Iterator

import numpy as np

ROWS = 4096  # 4,096 x 2,048 features in float64 are 64 MiB


def slices(count: int, rows: int | None = None) -> Iterator[slice]:
    """Yield the slices that cut ``count`` rows into blocks of at most
    ``rows`` (default ``ROWS``).
    """
    rows = rows or ROWS
    for start in range(0, count, rows):
        yield slice(start, min(start + rows, count))


def by_blocks(function: Callable, *arrays: np.ndarray) -> np.ndarray:
    """Apply ``function`` (blocks of rows in float64 -> one value a row) to arrays of N rows:
    (N,) float64.
    """
    values = np.empty(len(arrays[0]))
    for rows in slices(len(values)):
        values[rows] = function(*(array[rows].astype(np.float64) for array in arrays))
    return values


def mean_row(features: np.ndarray) -> np.ndarray:
    """Mean (D,) float64 of features (N,D) of any float type, accumulated in float64."""
    return features.mean(axis=0, dtype=np.float64)
