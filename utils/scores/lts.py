"""LTS: scale the logits by how few features carry the activation, then the energy."""

import numpy as np

from .ash import BY_COUNT, RULE, Shaped, top_sum
from .base import Outputs, Paper, energy_of
from .exact.blocks import by_blocks


class LTS(Shaped):
    """Energy of s^2 f, s = sum of relu(h) / sum of its top (100-p) %.

    Logits (N,C), features (N,D) -> (N,) float64; unbounded; larger = more OOD. The whole logits are
    scaled, bias included; nothing is fitted. s is 1 where no feature is positive. ValueError: p
    outside 0 <= p < 100.
    Source: Djurisic et al. 2024, p = 95 for a DenseNet on CIFAR, here by its count of channels
    (``ash.KEPT``), and for a ResNet-50 on ImageNet.
    """

    name = "lts"
    formula = "energy of s^2 f, s = sum relu(h) / sum of top (100-p) % of relu(h)"
    needs = ("logits", "features")
    paper = Paper(
        "Logit Scaling for Out-of-Distribution Detection",
        "Djurisic et al.",
        "arXiv 2024",
        "arXiv:2409.01175",
    )
    defaults = {"p": BY_COUNT}
    rule = RULE
    per_dataset = {"imagenet": {"p": 95.0}}
    grid = {"p": (BY_COUNT, 65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0)}

    def score(self, outputs: Outputs) -> np.ndarray:
        def energy(f, h):
            h = np.maximum(h, 0.0)
            whole, top = h.sum(axis=1), top_sum(h, self.p)
            s = np.divide(whole, top, out=np.ones_like(whole), where=top > 0)
            return energy_of(s[:, None] ** 2 * f)

        return by_blocks(energy, outputs.logits, outputs.features)
