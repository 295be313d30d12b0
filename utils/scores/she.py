"""SHE: inner product with the stored pattern of the predicted class."""

import numpy as np

from .base import Outputs, Paper, Score, labels_of
from .exact.blocks import by_blocks
from .exact.gaussian import class_means


class SHE(Score):
    """Simplified Hopfield energy, minus the inner product of a feature and its predicted
    class's pattern, -h' s_y.

    s_c: mean feature of the training images of class c that are classified correctly; y = argmax f.
    Logits (N,C), features (N,D) -> (N,) float64; unbounded; larger = more OOD. A class with no
    correctly classified image has stored nothing: its pattern is 0, and so is the score, the most
    OOD value there is for features >= 0. ValueError: training images without labels.
    Source: Zhang et al. 2023, its simplified energy with the inner product on penultimate features.
    """

    name = "she"
    formula = "-h' s_y, s_c = mean h of the correctly classified of class c"
    needs = ("logits", "features", "train")
    paper = Paper(
        (
            "Out-of-Distribution Detection based on In-Distribution Data Patterns Memorization "
            "with Modern Hopfield Energy"
        ),
        "Zhang et al.",
        "ICLR 2023",
        "https://openreview.net/forum?id=KkazG4lgKL",
    )

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        labels = labels_of(train, self.name)
        correct = train.logits.argmax(axis=1) == labels
        means, _ = class_means(train.features[correct], labels[correct], train.logits.shape[1])
        self.stats = {"patterns": np.nan_to_num(means)}
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        def energy(logits, features):
            return -(features * self.stats["patterns"][logits.argmax(axis=1)]).sum(axis=1)

        return by_blocks(energy, outputs.logits, outputs.features)
