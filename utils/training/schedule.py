"""The learning rate of every step."""

import math


def cosine_lr(step, total, base, final=1e-6):
    """Learning rate of a 0-based step: a cosine from ``base`` at step 0 towards ``final`` at
    step ``total`` ([Energy]).
    """
    return final + (base - final) * 0.5 * (1 + math.cos(math.pi * step / total))


def learning_rate(step: int, total: int, base: float, drops: tuple = ()) -> float:
    """Learning rate of a 0-based step: a cosine, or ``base`` that falls to a tenth at each of
    these shares of ``total``.
    """
    return (
        base * 0.1 ** sum(step >= share * total for share in drops)
        if drops
        else cosine_lr(step, total, base)
    )


def set_lr(optimizer, value):
    for group in optimizer.param_groups:
        group["lr"] = value
