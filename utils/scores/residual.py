"""Residual: ViM's residual norm alone."""

import numpy as np

from .base import Outputs, Score
from .exact.subspace import residual_norm, residual_space
from .vim import ViM


class Residual(Score):
    """Norm of the feature's part outside the principal space, ||R'(h-u)||, with ViM's u, R and D.

    (N,D) features -> (N,) float64; >= 0, in units of the features; larger = more OOD.
    ValueError: D negative, or not below the feature width.
    Source: Wang et al. 2022, the residual score that ViM is built on.
    """

    name = "residual"
    formula = "||R'(h-u)||"
    needs = ("features", "head", "train")
    paper = ViM.paper
    defaults = ViM.defaults
    grid = ViM.grid
    check = ViM.check

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        self.stats = residual_space(train.features, train.weight, train.bias, self.D)
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        return residual_norm(self.stats, outputs.features)
