"""Convolutions for losses that hold a gradient: the derivatives of the stock operator."""

import copy

import pytest
import torch
from torch import nn

import models
from models.kernels import twice

CASES = {
    "plain": dict(kernel_size=3, padding=1, bias=False),
    "stride and bias": dict(kernel_size=3, stride=2, padding=1),
    "groups and dilation": dict(kernel_size=2, dilation=2, groups=2, bias=False),
    "one pixel": dict(kernel_size=1, stride=2, bias=False),
}


@pytest.mark.parametrize("name", CASES)
def test_derivatives_agree_with_finite_differences_and_with_the_stock_operator(name):
    torch.manual_seed(0)
    stock = nn.Conv2d(4, 2, **CASES[name]).double()
    ours = copy.deepcopy(stock)
    twice.prepare(ours)
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64).requires_grad_()
    made = ours(x).grad_fn
    if ours.bias is not None:  # added to what the convolution gives
        made = made.next_functions[0][0]
    assert type(made) is twice.Convolution._backward_cls

    def function(x, weight):
        return torch.func.functional_call(ours, {"weight": weight}, (x,))

    inputs = x, ours.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)
    found = []
    for conv in (ours, stock):
        (first,) = torch.autograd.grad(conv(x).tanh().sum(), x, create_graph=True)
        found.append([first, *torch.autograd.grad(first.square().sum(), (conv.weight, x))])
    assert all(torch.allclose(a, b, rtol=1e-10, atol=1e-12) for a, b in zip(*found))


@pytest.mark.parametrize("arch", ["wrn", "allconv"])
def test_a_network_keeps_its_values_its_weights_names_and_copies(arch):
    torch.manual_seed(0)
    stock = models.build(arch, 3, 10, 1, 0.0).eval()
    ours = copy.deepcopy(stock)
    models.differentiate_twice(ours)
    again = copy.deepcopy(ours)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(x)[0], again(x)[0])
        assert torch.allclose(ours(x)[0], stock(x)[0], rtol=1e-5, atol=1e-6)
        for weight in again.parameters():
            weight.zero_()
        assert not torch.equal(ours(x)[0], again(x)[0])  # a copy has weights of its own
    assert list(ours.state_dict()) == list(stock.state_dict())


def test_what_it_cannot_take_stays_stock():
    same = nn.Conv2d(3, 4, 3, padding="same")
    circular = nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")
    twice.prepare(nn.Sequential(same, circular))
    assert not {"_conv_forward"} & (vars(same).keys() | vars(circular).keys())
