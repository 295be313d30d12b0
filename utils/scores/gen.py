"""GEN: generalised entropy of the softmax."""

import numpy as np

from .base import Outputs, Paper, Score
from .exact.blocks import by_blocks
from .msp import log_softmax


def generalised_entropy(logits: np.ndarray, gamma: float, M: int) -> np.ndarray:
    """Sum over the M largest p of (p (1-p))^gamma with p = softmax f: (N,C) logits -> (N,) float64.

    In logarithms, log(1-p) = log(-expm1(log p)): where p rounds to 1,
    1-p to a small power is still far from 0.
    """
    log_p = log_softmax(logits)
    M = min(M, log_p.shape[1])
    largest = np.partition(log_p, -M, axis=1)[:, -M:]
    with np.errstate(divide="ignore"):
        return np.exp(gamma * (largest + np.log(-np.expm1(largest)))).sum(axis=1)


class GEN(Score):
    """Generalised entropy of the M largest softmax probabilities, sum p^gamma (1-p)^gamma.

    Logits (N,C) -> (N,) float64 in [0, M 4^-gamma]; larger = more OOD. gamma > 0; M >= 1 is at most
    C (above: all C). ValueError: gamma or M out of range.
    Source: Liu et al. 2023, gamma 0.1 and M 100 (of ImageNet's 1,000 classes). pytorch-ood gives
    the mean in place of the sum and clamps p to [1e-7, 1 - 1e-7], which makes ties of confident
    images; the paper does neither.
    """

    name = "gen"
    formula = "sum over the M largest p of p^gamma (1-p)^gamma"
    needs = ("logits",)
    paper = Paper(
        "GEN: Pushing the Limits of Softmax-Based Out-of-Distribution Detection",
        "Liu et al.",
        "CVPR 2023",
        "https://openaccess.thecvf.com/content/CVPR2023/html/Liu_GEN_Pushing_the_Limits_of_Softmax-Based_Out-of-Distribution_Detection_CVPR_2023_paper.html",
    )
    defaults = {"gamma": 0.1, "M": 100}
    grid = {"gamma": (0.01, 0.1, 0.5, 1.0, 2.0), "M": (10, 50, 100)}

    def check(self) -> None:
        self.require("gamma", self.gamma > 0, "must be positive")
        self.require("M", self.M >= 1, "must be at least 1")

    def score(self, outputs: Outputs) -> np.ndarray:
        return by_blocks(lambda f: generalised_entropy(f, self.gamma, self.M), outputs.logits)
