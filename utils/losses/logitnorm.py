"""LogitNorm: cross-entropy of logits of one length."""

import torch.nn.functional as F
from torch import Tensor

from .base import Batch, Loss


class LogitNorm(Loss):
    """Cross-entropy of f / ((||f||_2 + 1e-7) tau): training fixes the direction of the logits only.

    At test f is not normalised. The loss is at least log(1 + (C-1) exp(-sqrt(C/(C-1)) / tau)), its
    value where the logits are all on their class's side of a simplex. tau and schedule are the
    published code's for CIFAR-10; its optimiser has no Nesterov momentum, this project's has.
    Source: [LogitNorm].
    """

    name = "logitnorm"
    title = "LogitNorm"
    formula = "CE(f / ((||f||_2 + 1e-7) tau))"
    paper = "Wei et al., ICML 2022"
    stages = ("pretrain",)
    score = "msp"
    drops = (0.4, 0.7)
    help = {"tau": "temperature of the normalised logits"}
    defaults = {"tau": 0.01}
    recipe = {"epochs": 200}
    origin = "published code of [LogitNorm]"

    def check(self) -> None:
        if not 0 < self.tau < float("inf"):
            raise ValueError(f"tau {self.tau:g} is not a number above 0")

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        lengths = batch.logits_in.norm(dim=1, keepdim=True) + 1e-7
        return {"ce": F.cross_entropy(batch.logits_in / (lengths * self.tau), batch.y)}
