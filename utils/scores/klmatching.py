"""KL matching: divergence of a softmax from the typical softmax of a class."""

import numpy as np
import torch

from .base import Outputs, Paper, Score
from .exact.blocks import by_blocks
from .exact.logarithms import log_softmax_parts
from .msp import log_softmax


def least_divergence(logits: np.ndarray, log_templates: np.ndarray) -> np.ndarray:
    """min_k KL(softmax f || d_k): logits (N,C), log d (K,C) -> (N,) float64.

    The product of matrices finds the nearest template; its divergence is then summed from
    differences, which keep the digits of a small divergence.
    """
    top, shifted, p, total = log_softmax_parts(logits)
    log_p, templates = shifted - total.log1p(), torch.from_numpy(log_templates)
    p.numpy()[top] = 1.0
    p /= 1 + total
    nearest = (p @ templates.T).numpy().argmax(axis=1)
    return (p * (log_p - templates[nearest])).sum(dim=1).numpy()


def log_mean(log_p: np.ndarray) -> np.ndarray:
    """log of the mean (C,) of p (n,C), given as log p: finite where every p rounds to 0."""
    top = log_p.max(axis=0)
    return top + np.log(np.exp(log_p - top).mean(axis=0))


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
        means = [log_mean(log_softmax(train.logits[predicted == k])) for k in np.unique(predicted)]
        self.stats = {"log_templates": np.stack(means)}
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        return by_blocks(lambda f: least_divergence(f, self.stats["log_templates"]), outputs.logits)
