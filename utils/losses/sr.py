"""SR: sparsity regularisation."""
import torch.nn.functional as F

from .base import l1_sparsity


def sr(logits, features, labels, hyper):
    """Sparsity regularisation: cross-entropy + alpha * L1 of the penultimate features; no outliers. Source: [SR]."""
    n = len(labels)
    return {"ce": F.cross_entropy(logits[:n], labels), "l1": hyper.alpha * l1_sparsity(features[:n])}
