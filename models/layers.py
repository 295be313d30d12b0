"""What the networks share: relu(bn(x)), dropout, initial weights, a first convolution,
a check of the input's size, and the pooled linear head.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

try:
    from .kernels import fused, mask, twice
except ModuleNotFoundError:  # the folder is there for a CPU's speed only, and may be deleted
    fused = mask = twice = None

wanted = {"fused": True, "mask": True}


def use_kernels(fused: bool, mask: bool = True) -> dict[str, bool]:
    """Have every network take the compiled kernel, and dropout with the cheap mask, wherever there
    are any, or PyTorch's own operators. Returns what was, for ``use_kernels(**before)``.
    """
    before = dict(wanted)
    wanted.update(fused=fused, mask=mask)
    return before


def differentiate_twice(model: nn.Module) -> None:
    """Have the network's convolutions take operators whose gradients are themselves differentiated
    quickly, for a loss that holds a gradient; without the kernels they stay what they are.
    """
    if twice is not None:
        twice.prepare(model)


def fold(model: nn.Module, size: tuple[int, int, int]) -> Callable | None:
    """The network's pass in evaluation, in bfloat16 on a CPU, for batches (N,3,H,W) of images of
    that size, with everything in its convolutions that fits there; None where that cannot be had,
    or PyTorch's own operators are wanted.
    """
    if not wanted["fused"]:
        return None
    try:
        from .kernels import folded  # it needs this file, and the tracer, which eager passes do not
    except ImportError:
        return None
    return folded.fold(model, size)


def has_kernels() -> bool:
    """Whether BatchNorm, ReLU and dropout can be one compiled operation here,
    in training on a CPU.
    """
    return fused is not None and fused.kernels() is not None


def bn_relu(x: Tensor, bn: nn.BatchNorm2d, droprate: float = 0.0) -> Tensor:
    """relu(bn(x)), and behind it dropout where a rate is given: (N,C,H,W) -> the same.

    The rate is that of this call, 0 in evaluation: where BatchNorm alone is in evaluation (frozen),
    dropout goes on.
    """
    if bn.training and fused is not None and wanted["fused"] and fused.takes(x, bn):
        return fused.bn_relu_dropout(x, bn, droprate)
    return dropout(F.relu(bn(x), inplace=True), droprate)


def dropout(x: Tensor, droprate: float, training: bool = True) -> Tensor:
    """Zero each value with chance droprate and scale the others by 1 / (1 - droprate) in training;
    the identity otherwise.
    """
    if training and droprate > 0 and mask is not None and wanted["mask"] and mask.takes(x):
        return mask.dropout(x, droprate)
    return F.dropout(x, droprate, training)


def initialise(model: nn.Module) -> None:
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

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        with torch.autocast(device_type=kind, enabled=False):
            output = super().forward(x.to(self.weight.dtype))
        return (
            output.to(torch.get_autocast_dtype(kind))
            if self.training and torch.is_autocast_enabled(kind)
            else output
        )


def check_size(x: Tensor, smallest: int, network: str) -> None:
    """ValueError unless the images x (N,3,H,W) have at least ``smallest`` pixels on each side."""
    height, width = x.shape[-2:]
    if min(height, width) < smallest:
        raise ValueError(
            f"{network} needs images of at least {smallest}x{smallest} pixels, "
            f"these are {height}x{width}"
        )


def pool_and_classify(x: Tensor, fc: nn.Linear) -> tuple[Tensor, Tensor]:
    """Average a map x (N,D,H,W) over its positions and apply the linear head:
    (logits (N,C), features (N,D)).

    Both are computed and returned in the head's own precision, float32 under bf16 autocast too:
    scores tell apart logits that differ by less than bf16's step, which is 1/16 between 8 and 16.
    """
    with torch.autocast(device_type=x.device.type, enabled=False):
        features = x.to(fc.weight.dtype).mean((2, 3))
        return fc(features), features
