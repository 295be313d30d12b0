"""NCI: how well the centred feature points along its class weight, and how long the feature is."""

import numpy as np

from .base import Outputs, Paper, Score
from .exact.blocks import by_blocks, mean_row, row_norms


class NCI(Score):
    """Minus the projection of w_y on the centred feature's direction,
    minus alpha times the feature's L1 norm.

    -(h - mu).w_y / ||h - mu|| - alpha ||h||_1 with y the predicted class and mu the training mean.
    Logits (N,C), features (N,D) -> (N,) float64; unbounded; larger = more OOD. At h = mu the first
    term is 0. ValueError: alpha negative.
    Source: Liu & Qin 2025, pScore and its feature-norm filter. The paper tunes alpha on validation
    data; the default is the one of the authors' OpenOOD configuration, the grid theirs.
    """

    name = "nci"
    formula = "-(h - mu).w_y / ||h - mu|| - alpha ||h||_1"
    needs = ("logits", "features", "head", "train")
    paper = Paper(
        "Detecting Out-of-distribution through the Lens of Neural Collapse",
        "Liu and Qin",
        "CVPR 2025",
        "arXiv:2311.01479",
    )
    defaults = {"alpha": 0.0001}
    grid = {"alpha": (0.0001, 0.001, 0.01, 0.1)}

    def check(self) -> None:
        self.require("alpha", self.alpha >= 0, "must not be negative")

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        self.stats = {"mean": mean_row(train.features)}
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        weight = outputs.weight.astype(np.float64)

        def nci(logits, features):
            centred = features - self.stats["mean"]
            along = np.einsum("nd,nd->n", centred, weight[logits.argmax(axis=1)])
            norms = row_norms(centred)
            cosine = np.divide(along, norms, out=np.zeros_like(along), where=norms > 0)
            return -cosine - self.alpha * np.abs(features).sum(axis=1)

        return by_blocks(nci, outputs.logits, outputs.features)
