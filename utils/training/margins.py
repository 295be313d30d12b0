"""Energy margins measured on the pre-trained network, for images whose energies nobody knows."""

import argparse

import torch
from torch import nn

from utils import loaders
from utils.runtime import UserError, autocast


def margins_of(energy_in: float, energy_out: float) -> tuple[float, float]:
    """(m_in, m_out) of the mean energies of ID images and outliers: each its own mean; both the
    middle of the two where outliers have the lower one, as ID images are to be below.
    """
    middle = (energy_in + energy_out) / 2
    return (energy_in, energy_out) if energy_in <= energy_out else (middle, middle)


@torch.no_grad()
def mean_energy(
    model: nn.Module,
    images: loaders.ImageSet,
    args: argparse.Namespace,
    device: torch.device,
    precision: str,
) -> float:
    """Mean of E = -logsumexp f over an ImageSet, without augmentation, in evaluation mode."""
    model.eval()
    total = []
    for x, _ in loaders.Batches(images, args.test_bs, device, statistics=args.statistics):
        with autocast(device, precision):
            logits, _ = model(x)
        total.append(-torch.logsumexp(logits.double(), dim=1).sum())
    return float(torch.stack(total).sum()) / len(images)


def wants_margins(typed: dict, recipe: dict, loss: str, own: bool) -> bool:
    """Whether a run's margins are to be measured: where --auto-margins was typed, and by itself on
    ``own`` images with neither margin typed.

    UserError where the loss has no margins, or one is typed as well.
    """
    given = [f"--{key}" for key in ("m_in", "m_out") if key in typed]
    if "auto_margins" not in typed:
        return own and "m_in" in recipe and not given
    if "m_in" not in recipe:
        raise UserError(f"--auto-margins is not an option of --loss {loss}, which has no margins")
    if given:
        raise UserError(
            f"--auto-margins measures what {' and '.join(given)} gives. Give one of them"
        )
    return True


def with_margins(
    args: argparse.Namespace,
    model: nn.Module,
    sets: tuple[loaders.ImageSet, loaders.ImageSet],
    device: torch.device,
    precision: str,
) -> argparse.Namespace:
    """The options with m_in and m_out measured on sets = (ID training images, outliers)."""
    energies = [mean_energy(model, images, args, device, precision) for images in sets]
    m_in, m_out = (round(margin, 4) for margin in margins_of(*energies))
    print(
        f"margins from the pre-trained network's mean energies, {energies[0]:.2f} of ID images "
        f"and {energies[1]:.2f} of outliers: m_in {m_in:g}, m_out {m_out:g}"
    )
    measured = {"m_in": m_in, "m_out": m_out}
    return argparse.Namespace(**{**vars(args), **measured, "recipe": {**args.recipe, **measured}})
