"""SR: sparsity regularisation."""

from torch import Tensor

from .base import Batch, Loss, l1_sparsity


class SR(Loss):
    """Cross-entropy + alpha * mean ||h||_1 of the penultimate features of the ID images;
    no outliers at all.

    Its published code crops with padding 0 (flip only),
    and that is what made its numbers. Source: [SR].
    """

    name = "sr"
    title = "SR"
    features = True
    formula = "CE + alpha mean ||h||_1"
    paper = "Chen et al., PAKDD 2022"
    help = {"alpha": "weight of the L1 norm of the features"}
    defaults = {"alpha": 0.02}
    recipe = {"padding": 0}
    presets = {"code": {}}
    origin = "[SR]"
    origins = {"padding": "published code of [SR]"}

    def check(self) -> None:
        self.need_non_negative("alpha")

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        return {"ce": batch.cross_entropy(), "l1": self.alpha * l1_sparsity(batch.features_in)}
