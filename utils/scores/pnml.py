"""pNML: the regret of the predictive normalised maximum likelihood of the last layer."""

import numpy as np
from scipy.special import logsumexp

from .base import Outputs, Paper, Score, head_of
from .exact.blocks import by_blocks, slices
from .exact.nearest import unit_rows
from .msp import log_softmax


class PNML(Score):
    """Regret log(sum_c p_c / (p_c + (1-p_c) p_c^g)) / log C of a feature's direction z = h/||h||.

    p = softmax(W z + b); g = q/(1+q); q = z' A^-1 z, A = sum of z z' over the training images.
    Features (N,D) and head -> (N,) float64 in [0, 1): 0 where g = 0, a direction that the training
    images have filled; larger = more OOD. A class of probability 0 adds nothing, the limit.
    No hyper-parameter, no labels. Directions outside the span of the training features count as
    0 in q (pseudo-inverse). One class: 0 for all.
    Source: Bibas et al. 2021, in the version of their evaluation script: no bias column, no
    orthogonal part.
    """

    name = "pnml"
    formula = "log(sum_c p_c / (p_c + (1-p_c) p_c^g)) / log C, p = softmax(W h/||h|| + b)"
    needs = ("features", "head", "train")
    paper = Paper(
        "Single Layer Predictive Normalized Maximum Likelihood for Out-of-Distribution Detection",
        "Bibas et al.",
        "NeurIPS 2021",
        "arXiv:2110.09246",
    )

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        width = train.features.shape[1]
        moments = np.zeros((width, width))
        for rows in slices(len(train)):
            z = unit_rows(train.features[rows].astype(np.float64))
            moments += z.T @ z
        self.stats = {"inverse": np.linalg.pinv(moments, hermitian=True)}
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        def regret(h):
            z = unit_rows(h)
            q = np.maximum(np.einsum("nd,nd->n", z @ self.stats["inverse"], z), 0.0)[:, None]
            log_p = log_softmax(head_of(outputs, z))
            # p / (p + (1-p) p^g) = 1 / (1 + (1-p) p^(g-1)), p^(g-1) in logarithms
            with np.errstate(divide="ignore"):
                rest = np.log(-np.expm1(log_p)) - log_p / (1 + q)
            return logsumexp(-np.logaddexp(0.0, rest), axis=1)

        classes = outputs.logits.shape[1]
        return by_blocks(regret, outputs.features) / (np.log(classes) if classes > 1 else 1.0)
