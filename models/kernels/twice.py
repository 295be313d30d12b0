"""Convolutions whose gradient is differentiated again: PyTorch's own second derivative makes a
convolution with kernels of the size of the images, many times slower than the others of the step.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def takes(conv: nn.Conv2d) -> bool:
    """Whether ``convolve`` can stand in for the convolution's own operator."""
    return conv.padding_mode == "zeros" and not isinstance(conv.padding, str)


def prepare(model: nn.Module) -> None:
    """Have every convolution of the network take ``convolve``; the same values, to rounding."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and takes(module):
            module._conv_forward = partial(convolve, module)


def convolve(conv: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What conv(x) is, in the precision that autocast chooses."""
    kind = x.device.type
    if torch.is_autocast_enabled(kind):
        chosen = torch.get_autocast_dtype(kind)
        x, weight = x.to(chosen), weight.to(chosen)
        bias = None if bias is None else bias.to(chosen)
    y = Convolution.apply(x, weight, (conv.stride, conv.padding, conv.dilation, conv.groups))
    return y if bias is None else y + bias[:, None, None]


def gradients(grad: Tensor, x: Tensor, weight: Tensor, given: tuple, mask: tuple) -> tuple:
    """(by x, by weight), of which ``mask`` says which are wanted."""
    stride, padding, dilation, groups = given
    rest = (None, stride, padding, dilation, False, (0, 0), groups, (*mask, False))
    return torch.ops.aten.convolution_backward(grad, x, weight, *rest)[:2]


class Convolution(torch.autograd.Function):
    """y = conv(x, weight), linear in both, as its gradients are: each gives the other two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, given: tuple) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.given = given
        stride, padding, dilation, groups = given
        return torch.conv2d(x, weight, None, stride, padding, dilation, groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        by_x, by_weight = ctx.needs_input_grad[:2]
        if not torch.is_grad_enabled():
            return *gradients(grad, x, weight, ctx.given, (by_x, by_weight)), None
        return (
            InputGradient.apply(grad, weight, x.detach(), ctx.given) if by_x else None,
            WeightGradient.apply(grad, x, weight.detach(), ctx.given) if by_weight else None,
            None,
        )


class WeightGradient(torch.autograd.Function):
    """dw(dy, x), linear in both; of the weight only the shape counts."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, weight: Tensor, given: tuple) -> Tensor:
        ctx.save_for_backward(grad, x)
        ctx.given = given
        return gradients(grad, x, weight, given, (False, True))[1]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        # v . dw(dy, x) = conv(x, v) . dy = dx(dy, v) . x
        grad, x = ctx.saved_tensors
        by_grad, by_x = ctx.needs_input_grad[:2]
        return (
            Convolution.apply(x, v, ctx.given) if by_grad else None,
            InputGradient.apply(grad, v, x.detach(), ctx.given) if by_x else None,
            None,
            None,
        )


class InputGradient(torch.autograd.Function):
    """dx(dy, weight), linear in both; of x only the shape counts."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, weight: Tensor, x: Tensor, given: tuple) -> Tensor:
        ctx.save_for_backward(grad, weight)
        ctx.given = given
        return gradients(grad, x, weight, given, (True, False))[0]

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        # v . dx(dy, weight) = conv(v, weight) . dy = dw(dy, v) . weight
        grad, weight = ctx.saved_tensors
        by_grad, by_weight = ctx.needs_input_grad[:2]
        return (
            Convolution.apply(v, weight, ctx.given) if by_grad else None,
            WeightGradient.apply(grad, v, weight.detach(), ctx.given) if by_weight else None,
            None,
            None,
        )
