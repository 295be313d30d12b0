"""What a loss is, and the terms that several losses share."""
from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F


def l1_sparsity(features):
    """mean_i ||h(x_i)||_1 over the batch: (N,D) -> scalar >= 0. Source: [SR], equation of L_sparse."""
    return features.abs().sum(dim=1).mean()


def uniformity(logits):
    """mean_out [logsumexp f - mean_c f_c]: cross-entropy from the uniform distribution, (N,C) -> scalar >= log C.

    Equal to log C exactly where the softmax is uniform. Source: [OE], section 4.
    """
    return (torch.logsumexp(logits, dim=1) - logits.mean(dim=1)).mean()


def energy_hinges(logits_in, logits_out, m_in, m_out):
    """mean_in relu(E - m_in)^2 + mean_out relu(m_out - E)^2 with E = -logsumexp f. Source: [Energy], equation 8."""
    energy_in, energy_out = -torch.logsumexp(logits_in, dim=1), -torch.logsumexp(logits_out, dim=1)
    return F.relu(energy_in - m_in).square().mean() + F.relu(m_out - energy_out).square().mean()


class Loss(NamedTuple):
    terms: Callable
    outliers: bool   # whether it needs auxiliary outliers; they are never opened for one that does not
    score: str       # the score its paper evaluates it with
    title: str
