"""pNML: the regret of the predictive normalised maximum likelihood of the last layer."""

import numpy as np
import torch

from .base import Outputs, Paper, Score
from .exact.blocks import by_blocks, product, slices
from .exact.gaussian import EPS
from .exact.logarithms import log_softmax_parts
from .exact.nearest import unit_rows


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
            z = unit_rows(train.features[rows])
            moments += z.T @ z
        self.stats = {"inverse": np.linalg.pinv(moments, rcond=width * EPS, hermitian=True)}
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        weight, bias = outputs.weight.astype(np.float64).T, outputs.bias.astype(np.float64)

        def regret(h):
            z = unit_rows(h)
            q = np.einsum("nd,nd->n", product(z, self.stats["inverse"]), z)
            q = torch.from_numpy(np.maximum(q, 0.0))[:, None]
            top, shifted, others, total = log_softmax_parts(product(z, weight) + bias)
            # p / (p + (1-p) p^g) = 1 / (1 + (1-p) p^(g-1)) and g - 1 = -1/(1+q); 1-p of the largest
            # p is the sum of the others, and for a p of 0 the infinite power is right
            rest = 1 - others / (1 + total)
            rest.numpy()[top] = (total / (1 + total)).numpy()[:, 0]
            power = ((total.log1p() - shifted) / (1 + q)).exp()
            return (1 / (1 + rest * power)).sum(dim=1).log().numpy()

        classes = outputs.logits.shape[1]
        return by_blocks(regret, outputs.features) / (np.log(classes) if classes > 1 else 1.0)
