"""Maximum logit."""

import numpy as np

from .base import Outputs, Paper, Score


class MaxLogit(Score):
    """Minus the largest logit, -max_c f_c(x).

    Logits (N,C) -> (N,) float64; unbounded; larger = more OOD.
    Source: Hendrycks et al. 2022, the maximum-logit score.
    """

    name = "maxlogit"
    formula = "-max_c f_c"
    needs = ("logits",)
    paper = Paper(
        "Scaling Out-of-Distribution Detection for Real-World Settings",
        "Hendrycks et al.",
        "ICML 2022",
        "arXiv:1911.11132",
    )

    def score(self, outputs: Outputs) -> np.ndarray:
        return -outputs.logits.max(axis=1).astype(np.float64)
