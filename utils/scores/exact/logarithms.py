"""Logarithms of sums of exponentials in float64, by PyTorch, which is twice as fast as NumPy at them."""

import numpy as np
import torch
from torch import Tensor


def log_sum_exp(values: np.ndarray) -> np.ndarray:
    """log sum_c exp v_c of values (n,C) float64: (n,), at least each row's largest value."""
    return torch.from_numpy(values).logsumexp(dim=1).numpy()


def log_softmax_parts(
    values: np.ndarray,
) -> tuple[tuple[np.ndarray, np.ndarray], Tensor, Tensor, Tensor]:
    """(index (rows, columns) of each row's largest value, the first of equal ones; v - max v (n,C);
    their exponentials (n,C) with 0 in place of the largest one's 1; sum of these (n,1)) of values
    (n,C) float64.

    Kept apart from the others, the largest one leaves their digits: 1 + 1e-20 is 1.
    """
    top = np.arange(len(values)), values.argmax(axis=1)
    shifted = torch.from_numpy(values) - torch.from_numpy(values[top])[:, None]
    others = shifted.exp()
    others.numpy()[top] = 0.0
    return top, shifted, others, others.sum(dim=1, keepdim=True)
