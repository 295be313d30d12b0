"""Energy-bounded fine-tuning."""
import torch.nn.functional as F

from .base import energy_hinges


def energy(logits, features, labels, hyper):
    """Energy-bounded fine-tuning: cross-entropy + beta * two squared hinges on E, beta 0.1. Source: [Energy]."""
    n = len(labels)
    return {"ce": F.cross_entropy(logits[:n], labels),
            "energy": hyper.beta * energy_hinges(logits[:n], logits[n:], hyper.m_in, hyper.m_out)}
