"""Relative Mahalanobis distance."""

import numpy as np

from .base import Outputs, Paper, Score, labels_of
from .exact.gaussian import fit_gaussians, nearest_squared, whitening


class RMDS(Score):
    """Squared Mahalanobis distance to the nearest class less that to all training
    images, min_c d_c^2 - d_0^2.

    d_c: as in Mahalanobis, without the half; d_0: to the global mean under the covariance around
    the global mean. Features (N,D) -> (N,) float64; of either sign; larger = more OOD. No
    hyper-parameter. Degenerate covariances are answered as in Mahalanobis. ValueError:
    training images without labels.
    Source: Ren et al. 2021, the relative distance. The global covariance is the class-centred one
    plus that of the class means weighted by their shares: the same matrix without a second pass.
    pytorch-ood divides neither covariance by N and adds 1e-6 to both diagonals: its value is this
    one / N where the ridge does not matter.
    """

    name = "rmds"
    formula = "min_c d_c^2 - d_0^2"
    needs = ("features", "train")
    paper = Paper(
        "A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection",
        "Ren et al.",
        "ICML UDL workshop 2021",
        "arXiv:2106.09022",
    )

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        labels = labels_of(train, self.name)
        means, shares, covariance, noise = fit_gaussians(train.features, labels)
        mean = shares @ means
        between = ((means - mean).T * shares) @ (means - mean)
        self.stats = {
            "means": means,
            "V": whitening(covariance, noise),
            "mean": mean[None],
            "V_0": whitening(covariance + between, noise),
        }
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        s, h = self.stats, outputs.features
        return nearest_squared(h, s["means"], s["V"]) - nearest_squared(h, s["mean"], s["V_0"])
