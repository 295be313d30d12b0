"""The fine-tuning objectives: each returns its named terms, whose sum is optimised.

Every loss takes the outputs of ONE forward pass over cat(ID, outliers): logits (N,C) and features (N,D) float32, with
the labels (n,) of the first n images (ID); the other N - n are auxiliary outliers. ``hyper`` holds alpha, beta, m_in,
m_out and l1_on. Terms are non-negative scalars.
"""
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


def sr(logits, features, labels, hyper):
    """Sparsity regularisation: cross-entropy + alpha * L1 of the penultimate features; no outliers. Source: [SR]."""
    n = len(labels)
    return {"ce": F.cross_entropy(logits[:n], labels), "l1": hyper.alpha * l1_sparsity(features[:n])}


def sroe(logits, features, labels, hyper):
    """SR with outlier exposure: + beta * uniformity of the outliers. Source: [SR], [SRF] Algorithm 1.

    The algorithm takes the L1 norm over ID images, the published code over ID and outliers: ``l1_on`` id | all.
    """
    n = len(labels)
    sparse = features if hyper.l1_on == "all" else features[:n]
    return {"ce": F.cross_entropy(logits[:n], labels), "l1": hyper.alpha * l1_sparsity(sparse),
            "oe": hyper.beta * uniformity(logits[n:])}


def oe(logits, features, labels, hyper):
    """Outlier exposure: cross-entropy + beta * uniformity of the outliers, beta 0.5. Source: [OE]."""
    n = len(labels)
    return {"ce": F.cross_entropy(logits[:n], labels), "oe": hyper.beta * uniformity(logits[n:])}


def energy(logits, features, labels, hyper):
    """Energy-bounded fine-tuning: cross-entropy + beta * two squared hinges on E, beta 0.1. Source: [Energy]."""
    n = len(labels)
    return {"ce": F.cross_entropy(logits[:n], labels),
            "energy": hyper.beta * energy_hinges(logits[:n], logits[n:], hyper.m_in, hyper.m_out)}


class Loss(NamedTuple):
    terms: Callable
    outliers: bool   # whether it needs auxiliary outliers; they are never opened for one that does not
    score: str       # the score its paper evaluates it with
    title: str


LOSSES = {
    "sr": Loss(sr, False, "energy", "SR"),
    "sroe": Loss(sroe, True, "energy", "SROE"),
    "oe": Loss(oe, True, "msp", "OE"),
    "energy": Loss(energy, True, "energy", "Energy fine-tuning"),
}
