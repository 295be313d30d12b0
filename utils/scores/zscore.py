"""A sum of scores, each standardised on the ID training images: ``zscore(energy+knn)``."""

import numpy as np

from .base import Outputs, Paper, Score
from .exact.gaussian import EPS

IMAGES = 10_000  # training images that mean and deviation are taken from, at most


class ZScore(Score):
    """sum_m (s_m - mean s_m) / sd s_m over the members m.

    Mean and standard deviation are those of the ID training images, of at most IMAGES of them,
    evenly spread; a member that is the same for all of them is divided by 1. Outputs -> (N,)
    float64; unbounded; larger = more OOD. A member that compares with the training images finds
    each of these among them, so that their mean is a little low; a shift moves no ranking.
    ValueError: a member with an input step, whose images are others than the rest's.
    """

    name = "zscore"
    formula = "sum_m (s_m - mean s_m) / sd s_m, mean and sd of the ID training images"
    paper = Paper("-", "-", "-", "-")

    def __init__(self, members: list[Score]):
        self.members = members
        super().__init__()

    def check(self) -> None:
        for member in self.members:
            if "gradient" in member.needs:
                raise ValueError(
                    f"score '{self.label}': '{member.label}' has an input step (eps > 0) and "
                    "cannot be summed with others. Give it :eps=0"
                )
        self.needs = tuple(
            dict.fromkeys(["train", *(need for member in self.members for need in member.needs)])
        )
        self.hyper = {member.label: member.hyper for member in self.members}

    @property
    def label(self) -> str:
        return f"zscore({'+'.join(member.label for member in self.members)})"

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        some = train.take(slice(None, None, -(-len(train) // IMAGES)))
        values = []
        for member in self.members:
            if "train" in member.needs:
                member.fit(train)
            values.append(member.score(some))
        values = np.array(values)
        mean, sd = values.mean(axis=1), values.std(axis=1)
        # the deviation of equal values is not 0 but rounding
        sd[sd <= len(some) * EPS * np.abs(mean)] = 1.0
        self.stats = {"mean": mean, "sd": sd}
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        values = np.array([member.score(outputs) for member in self.members])
        return ((values - self.stats["mean"][:, None]) / self.stats["sd"][:, None]).sum(axis=0)
