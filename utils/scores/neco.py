"""NECO: how much of a feature lies in the space that the classes span."""

import numpy as np

from .base import Outputs, Paper, Score
from .exact.blocks import by_blocks, covariance_about, mean_row, row_norms
from .exact.gaussian import rounding_variance


class NECO(Score):
    """-||V'x|| / ||x||, x the standardised feature, V the d first principal directions.

    x = (h - mean) / sd of the training features, a constant channel divided by 1. Logits (N,C),
    features (N,D) -> (N,) float64; without the factor in [-1, 0]; larger = more OOD. d: 0 = C - 1,
    the dimension of the space that the means of C classes span. maxlogit: 1 = with the factor
    max_c f_c, 0 = without, as the paper has it for residual networks, the kind of this project's.
    Where max f is negative the factor turns the sign; the paper says nothing of it. x = 0 gives 0.
    ValueError: d negative or above the features' width, maxlogit neither 0 nor 1.
    Source: Ben Ammar et al. 2024; its d is an argument without a default.
    """

    name = "neco"
    formula = "-||V'x|| / ||x||, x = (h - mean)/sd, V = first d principal directions"
    needs = ("logits", "features", "train")
    paper = Paper(
        "NECO: NEural Collapse Based Out-of-distribution detection",
        "Ben Ammar et al.",
        "ICLR 2024",
        "arXiv:2310.06823",
    )
    defaults = {"d": 0, "maxlogit": 0}
    grid = {"d": (5, 10, 20, 50), "maxlogit": (0, 1)}

    def check(self) -> None:
        self.require("d", self.d >= 0, "must not be negative (0 = C - 1)")
        self.require("maxlogit", self.maxlogit in (0, 1), "is neither 0 nor 1")

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        width, d = train.features.shape[1], self.d or train.logits.shape[1] - 1
        if not 0 < d <= width:
            raise ValueError(
                f"score '{self.name}': d={d} is not a dimension of features of width {width}. "
                f"Choose 1 <= d <= {width}"
            )
        mean = mean_row(train.features)
        covariance = covariance_about(mean, train.features)
        variance = np.diag(covariance)
        varies = variance > rounding_variance(variance + mean**2, len(train))
        deviation = np.sqrt(np.where(varies, variance, 1.0))
        _, vectors = np.linalg.eigh(covariance / deviation[:, None] / deviation)
        self.stats = {"mean": mean, "deviation": deviation, "V": vectors[:, ::-1][:, :d].copy()}
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        def ratio(h, f):
            x = (h - self.stats["mean"]) / self.stats["deviation"]
            inside, whole = row_norms(x @ self.stats["V"]), row_norms(x)
            share = np.divide(inside, whole, out=np.zeros_like(whole), where=whole > 0)
            return -share * (f.max(axis=1) if self.maxlogit else 1.0)

        return by_blocks(ratio, outputs.features, outputs.logits)
