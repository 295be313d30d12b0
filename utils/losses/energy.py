"""Energy-bounded fine-tuning."""

from torch import Tensor

from .base import Batch, Loss, energy_hinges


class Energy(Loss):
    """Cross-entropy + beta * (mean_in relu(E - m_in)^2 + mean_out relu(m_out -
    E)^2), E = -logsumexp f.

    The margins are CIFAR-10's and CIFAR-100's of the paper. Source: [Energy].
    """

    name = "energy"
    title = "Energy fine-tuning"
    formula = "CE + beta (mean_in relu(E - m_in)^2 + mean_out relu(m_out - E)^2)"
    paper = "Liu et al., NeurIPS 2020"
    outliers = True
    help = {
        "beta": "weight of the outlier term",
        "m_in": "energy margin of ID images",
        "m_out": "energy margin of outliers",
        "sampling": "how a step's outliers are chosen",
    }
    choices = {"sampling": ("random", "clusters")}
    defaults = {"beta": 0.1, "m_in": -23.0, "m_out": -5.0, "sampling": "random"}
    before = {"sampling": "random"}
    per_dataset = {
        "cifar100": {"m_in": -27.0},
        "digits": {"m_in": -12.0, "m_out": -4.0, "padding": 2},
    }
    origin = "[Energy]"
    origins = {"digits": "this project"}

    def check(self) -> None:
        self.need_non_negative("beta")
        self.need_margins()

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        hinges = energy_hinges(batch.logits_in, batch.logits_out, self.m_in, self.m_out)
        return {"ce": batch.cross_entropy(), "energy": self.beta * hinges}
