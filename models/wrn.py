"""Wide residual network for small images."""

from torch import Tensor, nn

from .layers import FullPrecisionConv2d, bn_relu, initialise, pool_and_classify


class BasicBlock(nn.Module):
    """Pre-activation block: BN, ReLU, 3x3 convolution, BN, ReLU, dropout,
    3x3 convolution, plus the shortcut.

    Where the width changes, the shortcut is a 1x1 convolution of the activated input,
    else the input itself.
    """

    def __init__(self, channels_in: int, channels: int, stride: int, droprate: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.convShortcut = (
            None
            if channels_in == channels
            else FullPrecisionConv2d(channels_in, channels, 1, stride, bias=False)
        )
        self.droprate = droprate

    def forward(self, x: Tensor) -> Tensor:
        out = bn_relu(x, self.bn1)
        shortcut = x if self.convShortcut is None else self.convShortcut(out)
        out = bn_relu(self.conv1(out), self.bn2, self.droprate * self.training)
        return shortcut + self.conv2(out)


class Group(nn.Module):
    """A run of blocks of one width, the first of which has the stride;
    they lie in ``layer``, a published name.
    """

    def __init__(self, blocks: int, channels_in: int, channels: int, stride: int, droprate: float):
        super().__init__()
        first = BasicBlock(channels_in, channels, stride, droprate)
        self.layer = nn.Sequential(
            first, *(BasicBlock(channels, channels, 1, droprate) for _ in range(blocks - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(nn.Module):
    """WRN-depth-widen_factor: three groups of (depth - 4) / 6 blocks, widths 16,
    32, 64 times widen_factor.

    Images (N,3,H,W) -> (logits (N,C), features (N,64*widen_factor)); features are means of ReLUs,
    so >= 0. WRN-40-2 has 2,243,546 parameters with 10 classes. ValueError when depth is not 6n + 4
    with n >= 1. Zagoruyko & Komodakis, "Wide Residual Networks", BMVC 2016, arXiv 1605.07146;
    parameter names and initial weights as in the published outlier-exposure and energy files.
    Departs from those: any image size, by global average pooling.
    """

    def __init__(self, depth: int, num_classes: int, widen_factor: int = 1, droprate: float = 0.0):
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"a WRN's depth is 6n + 4 (10, 16, 22, 28, 40, ...), not {depth}")
        if widen_factor < 1:
            raise ValueError(f"a WRN's widen factor is at least 1, not {widen_factor}")
        if not 0 <= droprate < 1:
            raise ValueError(f"a dropout rate lies in [0, 1), not {droprate}")
        blocks = (depth - 4) // 6
        widths = [16 * widen_factor, 32 * widen_factor, 64 * widen_factor]
        self.conv1 = FullPrecisionConv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = Group(blocks, 16, widths[0], 1, droprate)
        self.block2 = Group(blocks, widths[0], widths[1], 2, droprate)
        self.block3 = Group(blocks, widths[1], widths[2], 2, droprate)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], num_classes)
        self.feature_dim, self.num_classes = widths[2], num_classes
        initialise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv1(x)  # (N, 16, H, W)
        x = self.block3(self.block2(self.block1(x)))  # (N, 64k, H/4, W/4)
        return pool_and_classify(bn_relu(x, self.bn1), self.fc)
