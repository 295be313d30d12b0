"""Gaussians with one covariance, singular ones included: their fit, and distances under them."""

import numpy as np
import torch
from scipy.spatial.distance import cdist

from .blocks import by_blocks

EPS = np.finfo(np.float64).eps
# Share of a direction's usual variance that it is taken to have at least. A direction in which the
# training features are constant would else count for nothing, or for everything.
FLOOR = 1e-6


def fit_gaussians(
    features: np.ndarray, labels: np.ndarray, scale: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means (K,D) of the K classes that occur, their shares (K,) of the images,
    common covariance (D,D), noise (D,); of features (N,D), each times its ``scale`` (N,) if given.

    The covariance is sum_i (h_i - mu_{y_i})(h_i - mu_{y_i})' / N, summed class by class in float64.
    noise: see ``rounding_variance``.
    """
    count, width = features.shape
    counts = np.bincount(labels)
    classes = np.flatnonzero(counts)
    means, shares = np.empty((len(classes), width)), counts[classes] / count
    covariance = np.zeros((width, width))
    for k, c in enumerate(classes):
        centred = scaled(features, labels == c, scale)
        means[k] = centred.mean(axis=0)
        centred -= means[k]
        covariance += centred.T @ centred
    covariance = covariance / count
    noise = rounding_variance(np.diag(covariance) + shares @ means**2, count)
    return means, shares, covariance, noise


def rounding_variance(mean_square: np.ndarray, count: int) -> np.ndarray:
    """The variance (D,) that rounding in a mean of ``count`` values can give a constant channel:
    (N eps)^2 times the channel's mean square (D,).
    """
    return (count * EPS) ** 2 * mean_square


def whitening(covariance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """V (D,D) float64 with V V' = the inverse of a covariance (D,D) that is kept from being
    singular: ||(h - mu) V||^2 is the distance.

    Decomposed is the correlation matrix, so that the unit of a channel does not matter. A channel
    of a variance up to ``noise`` (D,) is constant and gets the others' mean variance as its unit.
    Eigenvalues below ``FLOOR`` count as FLOOR: an image that leaves the space of the training
    features (a constant channel moves, two equal channels differ) is far from them, by what it
    leaves it.
    """
    variance = np.diag(covariance)
    varies = variance > noise
    usual = variance[varies].mean() if varies.any() else 1.0
    deviation = np.sqrt(np.where(varies, variance, usual))
    values, vectors = np.linalg.eigh(covariance / deviation[:, None] / deviation)
    return vectors / deviation[:, None] / np.sqrt(np.maximum(values, FLOOR))


def squared_distances(features: np.ndarray, means: np.ndarray, V: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distances (N,K) float64 of features (N,D) to means
    (K,D) under the whitening V.
    """
    # whitened offsets stay small, so that their differences keep their digits
    centre = means.mean(axis=0)
    return cdist((features - centre) @ V, (means - centre) @ V, "sqeuclidean")


def nearest_mean(features: torch.Tensor, means: torch.Tensor, V: torch.Tensor) -> torch.Tensor:
    """The mean (B,D) of means (K,D) that is nearest to each feature (B,D) under the whitening V;
    no gradient passes.
    """
    centre = means.mean(dim=0)
    with torch.no_grad():
        distances = torch.cdist(
            (features - centre) @ V,
            (means - centre) @ V,
            compute_mode="donot_use_mm_for_euclid_dist",
        )
    return means[distances.argmin(dim=1)]


def scaled(features: np.ndarray, rows: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    """The chosen rows of features, in float64 times their scale if there is one."""
    chosen = features[rows].astype(np.float64)
    if scale is not None:
        chosen *= scale[rows, None]
    return chosen


def class_means(
    features: np.ndarray, labels: np.ndarray, classes: int, scale: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Class means (C,D) float64 and counts (C,) of features (N,D), each times its ``scale`` (N,)
    if given; a class with no image has NaN as its mean.

    Sums are accumulated class by class in float64, never by concatenation.
    """
    counts = np.bincount(labels, minlength=classes)
    sums = np.zeros((classes, features.shape[1]))
    for c in np.flatnonzero(counts):
        sums[c] = scaled(features, labels == c, scale).sum(axis=0)
    with np.errstate(invalid="ignore"):
        return sums / counts[:, None], counts


def nearest_squared(features: np.ndarray, means: np.ndarray, V: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distance (N,) float64 of features (N,D) to the
    nearest of the means (K,D).
    """
    return by_blocks(lambda h: squared_distances(h, means, V).min(axis=1), features)
