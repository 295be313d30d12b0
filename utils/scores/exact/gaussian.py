"""Gaussians with one covariance, singular ones included: their fit, and distances under them."""

import numpy as np
import torch
from scipy.spatial.distance import cdist

from .blocks import by_blocks

EPS = np.finfo(np.float64).eps


def fit_gaussians(
    features: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Means (K,D) of the K classes that occur, their shares (K,) of the images,
    common covariance (D,D), noise (D,).

    The covariance is sum_i (h_i - mu_{y_i})(h_i - mu_{y_i})' / N, summed class by class in float64.
    noise: the variance that rounding in a mean of N values can give a constant channel, (N eps)^2
    times the channel's mean square.
    """
    count = len(features)
    means, counts = class_means(features, labels, int(labels.max()) + 1)
    covariance = np.zeros((means.shape[1], means.shape[1]))
    for c in np.flatnonzero(counts):
        centred = features[labels == c] - means[c]
        covariance += centred.T @ centred
    means = means[counts > 0]
    shares = counts[counts > 0] / count
    covariance = covariance / count
    noise = (count * EPS) ** 2 * (np.diag(covariance) + shares @ means**2)
    return means, shares, covariance, noise


def whitening(covariance: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """V (D,rank) float64 with V V' = the pseudo-inverse of a covariance (D,D):
    ||(h - mu) V||^2 is the distance.

    Decomposed is the correlation matrix, so that the unit of a channel does not matter. Channels of
    a variance up to ``noise`` (D,), and its eigenvalues up to D x 2.2e-16 of the largest, are
    rounding and count as 0: such directions, constant over the training images,
    add nothing to a distance.
    """
    deviation = np.sqrt(np.where(np.diag(covariance) > noise, np.diag(covariance), 0.0))
    inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    values, vectors = np.linalg.eigh(covariance * inverse[:, None] * inverse)
    kept = values > len(values) * EPS * values.max()
    V = inverse[:, None] * vectors[:, kept] / np.sqrt(values[kept])
    if kept.all():
        return V
    # V V' now is one of many generalised inverses; between projections onto the
    # range it is the pseudo-inverse
    basis = np.linalg.qr(deviation[:, None] * vectors[:, kept])[0]
    return basis @ (basis.T @ V)


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


def class_means(
    features: np.ndarray, labels: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Class means (C,D) float64 and counts (C,) of features (N,D);
    a class with no image has NaN as its mean.

    Sums are accumulated class by class in float64, never by concatenation.
    """
    counts = np.bincount(labels, minlength=classes)
    sums = np.zeros((classes, features.shape[1]))
    for c in np.flatnonzero(counts):
        sums[c] = features[labels == c].sum(axis=0, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return sums / counts[:, None], counts


def nearest_squared(features: np.ndarray, means: np.ndarray, V: np.ndarray) -> np.ndarray:
    """Squared Mahalanobis distance (N,) float64 of features (N,D) to the
    nearest of the means (K,D).
    """
    return by_blocks(lambda h: squared_distances(h, means, V).min(axis=1), features)
