"""SCALE: scale each image's features without pruning, then the energy."""

import numpy as np

from .ash import Shaped, scale_factor, top_sum
from .base import Paper


class SCALE(Shaped):
    """Energy of features scaled by exp(s1/s2), s1 the sum of h and s2 the sum of its top (100-p) %.

    (N,D) features and head -> (N,) float64; unbounded; larger = more OOD. As ASH-S, but nothing is
    set to zero. ValueError: p outside 0 <= p < 100.
    Source: Xu et al. 2024, SCALE, on the pooled penultimate features; p = 85, which generated noise
    chooses on the provided network too, of width 128. Departs from it where s2 <= 0 (features that
    can be negative, zero features): the ratio then is 1; and where the ratio is above 600: it is
    taken as 600, so that exp stays finite.
    """

    name = "scale"
    formula = "energy of W h exp(sum(h) / sum of top (100-p) % of h) + b"
    paper = Paper(
        "Scaling for Training Time and Post-hoc Out-of-distribution Detection Enhancement",
        "Xu et al.",
        "ICLR 2024",
        "arXiv:2310.00227",
    )
    defaults = {"p": 85.0}
    grid = {"p": (65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0)}

    def shape(self, features: np.ndarray) -> np.ndarray:
        return features * scale_factor(features.sum(axis=1), top_sum(features, self.p))
