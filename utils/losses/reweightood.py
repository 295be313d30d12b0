"""ReweightOOD: pairs of images pulled together and apart, the hard ones with more weight."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .contrast import Contrast


def pair_loss(s: Tensor, same: Tensor, tau: float) -> Tensor:
    """ELU(logsumexp_P(-w+ s / tau) + logsumexp_N(w- s / tau)), a scalar >= -1.

    s (n,n) cosines, same (n,n) bool; P the pairs i < j of one class, N the others; detached weights
    w+ = sigmoid(1 - 2 s) and w- = sigmoid(5 s - 4). One logsumexp runs over all pairs of the batch.
    """
    first, second = torch.triu_indices(*s.shape, offset=1, device=s.device)
    s, same = s[first, second], same[first, second]
    with torch.no_grad():
        together, apart = torch.sigmoid(1 - 2 * s), torch.sigmoid(5 * s - 4)
    outside = torch.finfo(s.dtype).min
    pull = torch.where(same, -together * s / tau, outside).logsumexp(dim=0)
    push = torch.where(same, outside, apart * s / tau).logsumexp(dim=0)
    return F.elu(pull + push)


class ReweightOOD(Contrast):
    """The pair loss on two views of each image; no classifier. Source: [ReweightOOD].

    The published warm-up begins below 0, by a counter that is one too low; here it begins at a
    hundredth of the learning rate, 0.001, as the paper has it.
    """

    name = "reweightood"
    title = "ReweightOOD"
    formula = "ELU(logsumexp_P(-sigmoid(1-2s) s/tau) + logsumexp_N(sigmoid(5s-4) s/tau))"
    paper = "Regmi et al., CVPRW 2024"

    def __call__(self, batch):
        return {"pairs": pair_loss(*self.similarities(batch), self.tau)}
