"""DICE: keep the head's weights that contribute most, then the energy; alone and with ReAct."""

import numpy as np

from .base import Outputs, Paper, Score, shaped_energy
from .exact.blocks import mean_row
from .exact.quantile import percentile_of


def sparsify(weight: np.ndarray, mean: np.ndarray, p: float) -> np.ndarray:
    """W*M (C,D) float64 with M = 1[V > p-th percentile of V] and V = W *
    mean_train(h) (C,D), signed.

    p = 0 keeps every weight; the strict comparison alone would drop the smallest
    one (as pytorch-ood does).
    """
    weight = np.asarray(weight, dtype=np.float64)
    if p == 0:
        return weight
    contribution = weight * mean
    return np.where(contribution > np.percentile(contribution, p), weight, 0.0)


class DICE(Score):
    """Energy of the logits of a sparsified head, E((W*M) h + b).

    M keeps the weights whose mean contribution W * mean_train(h) lies above the p-th percentile
    over the whole (C,D) matrix. (N,D) features and head -> (N,) float64; unbounded; larger = more
    OOD. p = 0 gives the energy. Contributions that are all equal (constant zero features) leave no
    weight, and so the same score for every image. ValueError: p outside 0..100.
    Source: Sun & Li 2022, contribution matrix and top-k mask of the method section;
    p = 90 CIFAR, 70 ImageNet.
    """

    name = "dice"
    formula = "energy of (W*M) h + b, M = 1[W * mean_train(h) > p-th percentile]"
    needs = ("features", "head", "train")
    paper = Paper(
        "DICE: Leveraging Sparsification for Out-of-Distribution Detection",
        "Sun and Li",
        "ECCV 2022",
        "arXiv:2111.09805",
    )
    defaults = {"p": 90.0}
    per_dataset = {"imagenet": {"p": 70.0}}
    grid = {"p": (10.0, 30.0, 50.0, 70.0, 90.0)}

    def check(self) -> None:
        self.require("p", 0 <= self.p <= 100, "is not a percentile in 0..100")

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        self.stats = {"mean": mean_row(train.features)}
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        weight = sparsify(outputs.weight, self.stats["mean"], self.p)
        return shaped_energy(outputs, self.shape, weight)

    def shape(self, features: np.ndarray) -> np.ndarray:
        """What of the features (n,D) the head sees."""
        return features


class DICEReAct(DICE):
    """Energy of a sparsified head on clipped features, E((W*M) min(h, c) + b),
    M from the unclipped means.

    As DICE; c is the clip value, 0.0 (unset) = the clip_p-th percentile of all training activations
    (see ReAct). ValueError: p or clip_p outside 0..100, c negative.
    Source: Sun & Li 2022, DICE combined with ReAct; ImageNet ResNet-50: p = 10, c = 1.0.
    """

    name = "dice+react"
    formula = "energy of (W*M) min(h,c) + b, M from the unclipped means"
    defaults = {"p": 90.0, "c": 0.0, "clip_p": 90.0}
    per_dataset = {"imagenet": {"p": 10.0, "c": 1.0}}
    yields = {"c": "clip_p"}
    grid = {"p": (10.0, 50.0, 90.0), "clip_p": (85.0, 90.0, 95.0)}

    def check(self) -> None:
        super().check()
        self.require("clip_p", 0 <= self.clip_p <= 100, "is not a percentile in 0..100")
        self.require("c", self.c >= 0, "must be positive, or 0 for the percentile clip_p")

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        self.stats["c"] = np.array(self.c or percentile_of(train.features, self.clip_p))
        return self

    def shape(self, features: np.ndarray) -> np.ndarray:
        return np.minimum(features, self.stats["c"])
