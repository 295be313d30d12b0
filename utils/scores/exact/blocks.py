"""Rows a block at a time, so that training features in float16 or in a memory
map are never upcast whole.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch

ROWS = 4096  # 4,096 x 2,048 features in float64 are 64 MiB
CACHED = 2**15  # entries of a block on which several operations follow: 256 KiB of float64


def slices(count: int, rows: int | None = None) -> Iterator[slice]:
    """Yield the slices that cut ``count`` rows into blocks of at most
    ``rows`` (default ``ROWS``).
    """
    rows = rows or ROWS
    for start in range(0, count, rows):
        yield slice(start, min(start + rows, count))


def by_blocks(function: Callable, *arrays: np.ndarray) -> np.ndarray:
    """Apply ``function`` (blocks of rows in float64 -> one value a row) to arrays of N rows:
    (N,) float64. A block stays in the processor's cache from operation to operation.
    """
    values = np.empty(len(arrays[0]))
    width = max(1, *(array.shape[1] for array in arrays))
    for rows in slices(len(values), min(ROWS, max(1, CACHED // width))):
        values[rows] = function(*(array[rows].astype(np.float64) for array in arrays))
    return values


def mean_row(features: np.ndarray) -> np.ndarray:
    """Mean (D,) float64 of features (N,D) of any float type, accumulated in float64."""
    return features.mean(axis=0, dtype=np.float64)


def covariance_about(mean: np.ndarray, features: np.ndarray) -> np.ndarray:
    """mean_i (h_i - m)(h_i - m)' (D,D) float64 of features (N,D) of any float type about m (D,)."""
    total = np.zeros((len(mean), len(mean)))
    for rows in slices(len(features), min(ROWS, 1024)):
        centred = features[rows].astype(np.float64)  # a difference of two types is six times slower
        centred -= mean
        total += centred.T @ centred
    return total / len(features)


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a @ b of float64 matrices by PyTorch's BLAS, whose wheels have the faster one."""
    return (torch.from_numpy(a) @ torch.from_numpy(b)).numpy()


def row_norms(features: np.ndarray) -> np.ndarray:
    """||h|| (n,) of float64 features (n,D)."""
    return np.sqrt(np.einsum("nd,nd->n", features, features))
