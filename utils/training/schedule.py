"""The learning rate of every step."""

import math

import torch

from utils.losses import Loss


def cosine_lr(step: float, total: float, base: float, final: float = 1e-06) -> float:
    """Learning rate of a 0-based step: a cosine from ``base`` at step 0 towards ``final`` at
    step ``total`` ([Energy]).
    """
    return final + (base - final) * 0.5 * (1 + math.cos(math.pi * step / total))


def learning_rate(step: int, total: int, base: float, loss: type[Loss] = Loss) -> float:
    """Learning rate of a 0-based step: a cosine, or ``base`` that falls to a tenth at each of the
    loss's ``drops``.

    Over the loss's ``warmup`` it rises in a line from a hundredth of ``base`` to the cosine.
    """
    if loss.drops:
        return base * 0.1 ** sum(step >= share * total for share in loss.drops)
    final = loss.final * base or 1e-6
    rising = loss.warmup * total
    if step >= rising:
        return cosine_lr(step, total, base, final)
    top = cosine_lr(rising, total, base, final)
    return 0.01 * base + (top - 0.01 * base) * step / rising


def set_lr(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value
