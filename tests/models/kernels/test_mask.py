"""The cheap dropout is a dropout: rate, scale, independence, gradient, memory layout."""

import pytest
import torch

from models.kernels.mask import keep_mask
from models.layers import dropout


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_rate_and_scale(p):
    torch.manual_seed(0)
    mask = keep_mask(torch.empty(400_000), p)
    kept = (mask > 0).double().mean()
    assert abs(kept - (1 - p)) < 5 * (p * (1 - p) / 400_000) ** 0.5
    assert abs(mask[mask > 0].double().unique().item() - 1 / (1 - p)) < 1e-3 / (1 - p)


def test_neighbours_are_independent():
    torch.manual_seed(0)
    kept = (keep_mask(torch.empty(400_000), 0.5) > 0).double() - 0.5
    for distance in (1, 2, 3, 4, 8):  # four values come from one random number
        assert abs((kept[:-distance] * kept[distance:]).mean() / 0.25) < 5 / 400_000**0.5


def test_a_seed_draws_the_same_and_the_next_call_another():
    x = torch.ones(4, 3, 8, 8)
    torch.manual_seed(1)
    first, second = dropout(x, 0.3, True), dropout(x, 0.3, True)
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.3, True), first) and not torch.equal(first, second)


def test_gradient_is_the_mask():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 8, 8).to(memory_format=torch.channels_last).requires_grad_()
    y = dropout(x, 0.3, True)
    y.sum().backward()
    torch.testing.assert_close(y, x * x.grad)
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("p, training", [(0.3, False), (0.0, True)])
def test_identity(p, training):
    x = torch.randn(5, 7)
    assert dropout(x, p, training) is x


def test_odd_sizes_and_bfloat16():
    torch.manual_seed(0)
    assert (dropout(torch.ones(101, 3), 0.5, True) == 0).any()
    y = dropout(torch.ones(64, 64, dtype=torch.bfloat16), 0.5, True)
    assert y.dtype == torch.bfloat16 and set(y.unique().tolist()) == {0.0, 2.0}
