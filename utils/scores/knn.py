"""KNN: distance to the k-th nearest training feature."""

import numpy as np

from .base import Outputs, Paper, Score
from .exact.nearest import inverse_norms, kth_distances, take_bank


class Banked(Score):
    """A score that compares with a bank of training features:
    the hyper-parameters k, bank and sample.
    """

    def check(self) -> None:
        self.require("k", self.k >= 1, "must be at least 1")
        self.require("bank", self.bank in ("fp32", "fp16"), "is neither fp32 nor fp16")
        self.require("sample", 0 < self.sample <= 1, "is not a fraction in 0 < sample <= 1")

    def check_size(self) -> None:
        """ValueError when the bank has fewer than k rows."""
        count = len(self.stats["bank"])
        if self.k > count:
            raise ValueError(
                f"score '{self.name}': k={self.k} is more than the {count} training images in "
                f"the bank. Choose k <= {count} or more training images"
            )


class KNN(Banked):
    """Distance of h/||h|| to its k-th nearest normalised training feature.

    (N,D) features -> (N,) float64 in [0, 2]; larger = more OOD. Exact: candidates are found by
    matrix products in float32 and measured again in float64; where float32 cannot tell them apart,
    they are found in float64. A zero vector stays zero (distance 1 to any other). A training image
    scored as a query counts itself. bank: "fp32" = the features as they came, not copied; "fp16" =
    unit vectors in half the memory of float32 ones, which pays once the features themselves have
    been let go; distances good to about 1e-3. sample: fraction of the training images kept.
    ValueError: k below 1 or above the number of images in the bank, unknown bank, sample outside 0
    < sample <= 1. Source: Sun et al. 2022, r_k(z) of the method section;
    k = 50 CIFAR-10, 1000 ImageNet.
    """

    name = "knn"
    formula = "distance of h/||h|| to its k-th nearest training feature"
    needs = ("features", "train")
    paper = Paper(
        "Out-of-Distribution Detection with Deep Nearest Neighbors",
        "Sun et al.",
        "ICML 2022",
        "arXiv:2204.06507",
    )
    defaults = {"k": 50, "bank": "fp32", "sample": 1.0}
    per_dataset = {"imagenet": {"k": 1000}}
    grid = {"k": (1, 10, 20, 50, 100, 200, 500, 1000)}

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        bank, _ = take_bank(train.features, self.bank, self.sample)
        self.stats = {"bank": bank, "scale": inverse_norms(bank)}
        self.check_size()
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        self.check_size()
        return kth_distances(outputs.features, **self.stats, k=self.k)
