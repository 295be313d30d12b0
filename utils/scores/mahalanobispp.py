"""Mahalanobis++: the Mahalanobis distance on features of unit length."""

import numpy as np

from .base import Outputs, Paper, Score, labels_of
from .exact.blocks import by_blocks
from .exact.gaussian import fit_gaussians, squared_distances, whitening
from .exact.nearest import inverse_norms, unit_rows


class MahalanobisPP(Score):
    """Squared Mahalanobis distance of z = h/||h|| to the nearest class mean of such features,
    min_c (z-mu_c)' P (z-mu_c).

    Features are normalised before means and covariance are taken; the means are not normalised
    again. Features (N,D) -> (N,) float64 >= 0; larger = more OOD. No hyper-parameter, no input
    step. A zero feature stays zero (the paper's division gives NaN there). A direction in which the
    training features are constant counts with the floor of variance of ``exact.gaussian``.
    ValueError: training images without labels.
    Source: Mueller and Hein 2025; covariance divided by N, as their ImageNet code.
    """

    name = "mahalanobis++"
    formula = "min_c (z-mu_c)' P (z-mu_c), z = h/||h||"
    needs = ("features", "train")
    paper = Paper(
        "Mahalanobis++: Improving OOD Detection via Feature Normalization",
        "Mueller and Hein",
        "ICML 2025",
        "arXiv:2505.18032",
    )

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        labels = labels_of(train, self.name)
        means, _, covariance, noise = fit_gaussians(
            train.features, labels, inverse_norms(train.features)
        )
        self.stats = {"means": means, "V": whitening(covariance, noise)}
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        def nearest(h):
            return squared_distances(unit_rows(h), **self.stats).min(axis=1)

        return by_blocks(nearest, outputs.features)
