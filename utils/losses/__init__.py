"""The fine-tuning objectives: each returns its named terms, whose sum is optimised.

Every loss takes the outputs of ONE forward pass over cat(ID, outliers): logits (N,C) and features (N,D) float32, with
the labels (n,) of the first n images (ID); the other N - n are auxiliary outliers. ``hyper`` holds alpha, beta, m_in,
m_out and l1_on. Terms are non-negative scalars.
"""
from .base import Loss
from .energy import energy
from .oe import oe
from .sr import sr
from .sroe import sroe

LOSSES = {
    "sr": Loss(sr, False, "energy", "SR"),
    "sroe": Loss(sroe, True, "energy", "SROE"),
    "oe": Loss(oe, True, "msp", "OE"),
    "energy": Loss(energy, True, "energy", "Energy fine-tuning"),
}
