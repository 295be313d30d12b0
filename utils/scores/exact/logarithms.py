"""Logarithms of sums of exponentials, in float64 and with no pass over the values too many."""

import numpy as np


def log_sum_exp(values: np.ndarray) -> np.ndarray:
    """log sum_c exp v_c of finite values (n,C) float64: (n,), at least each row's largest value."""
    top, shifted = below_top(values)
    # of many short rows a product with ones is the fastest sum
    total = np.exp(shifted, out=shifted) @ np.ones(values.shape[1])
    return values[top] + np.log(total)


def log_softmax_parts(
    values: np.ndarray,
) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """(index of each row's largest value, v - max v (n,C), their exponentials (n,C) with 0 in place
    of the largest one's 1, sum of these (n,1)) of values (n,C) float64.

    Kept apart from the others, the largest one leaves their digits: 1 + 1e-20 is 1.
    """
    top, shifted = below_top(values)
    others = np.exp(shifted)
    others[top] = 0.0
    return top, shifted, others, (others @ np.ones(values.shape[1]))[:, None]


def below_top(values: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Index (rows, columns) of the largest value of each row (n,C), the first of equal ones, and
    how far the values are below it (n,C).
    """
    top = np.arange(len(values)), values.argmax(axis=1)  # argmax is faster than max
    return top, values - values[top][:, None]
