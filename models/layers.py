"""What the networks share: activation and dropout, initial weights, a first convolution, a check of
the input's size, and the pooled linear head.
"""

from contextlib import suppress

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Zero each value of x with chance p in training and scale the others by 1/(1-p);
    the identity otherwise.
    """
    return F.dropout(x, p, training)


def bn_relu_dropout(x: Tensor, bn: nn.BatchNorm2d, p: float = 0.0) -> Tensor:
    """dropout(relu(bn(x)), p) for x (N,C,H,W); p is 0 in evaluation."""
    return dropout(F.relu(bn(x), inplace=True), p, True)


# the same values, up to rounding and the dropout mask, sooner on a CPU
with suppress(ModuleNotFoundError):
    from .kernels import dropout as cheap
    from .kernels import fused

    dropout, bn_relu_dropout = cheap.dropout, fused.bn_relu_dropout


def initialise(model):
    """Draw convolution weights from N(0, sqrt(2 / (k*k*out))),
    set BatchNorm to 1 and 0 and linear biases to 0.

    He et al. 2015 (arXiv 1502.01852) in its fan-out form, as the published WRN, DenseNet and
    AllConv code draws them. Linear weights and convolution biases keep PyTorch's uniform
    initialisation, as they do there.
    """
    # no values to draw, and normal_ on meta tensors imports half the compiler
    if next(model.parameters()).is_meta:
        return
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


class FullPrecisionConv2d(nn.Conv2d):
    """A convolution computed in float32 under bf16 autocast too; in training its output is then
    rounded like every other's.

    For the first one, since bf16's steps are as wide as an image's own grey levels where it is
    bright, and for the small ones to whose output a WRN's blocks add theirs, a sum that is float32
    in evaluation for being begun so. They are 0.6 % of a WRN-40-2's multiplications.
    """

    def forward(self, x):
        kind = x.device.type
        with torch.autocast(device_type=kind, enabled=False):
            output = super().forward(x.to(self.weight.dtype))
        return (
            output.to(torch.get_autocast_dtype(kind))
            if self.training and torch.is_autocast_enabled(kind)
            else output
        )


def check_size(x, smallest, network):
    """ValueError unless the images x (N,3,H,W) have at least ``smallest`` pixels on each side."""
    height, width = x.shape[-2:]
    if min(height, width) < smallest:
        raise ValueError(
            f"{network} needs images of at least {smallest}x{smallest} pixels, "
            f"these are {height}x{width}"
        )


def pool_and_classify(x, fc):
    """Average a map x (N,D,H,W) over its positions and apply the linear head:
    (logits (N,C), features (N,D)).

    Both are computed and returned in the head's own precision, float32 under bf16 autocast too:
    scores tell apart logits that differ by less than bf16's step, which is 1/16 between 8 and 16.
    """
    with torch.autocast(device_type=x.device.type, enabled=False):
        features = x.to(fc.weight.dtype).mean((2, 3))
        return fc(features), features
