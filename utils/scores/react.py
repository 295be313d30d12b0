"""ReAct: clip the features, then the energy."""

import numpy as np

from .base import Outputs, Paper, Score, shaped_energy
from .exact.quantile import percentile_of


class ReAct(Score):
    """Energy of the logits of features clipped from above, E(W min(h, c) + b).

    (N,D) features and head -> (N,) float64; unbounded; larger = more OOD. The hyper-parameter c is
    the clip value itself; with its default 0.0 (unset) the clip value is the p-th percentile of all
    N*D training activations. c = inf gives the energy. ValueError: p outside 0..100, c negative.
    Source: Sun et al. 2021, ReAct(h; c) = min(h, c) on the penultimate layer;
    p = 90, ImageNet ResNet-50: c = 1.0.
    """

    name = "react"
    formula = "energy of W min(h,c) + b, c = p-th percentile of the training activations"
    needs = ("features", "head", "train")
    paper = Paper(
        "ReAct: Out-of-distribution Detection With Rectified Activations",
        "Sun et al.",
        "NeurIPS 2021",
        "arXiv:2111.12797",
    )
    defaults = {"p": 90.0, "c": 0.0}
    per_dataset = {"imagenet": {"c": 1.0}}
    yields = {"c": "p"}
    grid = {"p": (80.0, 85.0, 90.0, 95.0, 99.0)}

    def check(self) -> None:
        self.require("p", 0 <= self.p <= 100, "is not a percentile in 0..100")
        self.require("c", self.c >= 0, "must be positive, or 0 for the percentile p")

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        self.stats = {"c": np.array(self.c or percentile_of(train.features, self.p))}
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        return shaped_energy(outputs, lambda h: np.minimum(h, self.stats["c"]))
