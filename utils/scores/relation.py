"""Relation: how strongly an image is related to the training images, by feature and prediction."""

import numpy as np

from .base import Outputs, Paper, Score
from .exact.blocks import by_blocks, slices
from .exact.nearest import inverse_norms, unit_rows
from .msp import log_softmax

THRESHOLD = 0.03  # weaker relations are noise


class Relation(Score):
    """-sum_i k_i^t over the training images with k_i > 0.03, k_i = max(0, cos(h, h_i)) (p . p_i).

    p = softmax f. Logits (N,C), features (N,D) -> (N,) float64 <= 0; larger = more OOD. Keeps the
    training images' features and logits. ValueError: t not positive.
    Source: Kim et al. 2023, t from 1 to 8 chosen on validation OOD images; 1 is OpenOOD's.
    """

    name = "relation"
    formula = "-sum_i k_i^t where k_i > 0.03, k_i = max(0, cos(h, h_i)) (p . p_i)"
    needs = ("logits", "features", "train")
    paper = Paper(
        "Neural Relation Graph: A Unified Framework for Identifying Label Noise and Outlier Data",
        "Kim et al.",
        "NeurIPS 2023",
        "arXiv:2301.12321",
    )
    defaults = {"t": 1.0}
    grid = {"t": (1.0, 2.0, 4.0, 6.0, 8.0)}

    def check(self) -> None:
        self.require("t", self.t > 0, "must be positive")

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        self.stats = {
            "bank": train.features,
            "scale": inverse_norms(train.features),
            "logits": train.logits,
        }
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        s = self.stats

        def strength(f, h):
            z, p, total = unit_rows(h), np.exp(log_softmax(f)), np.zeros(len(h))
            for rows in slices(len(s["bank"])):
                cosine = z @ (s["bank"][rows] * s["scale"][rows, None]).T
                k = cosine * (p @ np.exp(log_softmax(s["logits"][rows])).T)
                related = k > THRESHOLD
                total += np.where(related, np.where(related, k, 0.0) ** self.t, 0.0).sum(axis=1)
            return -total

        return by_blocks(strength, outputs.logits, outputs.features)
