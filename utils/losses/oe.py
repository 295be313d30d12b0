"""OE: outlier exposure."""
import torch.nn.functional as F

from .base import uniformity


def oe(logits, features, labels, hyper):
    """Outlier exposure: cross-entropy + beta * uniformity of the outliers, beta 0.5. Source: [OE]."""
    n = len(labels)
    return {"ce": F.cross_entropy(logits[:n], labels), "oe": hyper.beta * uniformity(logits[n:])}
