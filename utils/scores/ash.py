"""ASH: activation shaping of each image's features in three variants, then the energy."""

import numpy as np

from .base import Outputs, Paper, Score, shaped_energy

PAPER = Paper(
    "Extremely Simple Activation Shaping for Out-of-Distribution Detection",
    "Djurisic et al.",
    "ICLR 2023",
    "arXiv:2209.09858",
)
# Channels that p = 95 % leaves of the papers' DenseNet, 342 wide. The same percent leaves six of a
# WRN-40-2's 128, too few to tell images apart, so that by default the count is kept, not the share.
KEPT = 17
BY_COUNT = -1.0  # the p that stands for it
RULE = f"-1 = the {KEPT} largest channels kept: p 86.7 at width 128; paper: 95 at 342"
LARGEST_RATIO = 600.0  # exp(600) = 1e260 leaves room for the product with the logits in float64


def kept(width: int, p: float) -> int:
    """How many of ``width`` channels p leaves: D - round(D p/100), at least one; min(KEPT, D) where
    p is BY_COUNT.
    """
    if p == BY_COUNT:
        return min(KEPT, width)
    return max(width - int(np.round(width * p / 100)), 1)


def top_mask(features: np.ndarray, p: float) -> np.ndarray:
    """True for the ``kept`` largest features of each row (n,D); of equal ones the first is kept."""
    width, k = features.shape[1], kept(features.shape[1], p)
    least = np.partition(features, width - k, axis=1)[:, width - k, None]
    mask = features >= least
    tied = np.flatnonzero(np.count_nonzero(mask, axis=1) > k)
    if len(tied):
        above, equal = features[tied] > least[tied], features[tied] == least[tied]
        room = k - np.count_nonzero(above, axis=1)
        mask[tied] = above | (equal & (equal.cumsum(axis=1) <= room[:, None]))
    return mask


def top_sum(features: np.ndarray, p: float) -> np.ndarray:
    """Sum (n,) of the ``kept`` largest features of each row (n,D)."""
    first = features.shape[1] - kept(features.shape[1], p)
    return np.partition(features, first, axis=1)[:, first:].sum(axis=1)


def scale_factor(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """exp(s1/s2) (n,1) with s1 (n,) the sum of a row and s2 (n,) the sum of its top (100-p) %.

    Both sums may be <= 0 where features can be negative: with s2 <= 0 (also for a zero row) the
    ratio is taken as 1, its value when nothing is pruned.
    """
    ratio = np.divide(before, after, out=np.ones_like(before), where=after > 0)
    return np.exp(np.minimum(ratio, LARGEST_RATIO))[:, None]


class Shaped(Score):
    """Energy of W s(h) + b for a shaping s of each image's features: what ASH and SCALE share."""

    needs = ("features", "head")

    def check(self) -> None:
        may_count = self.defaults["p"] == BY_COUNT
        rule = "is not in 0 <= p < 100 (percent of features pruned)"
        rule += f" nor -1 (the {KEPT} largest kept)" * may_count
        self.require("p", 0 <= self.p < 100 or (may_count and self.p == BY_COUNT), rule)

    def shape(self, features: np.ndarray) -> np.ndarray:
        """Features (n,D) float64 -> shaped features (n,D) float64."""
        raise NotImplementedError

    def score(self, outputs: Outputs) -> np.ndarray:
        return shaped_energy(outputs, self.shape)


class ASHP(Shaped):
    """Energy after setting the lowest p % of each image's features to zero (ASH-P).

    (N,D) features and head -> (N,) float64; unbounded; larger = more OOD. p = 0 gives the energy.
    ValueError: p outside 0 <= p < 100.
    Source: Djurisic et al. 2023, ASH-P, on the pooled penultimate features; p = 95 for a DenseNet
    on CIFAR, here by its count of channels (``KEPT``); ImageNet ResNet-50: 60. Of equal features at
    the cut the first are kept; the published code leaves the choice to the sort.
    """

    name = "ash-p"
    formula = "energy of W h' + b, h' = h with its lowest p % set to 0"
    paper = PAPER
    defaults = {"p": BY_COUNT}
    rule = RULE
    per_dataset = {"imagenet": {"p": 60.0}}
    grid = {"p": (BY_COUNT, 65.0, 70.0, 75.0, 80.0, 85.0, 90.0, 95.0)}

    def shape(self, features: np.ndarray) -> np.ndarray:
        return np.where(top_mask(features, self.p), features, 0.0)


class ASHB(Shaped):
    """Energy after setting each image's top (100-p) % features to their share of its sum,
    the rest to zero (ASH-B).

    The kept k features all become s1/k, s1 the sum of the row before. (N,D) features and head ->
    (N,) float64; unbounded; larger = more OOD. Where features can be negative, s1 and so the fill
    may be; the formula is kept. ValueError: p outside 0 <= p < 100.
    Source: Djurisic et al. 2023, ASH-B, on the pooled penultimate features; p = 95 for a DenseNet
    on CIFAR, here by its count of channels (``KEPT``); ImageNet ResNet-50: 65.
    """

    name = "ash-b"
    formula = "energy of W h' + b, h' = sum(h)/k on the top (100-p) % of h, 0 elsewhere"
    paper = PAPER
    defaults = {"p": BY_COUNT}
    rule = RULE
    per_dataset = {"imagenet": {"p": 65.0}}
    grid = ASHP.grid

    def shape(self, features: np.ndarray) -> np.ndarray:
        fill = features.sum(axis=1) / kept(features.shape[1], self.p)
        return np.where(top_mask(features, self.p), fill[:, None], 0.0)


class ASHS(Shaped):
    """Energy after pruning as ASH-P and scaling what is kept by exp(s1/s2),
    the sums before and after (ASH-S).

    (N,D) features and head -> (N,) float64; unbounded; larger = more OOD. ValueError: p outside 0
    <= p < 100. Source: Djurisic et al. 2023, ASH-S, on the pooled penultimate features; p = 95 for
    a DenseNet on CIFAR, here by its count of channels (``KEPT``); ImageNet ResNet-50: 90. Departs
    from it where s2 <= 0 (features that can be negative, zero features): the ratio then is 1; and
    where the ratio is above 600: it is taken as 600, so that exp stays finite.
    """

    name = "ash-s"
    formula = "energy of W h' exp(sum(h)/sum(h')) + b, h' = h with its lowest p % set to 0"
    paper = PAPER
    defaults = {"p": BY_COUNT}
    rule = RULE
    per_dataset = {"imagenet": {"p": 90.0}}
    grid = ASHP.grid

    def shape(self, features: np.ndarray) -> np.ndarray:
        pruned = np.where(top_mask(features, self.p), features, 0.0)
        pruned *= scale_factor(features.sum(axis=1), pruned.sum(axis=1))
        return pruned
