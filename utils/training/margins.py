"""Energy margins measured on the pre-trained network, for images whose energies nobody knows."""

import argparse

import numpy as np
import torch
from torch import nn

from utils import loaders
from utils.runtime import UserError, autocast, print_note


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


def note_borrowed(typed: dict, recipe: dict, stage: str, own: bool) -> None:
    """Say on stderr where ``own`` images get margins that were published for CIFAR."""
    keys = [key for key in ("m_in", "m_out") if own and key in recipe and key not in typed]
    if keys:
        values = " and ".join(f"{key} {recipe[key]:g}" for key in keys)
        advice = "leave both out and they are measured (--auto-margins), or type both"
        if stage == "pretrain":
            advice = "type --m_in and --m_out, or train first and fine-tune with tune.py, which "
            advice += "measures them"
        print_note(
            f"{values}: margins of CIFAR's networks, and these images are your own, whose energies "
            f"may be far from them; {advice}"
        )


def load_validation(args: argparse.Namespace, test_set: loaders.ImageSet) -> list:
    """The ImageSets of --validation-ood, [] without it; UserError where an image of theirs is in
    the ID test images or in an OOD set, of those that test.py takes by default, that is there.
    """
    if not args.validation_ood:
        return []
    given = (args.dataset, args.data, test_set.images.shape[-1], args.skip_bad)
    sets = loaders.parse_ood(args.validation_ood, *given, "--validation-ood")
    names = loaders.ood_names(args.dataset, args.data)
    there = ",".join(name for name in names if loaders.is_there(name, data=args.data))
    tests = loaders.parse_ood(there, *given) if there else []
    loaders.check_apart(sets, [test_set, *tests])
    found = ", ".join(images.name for images in (test_set, *tests))
    print(f"validation OOD: no image is in a test set ({found})")
    return sets


def with_margins(
    args: argparse.Namespace,
    model: nn.Module,
    sets: tuple[loaders.ImageSet, loaders.ImageSet],
    device: torch.device,
    precision: str,
) -> argparse.Namespace:
    """The options with m_in and m_out measured on sets = (ID training images, [OOD sets])."""
    train_set, others = sets
    energy_in = mean_energy(model, train_set, args, device, precision)
    energies = [mean_energy(model, images, args, device, precision) for images in others]
    energy_out = float(np.average(energies, weights=[len(images) for images in others]))
    m_in, m_out = (round(margin, 4) for margin in margins_of(energy_in, energy_out))
    what = "validation OOD images" if args.validation_ood else "outliers"
    print(
        f"margins from the pre-trained network's mean energies, {energy_in:.2f} of ID images "
        f"and {energy_out:.2f} of {what}: m_in {m_in:g}, m_out {m_out:g}"
    )
    measured = {"m_in": m_in, "m_out": m_out}
    origins = {**vars(args).get("origins", {}), **dict.fromkeys(measured, "measured")}
    recipe = {**args.recipe, **measured}
    return argparse.Namespace(**{**vars(args), **measured, "recipe": recipe, "origins": origins})
