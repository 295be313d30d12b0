"""NNGuide: the energy, guided by the similarity to energy-scaled training features."""

import numpy as np

from .base import Outputs, Paper, Score, energy_of
from .exact.blocks import by_blocks
from .exact.nearest import inverse_norms, mean_of_largest, take_bank
from .knn import Banked


class NNGuide(Banked):
    """Minus S(x) times the mean of the k largest S(z) cos(h(x),
    h(z)) over the training images z, S = logsumexp f.

    Logits (N,C), features (N,D) -> (N,) float64; unbounded; larger = more OOD. The k + 32 best
    candidates in float32 are computed again in float64. A zero vector has similarity 0. bank and
    sample as in KNN. ValueError: k below 1 or above the number of images in the bank, unknown bank,
    sample outside 0 < sample <= 1. Source: Park et al. 2023, guidance G(x) and score G(x) S(x); k =
    10; ImageNet: 1 % of the images.
    """

    name = "nnguide"
    formula = "-S(x) mean of the k largest S(z) cos(h(x), h(z)), S = logsumexp f"
    needs = ("logits", "features", "train")
    paper = Paper(
        "Nearest Neighbor Guidance for Out-of-Distribution Detection",
        "Park et al.",
        "ICCV 2023",
        "arXiv:2309.14888",
    )
    defaults = {"k": 10, "bank": "fp32", "sample": 1.0}
    per_dataset = {"imagenet": {"sample": 0.01}}
    grid = {"k": (1, 10, 50, 100)}

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        bank, rows = take_bank(train.features, self.bank, self.sample)
        logsum = -by_blocks(energy_of, train.logits[rows])
        self.stats = {"bank": bank, "scale": logsum * inverse_norms(bank)}
        self.check_size()
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        self.check_size()
        guidance = mean_of_largest(outputs.features, **self.stats, k=self.k)
        return guidance * by_blocks(energy_of, outputs.logits)
