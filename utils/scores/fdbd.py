"""fDBD: distance to the decision boundaries, relative to the distance from the training mean."""

import numpy as np
from scipy.spatial.distance import cdist

from .base import Outputs, Paper, Score
from .exact.blocks import by_blocks, mean_row, row_norms

TINY = 1e-12


class FDBD(Score):
    """Minus the mean distance to the other classes' decision boundaries over the
    distance to the training mean.

    -1/(C-1) sum_{c != y} (f_y - f_c) / (||w_y - w_c|| ||h - mu||) with y the predicted class.
    Logits (N,C), features (N,D) -> (N,) float64; <= 0; larger = more OOD. No hyper-parameter.
    Source: Liu & Qin 2024, the distances to the boundaries, regularised and averaged. Departures:
    ||h - mu|| is at least 1e-12, so that h = mu is finite; two classes with the same weight row
    have no boundary and add 0.
    """

    name = "fdbd"
    formula = "-mean_{c != y} (f_y - f_c) / (||w_y - w_c|| ||h - mu||)"
    needs = ("logits", "features", "head", "train")
    paper = Paper(
        "Fast Decision Boundary based Out-of-Distribution Detector",
        "Liu and Qin",
        "ICML 2024",
        "arXiv:2312.11536",
    )

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        self.stats = {"mean": mean_row(train.features)}
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        weight = outputs.weight.astype(np.float64)
        between = cdist(weight, weight)
        inverse = np.divide(1.0, between, out=np.zeros_like(between), where=between > 0)
        others = max(len(weight) - 1, 1)

        def distance(logits, features):
            predicted = logits.argmax(axis=1)
            gap = logits[np.arange(len(logits)), predicted][:, None] - logits
            total = np.einsum("nc,nc->n", gap, inverse[predicted])
            return -total / others / np.maximum(row_norms(features - self.stats["mean"]), TINY)

        return by_blocks(distance, outputs.logits, outputs.features)
