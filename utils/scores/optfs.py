"""OptFS: features shaped by how much their value has told of the predicted class."""

import numpy as np

from .base import Outputs, Paper, Score
from .exact.blocks import by_blocks, slices
from .exact.quantile import percentile_of

BINS = 100


class OptFS(Score):
    """-sum_d W[y,d] theta(h_d) h_d, y the predicted class, theta a step function of the value.

    100 equal bins lie between the 0.1 and 99.9 percentiles of all training activations; a bin's
    theta is the training images' mean of sum W[y,d] h_d over the features in it, all thetas scaled
    to length 1000. Values outside the bins count as 0. Logits (N,C), features (N,D), head -> (N,)
    float64; unbounded; larger = more OOD. No hyper-parameter. Training features that are all equal
    have no bins: theta is 0 and so is the score.
    Source: Zhao et al. 2024, the closed form with its default score: no bias.
    """

    name = "optfs"
    formula = "-w_y.h', h'_d = theta(bin of h_d) h_d"
    needs = ("logits", "features", "head", "train")
    paper = Paper(
        "Towards Optimal Feature-Shaping Methods for Out-of-Distribution Detection",
        "Zhao et al.",
        "ICLR 2024",
        "arXiv:2402.00865",
    )

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        edges = np.linspace(
            percentile_of(train.features, 0.1), percentile_of(train.features, 99.9), BINS + 1
        )
        self.stats = {"edges": edges}
        importance = np.zeros(BINS + 2)
        for rows in slices(len(train)):
            part = train.take(rows)
            shares, index = self.shares(part.logits, part.features, train.weight)
            importance += np.bincount(index.ravel(), shares.ravel(), minlength=BINS + 2)
        importance[[0, -1]] = 0.0  # outside the bins
        length = np.linalg.norm(importance)
        self.stats["theta"] = 1000 * importance / length if length else importance
        return self

    def shares(
        self, logits: np.ndarray, features: np.ndarray, weight: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """W[y,d] h_d (n,D) float64, and the bin of h_d, 1 to 100, 0 and 101 outside."""
        edges = self.stats["edges"]
        features = features.astype(np.float64)
        index = np.searchsorted(edges, features, side="right")
        index[features == edges[-1]] = BINS  # the last bin has both its ends
        return weight.astype(np.float64)[logits.argmax(axis=1)] * features, index

    def score(self, outputs: Outputs) -> np.ndarray:
        def shaped(f, h):
            shares, index = self.shares(f, h, outputs.weight)
            return -(shares * self.stats["theta"][index]).sum(axis=1)

        return by_blocks(shaped, outputs.logits, outputs.features)
