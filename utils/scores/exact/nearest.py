"""Exact search for the nearest rows of a bank, found in float32 and measured in float64."""

from collections.abc import Iterator

import numpy as np
import torch

from .blocks import by_blocks, slices

QUERIES = 4096  # 4,096 queries x 8,192 bank rows of float32 products are 128 MiB


BANK_ROWS = 8192


EXTRA = 32  # ranks beyond the k-th that are measured again in float64


GATHERED = 2**23  # float64 entries of bank rows gathered at once: 64 MiB


def inverse_norms(features: np.ndarray) -> np.ndarray:
    """1/||h|| (N,) float64 of features (N,D); 0 for a zero vector,
    which so stays one when normalised.
    """
    norms = by_blocks(lambda h: np.linalg.norm(h, axis=1), features)
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Features (n,D) as unit vectors in float64."""
    return features * inverse_norms(features)[:, None]


def take_bank(
    features: np.ndarray, kind: str, sample: float
) -> tuple[np.ndarray, slice | np.ndarray]:
    """The bank (n,D) and the rows of the training features (N,D) it consists of (a
    slice or an index array).

    kind "fp32" keeps the features as they came (no copy at sample 1), "fp16" unit vectors rounded
    to float16; float16 features are kept. sample: fraction of the rows, drawn with a fixed seed.
    """
    rows = slice(None)
    if sample < 1:
        count = max(1, round(sample * len(features)))
        rows = np.sort(np.random.default_rng(0).permutation(len(features))[:count])
        features = features[rows]
    if kind == "fp32" or features.dtype == np.float16:
        return features, rows
    bank = np.empty(features.shape, dtype=np.float16)
    for part in slices(len(bank)):
        bank[part] = unit_rows(features[part])
    return bank, rows


def largest_products(
    queries: np.ndarray,
    bank: np.ndarray,
    scale: np.ndarray,
    offset: np.ndarray,
    count: int,
    dtype: type = np.float32,
) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` largest of q.(scale_j z_j) - offset_j over the bank:
    values and rows, (n,count), descending.

    queries (n,D) float64, bank (N,D) of any float type, scale and offset (N,). Computed in
    ``dtype``, block by block.
    """
    queries = torch.from_numpy(queries.astype(dtype))
    values = queries.new_empty((len(queries), 0))
    index = torch.empty((len(queries), 0), dtype=torch.int64)
    for part in slices(len(bank), BANK_ROWS):
        rows = np.empty(bank[part].shape, dtype)
        # 1/||h|| may overflow float32
        np.multiply(bank[part], scale[part, None], out=rows, casting="same_kind")
        products = (queries @ torch.from_numpy(rows).T).sub_(
            torch.from_numpy(offset[part].astype(dtype))
        )
        best, where = products.topk(min(count, products.shape[1]), dim=1)
        values = torch.cat([values, best], dim=1)
        index = torch.cat([index, where + part.start], dim=1)
        values, keep = values.topk(min(count, values.shape[1]), dim=1)
        index = index.gather(1, keep)
    return values.numpy(), index.numpy()


def gathered(
    queries: np.ndarray, bank: np.ndarray, scale: np.ndarray, index: np.ndarray
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Yield (rows, unit query (n,1,D), scaled bank rows (n,m,D)) in float64 for the
    candidates ``index`` (N,m).
    """
    size = max(1, GATHERED // max(1, index.shape[1] * queries.shape[1]))
    for rows in slices(len(queries), size):
        chosen = index[rows]
        yield rows, queries[rows, None], bank[chosen].astype(np.float64) * scale[chosen][..., None]


def kth_distance(
    queries: np.ndarray, bank: np.ndarray, scale: np.ndarray, k: int, dtype: type = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each unit query to its k-th nearest bank row, (n,) float64,
    and whether it is certain, (n,) bool.

    Ranks come from products in ``dtype``; ranks k-EXTRA..k+EXTRA are measured again as differences
    in float64. Certain: the rows just outside that window are further from the k-th product than
    rounding can move two products.
    """
    width, last, first = bank.shape[1], min(k + EXTRA, len(bank)), max(k - 1 - EXTRA, 0)
    # ||q - z||^2 = 1 - 2 (q.z - ||z||^2 / 2), and ||z|| is 1, or 0 for a zero vector
    offset = 0.5 * (scale > 0)
    values, index = largest_products(queries, bank, scale, offset, last, dtype)
    distance = np.empty((len(queries), last - first))
    for rows, query, near in gathered(queries, bank, scale, index[:, first:]):
        distance[rows] = np.linalg.norm(query - near, axis=2)
    distance.sort(axis=1)
    moved = 2 * (2 * np.sqrt(width) * np.finfo(dtype).eps)
    certain = np.ones(len(queries), dtype=bool)
    if first > 0:
        certain &= values[:, first - 1] > values[:, k - 1] + moved
    if last < len(bank):
        certain &= values[:, last - 1] < values[:, k - 1] - moved
    return distance[:, k - 1 - first], certain


def kth_distances(features: np.ndarray, bank: np.ndarray, scale: np.ndarray, k: int) -> np.ndarray:
    """Distance of h/||h|| of each of the features (N,D) to its k-th nearest scaled bank
    row, exact: (N,) float64.
    """
    distances = np.empty(len(features))
    for rows in slices(len(features), QUERIES):
        queries = unit_rows(features[rows])
        distances[rows], certain = kth_distance(queries, bank, scale, k)
        unsure = np.flatnonzero(~certain)
        if len(unsure):
            distances[rows.start + unsure], _ = kth_distance(
                queries[unsure], bank, scale, k, np.float64
            )
    return distances


def mean_of_largest(
    features: np.ndarray, bank: np.ndarray, scale: np.ndarray, k: int
) -> np.ndarray:
    """Mean of the k largest products of h/||h|| with the scaled bank rows,
    for features (N,D): (N,) float64.

    The k + EXTRA best candidates in float32 are computed again in float64.
    """
    offset, means = np.zeros(len(bank)), np.empty(len(features))
    for part in slices(len(features), QUERIES):
        queries = unit_rows(features[part])
        _, index = largest_products(queries, bank, scale, offset, min(k + EXTRA, len(bank)))
        for rows, query, near in gathered(queries, bank, scale, index):
            products = np.sort((query * near).sum(axis=2), axis=1)
            means[part.start + rows.start : part.start + rows.stop] = products[:, -k:].mean(axis=1)
    return means
