"""ViM: the feature's part outside the principal space as a virtual logit."""

import numpy as np

from .base import Outputs, Paper, Score, energy_of
from .exact.blocks import by_blocks
from .exact.subspace import mean_residual, residual_norm, residual_space


class ViM(Score):
    """Virtual logit minus the energy's log-sum, alpha ||R'(h-u)|| - logsumexp f.

    alpha = mean max logit / mean residual norm over the training images. Logits (N,C), features
    (N,D) -> (N,) float64; unbounded; larger = more OOD. D: dimension of the principal space, 0 =
    512 for features of 768 or more, else half the width, on every data set; the paper's value for
    ImageNet and 2,048 features: ``vim:D=1000``. Where the training features leave no residual
    (constant, or of rank <= D), alpha is 0 and the score is the energy. ValueError: D negative, or
    not below the feature width (pytorch-ood then takes half the width). Source: Wang et al. 2022,
    residual, alpha and virtual logit of the method section. The paper's code only knows 1000 and
    512; half the width for features below 768 is the usual extension.
    """

    name = "vim"
    formula = "alpha ||R'(h-u)|| - logsumexp f"
    needs = ("logits", "features", "head", "train")
    paper = Paper(
        "ViM: Out-Of-Distribution with Virtual-logit Matching",
        "Wang et al.",
        "CVPR 2022",
        "arXiv:2203.10807",
    )
    defaults = {"D": 0}
    grid = {"D": (16, 32, 64)}

    def check(self) -> None:
        self.require("D", self.D >= 0, "must not be negative (0 = the paper's rule)")

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        self.stats = residual_space(train.features, train.weight, train.bias, self.D)
        top = train.logits.max(axis=1).mean(dtype=np.float64)
        residual = mean_residual(self.stats, train.features)
        self.stats["alpha"] = np.array(top / residual if residual else 0.0)
        return self

    def score(self, outputs: Outputs) -> np.ndarray:
        virtual_logit = self.stats["alpha"] * residual_norm(self.stats, outputs.features)
        return virtual_logit + by_blocks(energy_of, outputs.logits)
