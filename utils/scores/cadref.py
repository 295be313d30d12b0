"""CADRef: class-aware relative features, decoupled by the sign of the class weight."""

import numpy as np

from .base import Outputs, Paper, Score, energy_of
from .exact.blocks import by_blocks, mean_row
from .exact.gaussian import class_means

TINY = 1e-12


class CADRef(Score):
    """Relative error to the class mean, its part that raises the logit
    divided by the image's log-sum.

    e+ / S(x) + e- / mean_train(S), S = logsumexp f, e+- = sum_j max(+-(h - m_y)_j sign(w_yj), 0) /
    ||h||_1, y the predicted class and m_y the mean training feature of the images predicted as y.
    Logits (N,C), features (N,D) -> (N,) float64; >= 0; larger = more OOD. No hyper-parameter.
    Source: Ling et al. 2025, CADRef with the energy as logit score; class means by predicted class
    and signs as in the authors' code (the negative of what it returns). Departures: S, its mean and
    ||h||_1 are at least 1e-12, so that no division flips the sign or fails; a class never predicted
    in training has the mean of all features.
    """

    name = "cadref"
    formula = (
        "e+/S + e-/mean S, S = logsumexp f, e+- = ||max(+-(h - m_y) sign(w_y), 0)||_1 / ||h||_1"
    )
    needs = ("logits", "features", "head", "train")
    paper = Paper(
        (
            "CADRef: Robust Out-of-Distribution Detection via Class-Aware Decoupled "
            "Relative Feature Leveraging"
        ),
        "Ling et al.",
        "CVPR 2025",
        "arXiv:2503.00325",
    )

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        predicted = train.logits.argmax(axis=1)
        means, counts = class_means(train.features, predicted, train.logits.shape[1])
        means[counts == 0] = mean_row(train.features)
        self.stats = {
            "means": means,
            "logsum": np.array(-by_blocks(energy_of, train.logits).mean()),
        }
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        sign = np.sign(outputs.weight)
        mean_logsum = max(float(self.stats["logsum"]), TINY)

        def cadref(logits, features):
            predicted = logits.argmax(axis=1)
            aligned = (features - self.stats["means"][predicted]) * sign[predicted]
            length = np.maximum(np.abs(features).sum(axis=1), TINY)
            positive = np.maximum(aligned, 0).sum(axis=1) / length
            negative = np.maximum(-aligned, 0).sum(axis=1) / length
            return positive / np.maximum(-energy_of(logits), TINY) + negative / mean_logsum

        return by_blocks(cadref, outputs.logits, outputs.features)
