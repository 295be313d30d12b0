"""Exact search for the nearest rows of a bank, found in float32 and measured in float64."""

from collections.abc import Iterator

import numpy as np
import torch

from .blocks import by_blocks, row_norms, slices

QUERIES = 4096  # for which a block of the bank is scaled once
TOGETHER = 512  # queries x 8,192 bank rows of float32 products are 16 MiB
BANK_ROWS = 8192
EXTRA = 32  # ranks beyond the k-th that are computed again in float64
WINDOW = 16  # ranks on either side of the k-th that are measured again, and found to be enough
GATHERED = 2**18  # float64 entries of bank rows gathered at once: 2 MiB


def inverse_norms(features: np.ndarray) -> np.ndarray:
    """1/||h|| (N,) float64 of features (N,D); 0 for a zero vector,
    which so stays one when normalised.
    """
    return reciprocals(by_blocks(row_norms, features))


def unit_rows(features: np.ndarray) -> np.ndarray:
    """Features (n,D) as unit vectors in float64."""
    features = features.astype(np.float64)
    # PyTorch is faster than NumPy at a factor for each row
    torch.from_numpy(features).mul_(torch.from_numpy(reciprocals(row_norms(features)))[:, None])
    return features


def reciprocals(norms: np.ndarray) -> np.ndarray:
    """1/norm (n,), and 0 for 0."""
    return np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)


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
    count: int,
    absent: float = 0.0,
    dtype: type = np.float32,
) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` largest of q.(scale_j z_j) over the bank, a row of scale 0 having the product
    ``absent``: values and rows, (n,count), descending.

    queries (n,D) float64, bank (N,D) of any float type, scale (N,). Computed in ``dtype``, block by
    block.
    """
    queries = torch.from_numpy(queries.astype(dtype))
    none = queries.new_empty((len(queries), 0)), torch.empty((len(queries), 0), dtype=torch.int64)
    found = [tuple(part[some] for part in none) for some in slices(len(queries), TOGETHER)]
    for part in slices(len(bank), BANK_ROWS):
        rows = np.empty(bank[part].shape, dtype)
        # 1/||h|| may overflow float32
        np.multiply(bank[part], scale[part, None], out=rows, casting="same_kind")
        rows, zeros = torch.from_numpy(rows).T, np.flatnonzero(scale[part] == 0)
        for i, some in enumerate(slices(len(queries), TOGETHER)):
            products = queries[some] @ rows
            products[:, zeros] = absent
            found[i] = keep_largest(*found[i], products, part.start, count)
    values, index = (torch.cat(parts).numpy() for parts in zip(*found, strict=True))
    return values, index


def keep_largest(
    values: torch.Tensor, index: torch.Tensor, products: torch.Tensor, start: int, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``count`` largest of what is kept so far, values and rows (n,m), descending, and of the
    products (n,r) with the bank rows from ``start`` on.
    """
    if values.shape[1] < count:
        best, where = products.topk(min(count, products.shape[1]), dim=1)
    else:
        best, where = above(products, values[:, -1:])
    values = torch.cat([values, best], dim=1)
    values, keep = values.topk(min(count, values.shape[1]), dim=1)
    return values, torch.cat([index, where + start], dim=1).gather(1, keep)


def above(products: torch.Tensor, least: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The products (n,r) larger than their row's ``least`` (n,1), and their columns, both (n,m)
    with -inf where a row has fewer than m of them.

    After the first blocks they are few, and comparing is several times faster than sorting.
    """
    found = np.flatnonzero((products > least).numpy())
    rows, columns = np.divmod(found, products.shape[1])
    counts = np.bincount(rows, minlength=len(products))
    place = np.arange(len(found)) - np.repeat(counts.cumsum() - counts, counts)
    best = products.new_full((len(products), counts.max()), -np.inf)
    where = torch.zeros(best.shape, dtype=torch.int64)
    best.numpy()[rows, place] = products.numpy().ravel()[found]
    where.numpy()[rows, place] = columns
    return best, where


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

    Ranks come from products in ``dtype``; ranks k-WINDOW..k+WINDOW are measured again as
    differences in float64. Certain: the rows just outside that window are further from the k-th
    product than rounding can move two products.
    """
    width, last, first = bank.shape[1], min(k + WINDOW, len(bank)), max(k - 1 - WINDOW, 0)
    # ||q - z||^2 = 2 - 2 q.z for a unit z; a zero vector is as far as one with q.z = 1/2
    values, index = largest_products(queries, bank, scale, last, 0.5, dtype)
    distance = np.empty((len(queries), last - first))
    for rows, query, near in gathered(queries, bank, scale, index[:, first:]):
        near -= query
        distance[rows] = np.sqrt(np.einsum("nmd,nmd->nm", near, near))
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
    means = np.empty(len(features))
    for part in slices(len(features), QUERIES):
        queries = unit_rows(features[part])
        _, index = largest_products(queries, bank, scale, min(k + EXTRA, len(bank)))
        for rows, query, near in gathered(queries, bank, scale, index):
            products = np.sort(np.einsum("nd,nmd->nm", query[:, 0], near), axis=1)
            means[part.start + rows.start : part.start + rows.stop] = products[:, -k:].mean(axis=1)
    return means
