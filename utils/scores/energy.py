"""Energy score."""

import numpy as np

from .base import Outputs, Paper, Score, energy_of
from .exact.blocks import by_blocks


class Energy(Score):
    """Free energy of the logits, E(x) = -T logsumexp(f(x)/T).

    (N,C) logits -> (N,) float64; unbounded; larger (less negative) = more OOD.
    Source: Liu et al. 2020, equation 4, T = 1.
    """

    name = "energy"
    formula = "-T logsumexp(f/T)"
    needs = ("logits",)
    paper = Paper(
        "Energy-based Out-of-distribution Detection",
        "Liu et al.",
        "NeurIPS 2020",
        "arXiv:2010.03759",
    )
    defaults = {"T": 1.0}
    grid = {"T": (0.5, 1.0, 2.0, 5.0, 10.0)}

    def check(self) -> None:
        self.require("T", self.T > 0, "must be positive")

    def score(self, outputs: Outputs) -> np.ndarray:
        return by_blocks(lambda f: energy_of(f, self.T), outputs.logits)
