"""KL matching: divergence of a softmax from the typical softmax of a class."""

import numpy as np
from scipy.special import logsumexp

from .base import Outputs, Paper, Score
from .exact.blocks import by_blocks
from .msp import log_softmax


def least_divergence(logits: np.ndarray, log_templates: np.ndarray) -> np.ndarray:
    """min_k KL(softmax f || d_k): logits (N,C), log d (K,C) -> (N,) float64.

    The product of matrices finds the nearest template; its divergence is then summed from
    differences, which keep the digits of a small divergence.
    """
    log_p = log_softmax(logits)
    p = np.exp(log_p)
    nearest = (p @ log_templates.T).argmax(axis=1)
    return (p * (log_p - log_templates[nearest])).sum(axis=1)


class KLMatching(Score):
    """KL divergence of the softmax p from the nearest class template, min_k KL(p || d_k).

    d_k: mean softmax of the images predicted as class k; a class that no image is predicted as has
    no template. Logits (N,C) -> (N,) float64 >= 0 (up to rounding); larger = more OOD. Labels are
    not needed. ValueError: no training image.
    Source: Hendrycks et al. 2022, KL matching. Departure: the paper takes the templates from a
    validation set, here they come from the ID training images,
    on which a network is more confident.
    """

    name = "klmatching"
    formula = "min_k KL(softmax f || d_k), d_k = mean softmax of those predicted as k"
    needs = ("logits", "train")
    paper = Paper(
        "Scaling Out-of-Distribution Detection for Real-World Settings",
        "Hendrycks et al.",
        "ICML 2022",
        "arXiv:1911.11132",
    )

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        predicted = train.logits.argmax(axis=1)
        sums = {
            k: logsumexp(log_softmax(train.logits[predicted == k]), axis=0)
            for k in np.unique(predicted)
        }
        self.stats = {
            "log_templates": np.stack([sums[k] - np.log((predicted == k).sum()) for k in sums])
        }
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        return by_blocks(lambda f: least_divergence(f, self.stats["log_templates"]), outputs.logits)
