"""Maximum softmax probability, and the log-softmax that other scores of the logits share."""

import numpy as np

from .base import Outputs, Paper, Score
from .exact.blocks import by_blocks
from .exact.logarithms import log_softmax_parts


def log_softmax(logits: np.ndarray, T: float = 1.0) -> np.ndarray:
    """log softmax(f/T): (N,C) logits -> (N,C) float64 in [-inf, 0];
    the largest entry of a row is exact near 0.

    log p of the predicted class is -log1p(sum over the others of exp(f_c - max f)): the usual form
    rounds to 0 once the others together weigh less than 1e-16 and so makes
    ties of confident images.
    """
    _, shifted, _, total = log_softmax_parts(np.asarray(logits, dtype=np.float64) / T)
    return (shifted - total.log1p()).numpy()


def log_msp(logits: np.ndarray, T: float = 1.0) -> np.ndarray:
    """max_c log softmax_c(f/T): (N,C) logits -> (N,) float64 in [-log C, 0];
    larger = more confident.
    """
    return by_blocks(lambda f: -log_softmax_parts(f / T)[-1].log1p().numpy()[:, 0], logits)


class MSP(Score):
    """Maximum softmax probability, as -log max_c softmax_c(f(x)).

    Logits (N,C) -> (N,) float64 in [0, log C]; larger = more OOD.
    Source: Hendrycks & Gimpel 2017. Departure: the paper's value is max softmax itself; -log of it
    is a strictly monotone map of -max softmax, so every metric is equal, but it does not saturate
    (softmax in float32 is exactly 1.0 for many ID images, which makes ties).
    """

    name = "msp"
    formula = "-log max_c softmax_c(f)"
    needs = ("logits",)
    paper = Paper(
        (
            "A Baseline for Detecting Misclassified and Out-of-Distribution "
            "Examples in Neural Networks"
        ),
        "Hendrycks and Gimpel",
        "ICLR 2017",
        "arXiv:1610.02136",
    )

    def score(self, outputs: Outputs) -> np.ndarray:
        return -log_msp(outputs.logits)
