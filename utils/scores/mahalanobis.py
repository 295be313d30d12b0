"""Mahalanobis distance to the nearest class mean."""

import numpy as np
import torch

from .base import Outputs, Paper, Score, labels_of
from .exact.gaussian import fit_gaussians, nearest_mean, nearest_squared, whitening


class Mahalanobis(Score):
    """Half the squared Mahalanobis distance to the nearest class mean,
    min_c (h-mu_c)' P (h-mu_c) / 2.

    mu_c: class means; P: inverse of the one covariance of class-centred training features.
    With eps > 0, h is that of x~ = x - eps sign(grad_x of that minimum) / std per channel. Features
    (N,D) -> (N,) float64 >= 0; larger = more OOD. A class without a training image is left out of
    the minimum; a direction in which no class varies counts with the floor of variance of
    ``exact.gaussian``, so that an image which moves there is far away.
    ValueError: eps negative; training images without labels.
    Source: Lee et al. 2018, its distance and input step on the penultimate features only: no
    feature ensemble over layers, no regression on OOD images. The half is not the paper's, but its
    code's. pytorch-ood does not divide the covariance by N and adds 1e-6 to its diagonal: its value
    is this one / N where the ridge does not matter.
    """

    name = "mahalanobis"
    formula = "min_c (h-mu_c)' P (h-mu_c) / 2"
    needs = ("features", "train")
    paper = Paper(
        (
            "A Simple Unified Framework for Detecting Out-of-Distribution Samples "
            "and Adversarial Attacks"
        ),
        "Lee et al.",
        "NeurIPS 2018",
        "arXiv:1807.03888",
    )
    defaults = {"eps": 0.0}
    grid = {"eps": (0.0, 0.0005, 0.001, 0.0014, 0.002, 0.005, 0.01)}

    def check(self) -> None:
        self.require("eps", self.eps >= 0, "must not be negative (0 = no input step)")
        self.needs = ("features", "train", "gradient") if self.eps > 0 else ("features", "train")

    def fit(self, train: Outputs) -> Score:
        super().fit(train)
        means, _, covariance, noise = fit_gaussians(train.features, labels_of(train, self.name))
        self.stats = {"means": means, "V": whitening(covariance, noise)}
        return self

    def objective(self, logits: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Sum over the batch of half the squared distance to the nearest mean:
        features (B,D) -> torch scalar >= 0.
        """
        means, V = (torch.as_tensor(self.stats[key]).to(features) for key in ("means", "V"))
        return ((features - nearest_mean(features, means, V)) @ V).square().sum() / 2

    def score(self, outputs: Outputs) -> np.ndarray:
        return nearest_squared(outputs.features, **self.stats) / 2
