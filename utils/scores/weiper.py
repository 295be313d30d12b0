"""WeiPer+KLD: histograms of features and of perturbed logits against those of training images."""

from collections.abc import Iterator

import numpy as np

from .base import Outputs, Paper, Score
from .exact.blocks import by_blocks, slices
from .msp import log_softmax

SEED = 0  # of the perturbations, which are drawn once
FEATURES, LOGITS = 0.01, 0.025  # what is added to every bin before two histograms are compared


def row_histograms(values: np.ndarray, span: np.ndarray, bins: int) -> np.ndarray:
    """Counts (n,bins) of the values (n,m) of each row in equal bins over ``span`` (low, high);
    what lies outside counts in the bin at that end.
    """
    low, high = span
    width = (high - low) / bins or 1.0
    index = np.clip((values - low) / width, 0, bins - 1).astype(np.int64)
    index += bins * np.arange(len(values))[:, None]
    return np.bincount(index.ravel(), minlength=bins * len(values)).reshape(len(values), bins)


def smoothed(histograms: np.ndarray, size: int) -> np.ndarray:
    """Moving average of ``size`` bins along each row, of what there is of them at the ends."""
    sums = np.cumsum(np.pad(histograms, ((0, 0), (1, 0))), axis=1)
    at = np.arange(histograms.shape[1])
    first = np.maximum(at - (size - 1) // 2, 0)
    last = np.minimum(at + size // 2, histograms.shape[1] - 1)
    return (sums[:, last + 1] - sums[:, first]) / (last + 1 - first)


def symmetric_kl(one: np.ndarray, other: np.ndarray, added: float) -> np.ndarray:
    """KL(a||b) + KL(b||a) of rows of non-negative numbers, each with ``added`` in every bin,
    brought to sum 1.
    """
    a, b = ((part + added) / (part + added).sum(axis=-1, keepdims=True) for part in (one, other))
    return ((a - b) * (np.log(a) - np.log(b))).sum(axis=-1)


class WeiPer(Score):
    """KL(q) + lambda1 KL(q~) - lambda2 mean_j max softmax t_j: how far the histograms of an image's
    features (q) and perturbed logits (q~) are from the training images' mean ones.

    t_j = W_j h + b for r heads W_j = W + delta ||W_c|| u, u random directions drawn once. KL is the
    symmetric divergence; ranges of the bins are those of the training values; the image's
    histograms are averaged over s1 (s2) bins. Features (N,D) and head -> (N,) float64; larger =
    more OOD. ValueError: r, bins, s1 or s2 below 1, delta negative.
    Source: Granz et al. 2024, the values for CIFAR-10, CIFAR-100 and ImageNet (found on validation
    OOD images). Their code draws other perturbations for every batch; here they are kept, so that
    training and test images see the same heads.
    """

    name = "weiper"
    formula = "KL(m, q) + lambda1 KL(m~, q~) - lambda2 mean_j max softmax t_j"
    needs = ("features", "head", "train")
    paper = Paper(
        "WeiPer: OOD Detection using Weight Perturbations of Class Projections",
        "Granz et al.",
        "NeurIPS 2024",
        "arXiv:2405.17164",
    )
    defaults = {
        "r": 100,
        "delta": 1.8,
        "bins": 100,
        "lambda1": 2.5,
        "lambda2": 0.1,
        "s1": 4,
        "s2": 15,
    }
    per_dataset = {
        "cifar100": {"delta": 2.4, "lambda1": 0.1, "lambda2": 1.0, "s2": 40},
        "imagenet": {"delta": 2.4, "lambda2": 0.25, "s1": 40},
    }
    grid = {"delta": (1.8, 2.0, 2.4), "lambda1": (0.1, 2.5), "lambda2": (0.1, 1.0)}

    def check(self) -> None:
        for key in ("r", "bins", "s1", "s2"):
            self.require(key, getattr(self, key) >= 1, "must be at least 1")
        self.require("delta", self.delta >= 0, "must not be negative")

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        weight = train.weight.astype(np.float64)
        u = np.random.default_rng(SEED).normal(size=(self.r, *weight.shape))
        u *= self.delta / np.linalg.norm(u, axis=2, keepdims=True)
        heads = weight + np.linalg.norm(weight, axis=1, keepdims=True) * u
        self.stats = {"heads": heads, "bias": train.bias.astype(np.float64)}
        ends = np.array([self.ends(h) for h in self.blocks(train)])
        lowest, highest = ends.min(axis=0), ends.max(axis=0)
        self.stats["span"] = np.array([lowest[0], highest[1]])
        self.stats["span_t"] = np.array([lowest[2], highest[3]])
        sums = [0.0, 0.0]
        for h in self.blocks(train):
            q, q_t, _ = self.histograms(h)
            sums[0] += q.sum(axis=0)
            sums[1] += q_t.sum(axis=0)
        self.stats["m"], self.stats["m_t"] = (part / len(train) for part in sums)
        return self

    def blocks(self, train: Outputs) -> Iterator[np.ndarray]:
        """The training features, a block (n,D) float64 at a time."""
        for rows in slices(len(train)):
            yield train.features[rows].astype(np.float64)

    def ends(self, h: np.ndarray) -> tuple[float, float, float, float]:
        """Smallest and largest feature, smallest and largest perturbed logit of a block."""
        logits = [(t.min(), t.max()) for t in self.perturbed(h)]
        low, high = zip(*logits, strict=True)
        return h.min(), h.max(), min(low), max(high)

    def perturbed(self, h: np.ndarray) -> Iterator[np.ndarray]:
        """The logits (n,C) of features (n,D) through one perturbed head after another."""
        for head in self.stats["heads"]:
            yield h @ head.T + self.stats["bias"]

    def histograms(self, h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Histograms (n,bins) of features and of perturbed logits, each of sum 1, and the mean
        (n,) of the largest probabilities.
        """
        q = row_histograms(h, self.stats["span"], self.bins) / h.shape[1]
        counts, confidence = np.zeros((len(h), self.bins)), np.zeros(len(h))
        for t in self.perturbed(h):
            counts += row_histograms(t, self.stats["span_t"], self.bins)
            confidence += np.exp(log_softmax(t).max(axis=1))
        heads, classes, _ = self.stats["heads"].shape
        return q, counts / (heads * classes), confidence / heads

    def score(self, outputs: Outputs) -> np.ndarray:
        def divergence(h):
            q, q_t, confidence = self.histograms(h)
            return (
                symmetric_kl(self.stats["m"], smoothed(q, self.s1), FEATURES)
                + self.lambda1 * symmetric_kl(self.stats["m_t"], smoothed(q_t, self.s2), LOGITS)
                - self.lambda2 * confidence
            )

        return by_blocks(divergence, outputs.features)
