"""ODIN: temperature and a small step of the input towards the predicted class."""

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from .base import Outputs, Paper, Score
from .msp import log_msp


class ODIN(Score):
    """MSP at temperature T of an input that took one step towards its predicted class,
    -log max_c softmax_c(f(x~)/T).

    x~ = x - eps sign(grad_x CE(f(x)/T, argmax f(x))) / std per channel, x normalised and eps in
    units of the image. ``score`` takes the logits (N,C) at x~ -> (N,) float64 in [0, log C];
    larger = more OOD. T > 0; eps >= 0, and with eps = 0 no gradient is needed;
    eps = 0 and T = 1 is MSP exactly.
    ValueError: T or eps out of range.
    Source: Liang et al. 2018, T and eps of its DenseNet on CIFAR-10. Departures: -log of the
    paper's softmax value, as in MSP (a monotone map, every metric is equal); the division by std is
    the paper's code, not its formula.
    """

    name = "odin"
    formula = "-log max_c softmax_c(f(x~)/T), x~ = x - eps sign(grad CE(f/T, argmax f))/std"
    needs = ("logits", "gradient")
    paper = Paper(
        "Enhancing The Reliability of Out-of-distribution Image Detection in Neural Networks",
        "Liang et al.",
        "ICLR 2018",
        "arXiv:1706.02690",
    )
    defaults = {"T": 1000.0, "eps": 0.0014}
    grid = {"T": (1.0, 10.0, 100.0, 1000.0), "eps": (0.0, 0.0006, 0.0014, 0.0028, 0.004)}

    def check(self) -> None:
        self.require("T", self.T > 0, "must be positive")
        self.require("eps", self.eps >= 0, "must not be negative (0 = no input step)")
        self.needs = ("logits", "gradient") if self.eps > 0 else ("logits",)

    def objective(self, logits: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """Sum over the batch of CE(f/T, argmax f): logits (B,C) -> torch scalar >= 0."""
        return cross_entropy(logits / self.T, logits.argmax(dim=1), reduction="sum")

    def score(self, outputs: Outputs) -> np.ndarray:
        return -log_msp(outputs.logits, self.T)
