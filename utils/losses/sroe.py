"""SROE: sparsity regularisation with outlier exposure."""
import torch.nn.functional as F

from .base import l1_sparsity, uniformity


def sroe(logits, features, labels, hyper):
    """SR with outlier exposure: + beta * uniformity of the outliers. Source: [SR], [SRF] Algorithm 1.

    The algorithm takes the L1 norm over ID images, the published code over ID and outliers: ``l1_on`` id | all.
    """
    n = len(labels)
    sparse = features if hyper.l1_on == "all" else features[:n]
    return {"ce": F.cross_entropy(logits[:n], labels), "l1": hyper.alpha * l1_sparsity(sparse),
            "oe": hyper.beta * uniformity(logits[n:])}
