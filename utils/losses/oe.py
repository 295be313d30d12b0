"""OE: outlier exposure."""

from torch import Tensor

from .base import Batch, Loss, uniformity


class OE(Loss):
    """Cross-entropy + beta * uniformity of the outliers,
    mean_out [logsumexp f - mean_c f_c]. Source: [OE].
    """

    name = "oe"
    title = "OE"
    formula = "CE + beta mean_out [logsumexp f - mean_c f_c]"
    paper = "Hendrycks et al., ICLR 2019"
    score = "msp"
    outliers = True
    help = {"beta": "weight of the outlier term"}
    defaults = {"beta": 0.5}
    per_dataset = {"digits": {"padding": 2}}
    origin = "[OE]"
    origins = {"digits": "this project"}

    def check(self) -> None:
        self.need_non_negative("beta")

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        return {"ce": batch.cross_entropy(), "oe": self.beta * uniformity(batch.logits_out)}
