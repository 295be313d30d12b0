"""SupCon: each view is to find the views of its class among all others."""

import torch
from torch import Tensor

from .contrast import Contrast


def supervised_contrast(s: Tensor, same: Tensor, tau: float) -> Tensor:
    """-mean_i mean_{p in P(i)} log(exp(s_ip/tau) / sum_{a != i} exp(s_ia/tau)), a scalar >= 0.

    s (n,n) cosines, same (n,n) bool; P(i) the other views of the class of i, of which there is at
    least one, the other view of the same image.
    """
    itself = torch.eye(len(s), dtype=torch.bool, device=s.device)
    logits = (s / tau).masked_fill(itself, -torch.inf)
    log_p = logits.log_softmax(dim=1)
    positive = same & ~itself
    return -(torch.where(positive, log_p, 0).sum(dim=1) / positive.sum(dim=1)).mean()


class SupCon(Contrast):
    """Supervised contrastive loss on two views of each image; no classifier.

    Khosla et al. sum over the positives outside the logarithm, as here; their code's further factor
    of tau / 0.07 is left out. Network, batch and epochs are [ReweightOOD]'s, whose baseline it is.
    """

    name = "supcon"
    title = "SupCon"
    formula = "-mean_i mean_{p in P(i)} log softmax_{a != i}(s_ia/tau)_p"
    paper = "Khosla et al., NeurIPS 2020"

    def __call__(self, batch):
        return {"contrast": supervised_contrast(*self.similarities(batch), self.tau)}
