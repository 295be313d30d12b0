"""GReg: the energy loss and the norm of the energy's gradient by the image."""

import torch
from torch import Tensor

from .base import Batch, Loss, energy_hinges


def gradient_norms(energy: Tensor, images: tuple[Tensor, ...]) -> list[Tensor]:
    """||grad_x S(x_i)||_2 of every image: S (N,) -> one (n,) >= 0 for each part of
    the batch, differentiable.

    The gradient is that of the batch's summed S; where BatchNorm is in training mode it therefore
    has the terms that go from one image to another through the batch's statistics,
    as stock autograd gives them.
    """
    images = [part for part in images if len(part)]
    gradients = torch.autograd.grad(energy.sum(), images, create_graph=True)
    return [gradient.flatten(1).norm(dim=1) for gradient in gradients]


def norms_of(batch: Batch) -> list[Tensor]:
    """``gradient_norms`` of a batch: (n,) of the ID images, (m,) of the outliers."""
    return gradient_norms(-torch.logsumexp(batch.logits, dim=1), (batch.x, batch.x_out))


def gradient_term(
    batch: Batch, norms: list[Tensor], m_in: float, m_out: float, scale: str = "paper"
) -> Tensor:
    """mean_in ||1[S <= m_in] grad_x S|| + mean_out ||1[S >= m_out] grad_x S|| with S =
    -logsumexp f: scalar >= 0. ``norms``: (n,) and (m,), those of ``norms_of(batch)``.

    Only images that are already on the right side of their margin count, but the means are over
    all. ``scale`` "code" divides once more by N_in + N_out, as the published
    code does. Source: [GReg].
    """
    energy = -torch.logsumexp(batch.logits, dim=1)
    norms_in, norms_out = norms
    n = len(batch.y)
    right_in, right_out = energy[:n].detach() <= m_in, energy[n:].detach() >= m_out
    term = (right_in * norms_in).mean() + (right_out * norms_out).mean()
    return term / len(energy) if scale == "code" else term


class GReg(Loss):
    """Energy-bounded fine-tuning + grad_weight * the norm of grad_x S on the
    right side of each margin.

    Everything comes from ONE forward pass, so that BatchNorm's statistics move once a step; the
    published code runs a second one for the gradient term. Margins and weights are that code's; the
    schedule is this project's choice where paper and code disagree. Source: [GReg].
    """

    name = "greg"
    title = "GReg"
    formula = (
        "CE + beta (mean_in relu(S - m_in)^2 + mean_out relu(m_out - S)^2) + grad_weight "
        "(mean_in 1[S <= m_in] ||grad_x S|| + mean_out 1[S >= m_out] ||grad_x S||)"
    )
    paper = "Sharifi et al., ECCV 2024"
    outliers = True
    gradient = True
    help = {
        "beta": "weight of the outlier term",
        "m_in": "energy margin of ID images",
        "m_out": "energy margin of outliers",
        "grad_weight": "weight of the gradient term",
        "grad_scale": "code: the gradient term is divided by the number of images, as published",
    }
    choices = {"grad_scale": ("paper", "code")}
    defaults = {
        "beta": 0.1,
        "m_in": -25.0,
        "m_out": -7.0,
        "grad_weight": 1.0,
        "grad_scale": "paper",
    }
    recipe = {"epochs": 20, "batch_size": 64, "oe_batch_size": 64, "decay": 1e-4}
    per_dataset = {"digits": {"m_in": -12.0, "m_out": -4.0, "padding": 2}}
    origin = "[GReg]"
    origins = {
        "digits": "this project",
        "m_in": "published code of [GReg]",
        "m_out": "published code of [GReg]",
        "epochs": "this project",
    }

    def check(self) -> None:
        self.need_non_negative("beta", "grad_weight")
        self.need_margins()

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        hinges = energy_hinges(batch.logits_in, batch.logits_out, self.m_in, self.m_out)
        norms = norms_of(batch)
        self.finite = torch.isfinite(torch.cat(norms).detach())
        gradient = gradient_term(batch, norms, self.m_in, self.m_out, self.grad_scale)
        return {
            "ce": batch.cross_entropy(),
            "energy": self.beta * hinges,
            "gradient": self.grad_weight * gradient,
        }
