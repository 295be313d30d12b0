"""SROE: sparsity regularisation with outlier exposure."""

from torch import Tensor

from .base import Batch, Loss, l1_sparsity, uniformity


class SROE(Loss):
    """SR + beta * uniformity of the outliers, mean_out [logsumexp f - mean_c f_c].

    [SRF] Algorithm 1 takes the L1 norm over the ID images, the published code over ID images and
    outliers: ``l1_on`` id | all. That code also crops the outliers with padding 8 and normalises
    them with ImageNet's statistics; the preset "code" does the same. Source: [SR], [SRF].
    """

    name = "sroe"
    title = "SROE"
    features = True
    formula = "CE + alpha mean ||h||_1 + beta mean_out [logsumexp f - mean_c f_c]"
    paper = "Chen et al., PAKDD 2022 and Sci. Rep. 2024"
    outliers = True
    help = {
        "alpha": "weight of the L1 norm of the features",
        "beta": "weight of the outlier term",
        "l1_on": "images whose L1 norm is taken",
    }
    choices = {"l1_on": ("id", "all")}
    defaults = {"alpha": 0.02, "beta": 0.5, "l1_on": "id"}
    recipe = {"padding": 0}
    presets = {"code": {"outlier_padding": 8, "outlier_norm": "imagenet", "l1_on": "all"}}
    origin = "[SR]"
    origins = {
        "l1_on": "[SRF]",
        "padding": "published code of [SR]",
        "code": "published code of [SR]",
    }

    def check(self) -> None:
        self.need_non_negative("alpha", "beta")

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        sparse = batch.features if self.l1_on == "all" else batch.features_in
        return {
            "ce": batch.cross_entropy(),
            "l1": self.alpha * l1_sparsity(sparse),
            "oe": self.beta * uniformity(batch.logits_out),
        }
