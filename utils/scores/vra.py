"""VRA: each feature cut at both ends of its own training values, then the energy."""

import numpy as np

from .base import Outputs, Paper, Score, shaped_energy

COLUMNS = 64  # channels whose quantiles are taken at once


class VRA(Score):
    """Energy of W h' + b, h'_d = 0 below the q1 quantile of channel d, its q2 quantile above that,
    h_d + lamb between.

    The quantiles are of the training features, channel by channel. (N,D) features and head -> (N,)
    float64; unbounded; larger = more OOD. q1 = 0, q2 = 1 leaves training features as they are.
    ValueError: not 0 <= q1 < q2 <= 1.
    Source: Xu et al. 2023, VRA for CIFAR-10: q1 0.6, q2 0.9, lamb 0; VRA+ is
    ``vra:q2=0.95,lamb=0.6``. On CIFAR-100 the paper takes q2 0.95 and scores by ODIN; here the
    energy throughout. OpenOOD's version clips with one pair of thresholds for all channels.
    """

    name = "vra"
    formula = "energy of W h' + b, h'_d = 0 below its q1, its q2 above, h_d + lamb between"
    needs = ("features", "head", "train")
    paper = Paper(
        "VRA: Variational Rectified Activation for Out-of-distribution Detection",
        "Xu et al.",
        "NeurIPS 2023",
        "arXiv:2302.11716",
    )
    defaults = {"q1": 0.6, "q2": 0.9, "lamb": 0.0}
    per_dataset = {"cifar100": {"q2": 0.95}}
    grid = {"q1": (0.0, 0.3, 0.6), "q2": (0.85, 0.9, 0.95, 0.99)}

    def check(self) -> None:
        if not 0 <= self.q1 < self.q2 <= 1:
            raise ValueError(
                f"score '{self.name}': q1={self.q1}, q2={self.q2} are not 0 <= q1 < q2 <= 1"
            )

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        width = train.features.shape[1]
        cuts = [
            np.quantile(
                train.features[:, start : start + COLUMNS].astype(np.float64),
                (self.q1, self.q2),
                axis=0,
            )
            for start in range(0, width, COLUMNS)
        ]
        low, high = np.concatenate(cuts, axis=1)
        self.stats = {"low": low, "high": high}
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        low, high = self.stats["low"], self.stats["high"]

        def shape(h):
            return np.where(h < low, 0.0, np.where(h > high, high, h + self.lamb))

        return shaped_energy(outputs, shape)
