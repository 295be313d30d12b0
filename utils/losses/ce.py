"""Cross-entropy: what baseline.py trains with."""

from .base import Loss


class CrossEntropy(Loss):
    """Mean cross-entropy of the ID images. Source: the pre-training of [Energy] and [SR]."""

    name = "ce"
    title = "Cross-entropy"
    formula = "CE"
    paper = "[Energy], [SR]"
    stages = ("pretrain",)

    def __call__(self, batch):
        return {"ce": batch.cross_entropy()}
