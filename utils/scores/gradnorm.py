"""GradNorm: length of the last layer's gradient towards the uniform distribution."""

import numpy as np

from .base import Outputs, Paper, Score
from .exact.blocks import by_blocks
from .msp import log_softmax


def gradient_norm(logits: np.ndarray, features: np.ndarray, T: float) -> np.ndarray:
    """||d KL(u || softmax(f/T)) / dW||_1: logits (N,C), features (N,D) -> (N,) float64 >= 0.

    The gradient is the outer product of (p - 1/C)/T and h, whose L1 norm is the product of theirs.
    """
    p = np.exp(log_softmax(logits, T))
    return np.abs(p - 1 / p.shape[1]).sum(axis=1) / T * np.abs(features).sum(axis=1)


class GradNorm(Score):
    """Minus the L1 norm of the gradient of KL(u || softmax(f/T)) by the head's weight,
    -||h||_1 ||p - 1/C||_1 / T.

    u: the uniform distribution, p = softmax(f/T). Logits (N,C), features (N,D) -> (N,) float64 <=
    0; larger = more OOD. ValueError: T not positive.
    Source: Huang et al. 2021, its decomposition for the last layer, so no backward pass. The
    paper's code sums the cross-entropy over the classes in place of the mean: C times this value,
    every metric is equal.
    """

    name = "gradnorm"
    formula = "-||h||_1 ||softmax(f/T) - 1/C||_1 / T"
    needs = ("logits", "features")
    paper = Paper(
        "On the Importance of Gradients for Detecting Distributional Shifts in the Wild",
        "Huang et al.",
        "NeurIPS 2021",
        "arXiv:2110.00218",
    )
    defaults = {"T": 1.0}
    grid = {"T": (0.5, 1.0, 2.0, 4.0, 8.0)}

    def check(self) -> None:
        self.require("T", self.T > 0, "must be positive")

    def score(self, outputs: Outputs) -> np.ndarray:
        return -by_blocks(
            lambda f, h: gradient_norm(f, h, self.T), outputs.logits, outputs.features
        )
