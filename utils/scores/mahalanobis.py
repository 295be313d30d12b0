"""Mahalanobis distance to the nearest class mean, and the Gaussian fit that RMDS shares."""
import numpy as np
import torch
from scipy.spatial.distance import cdist

from .base import Paper, Score, class_means
from .blocks import by_blocks

EPS = np.finfo(np.float64).eps


def fit_gaussians(train, name):
    """Means (K,D) of the K classes that occur, their shares (K,) of the images, common covariance (D,D), noise (D,).

    The covariance is sum_i (h_i - mu_{y_i})(h_i - mu_{y_i})' / N, summed class by class in float64. noise: the variance
    that rounding in a mean of N values can give a constant channel, (N eps)^2 times the channel's mean square.
    ValueError: no labels; ``name`` is the score that asks.
    """
    if train.labels is None:
        raise ValueError(f"score '{name}': fit needs training images with labels; "
                         f"there are {len(train)} images without labels")
    means, counts = class_means(train.features, train.labels, int(train.labels.max()) + 1)
    covariance = np.zeros((means.shape[1], means.shape[1]))
    for c in np.flatnonzero(counts):
        centred = train.features[train.labels == c] - means[c]
        covariance += centred.T @ centred
    means, shares, covariance = means[counts > 0], counts[counts > 0] / len(train), covariance / len(train)
    noise = (len(train) * EPS) ** 2 * (np.diag(covariance) + shares @ means ** 2)
    return means, shares, covariance, noise


def whitening(covariance, noise):
    """V (D,rank) float64 with V V' = the pseudo-inverse of a covariance (D,D): ||(h - mu) V||^2 is the distance.

    Decomposed is the correlation matrix, so that the unit of a channel does not matter. Channels of a variance up to
    ``noise`` (D,), and its eigenvalues up to D x 2.2e-16 of the largest, are rounding and count as 0: such directions,
    constant over the training images, add nothing to a distance.
    """
    deviation = np.sqrt(np.where(np.diag(covariance) > noise, np.diag(covariance), 0.0))
    inverse = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    values, vectors = np.linalg.eigh(covariance * inverse[:, None] * inverse)
    kept = values > len(values) * EPS * values.max()
    V = inverse[:, None] * vectors[:, kept] / np.sqrt(values[kept])
    if kept.all():
        return V
    # V V' now is one of many generalised inverses; between projections onto the range it is the pseudo-inverse
    basis = np.linalg.qr(deviation[:, None] * vectors[:, kept])[0]
    return basis @ (basis.T @ V)


def squared_distances(features, means, V):
    """Squared Mahalanobis distances (N,K) float64 of features (N,D) to means (K,D) under the whitening V."""
    centre = means.mean(axis=0)   # whitened offsets stay small, so that their differences keep their digits
    return cdist((features - centre) @ V, (means - centre) @ V, "sqeuclidean")


class Mahalanobis(Score):
    """Half the squared Mahalanobis distance to the nearest class mean, min_c (h-mu_c)' P (h-mu_c) / 2.

    mu_c: class means; P: pseudo-inverse of the one covariance of class-centred training features. With eps > 0, h is
    that of x~ = x - eps sign(grad_x of that minimum) / std per channel. Features (N,D) -> (N,) float64 >= 0; larger =
    more OOD. A class without a training image is left out of the minimum; directions in which no class varies are not
    seen.
    ValueError: eps negative; training images without labels.
    Source: Lee et al. 2018, its distance and input step on the penultimate features only: no feature ensemble over
    layers, no regression on OOD images. The half is not the paper's, but its code's. pytorch-ood does not divide the
    covariance by N and adds 1e-6 to its diagonal: its value is this one / N where the ridge does not matter.
    """

    name = "mahalanobis"
    formula = "min_c (h-mu_c)' P (h-mu_c) / 2"
    needs = ("features", "train")
    paper = Paper("A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks",
                  "Lee et al.", "NeurIPS 2018", "arXiv:1807.03888")
    defaults = {"eps": 0.0}
    grid = {"eps": (0.0, 0.0005, 0.001, 0.0014, 0.002, 0.005, 0.01)}

    def check(self):
        if not self.eps >= 0:
            raise ValueError(f"score '{self.name}': eps={self.eps} must not be negative (0 = no input step)")
        self.needs = ("features", "train", "gradient") if self.eps > 0 else ("features", "train")

    def fit(self, train):
        super().fit(train)
        means, _, covariance, noise = fit_gaussians(train, self.name)
        self.stats = {"means": means, "V": whitening(covariance, noise)}
        return self

    def objective(self, logits, features):
        """Sum over the batch of half the squared distance to the nearest mean: features (B,D) -> torch scalar >= 0."""
        means, V = (torch.as_tensor(self.stats[key]).to(features) for key in ("means", "V"))
        centre = means.mean(dim=0)
        with torch.no_grad():
            distances = torch.cdist((features - centre) @ V, (means - centre) @ V,
                                    compute_mode="donot_use_mm_for_euclid_dist")
        nearest = means[distances.argmin(dim=1)]
        return ((features - nearest) @ V).square().sum() / 2

    def score(self, outputs):
        means, V = self.stats["means"], self.stats["V"]
        return by_blocks(lambda h: squared_distances(h, means, V).min(axis=1) / 2, outputs.features)
