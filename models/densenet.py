"""Densely connected network for small images."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .layers import FullPrecisionConv2d, bn_relu, check_size, dropout, initialise, pool_and_classify

GROWTH = 12  # channels each layer adds
BLOCK_LAYERS = 16  # (depth 100 - 4) / 3 blocks / 2 convolutions a layer


class Bottleneck(nn.Module):
    """BN, ReLU, 1x1 convolution to 4 * GROWTH, BN, ReLU, 3x3 convolution to GROWTH channels,
    put behind the input's.
    """

    def __init__(self, channels_in: int, droprate: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, 4 * GROWTH, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * GROWTH)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, 3, padding=1, bias=False)
        self.droprate = droprate

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(bn_relu(x, self.bn1))
        out = dropout(out, self.droprate, self.training)
        out = self.conv2(bn_relu(out, self.bn2))
        out = dropout(out, self.droprate, self.training)
        return torch.cat((x, out), 1)


class Transition(nn.Module):
    """BN, ReLU, 1x1 convolution, 2x2 average pooling:
    half the channels (reduction 0.5) and half the sides.
    """

    def __init__(self, channels_in: int, channels: int, droprate: float):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.droprate = droprate

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(bn_relu(x, self.bn1))
        return F.avg_pool2d(dropout(out, self.droprate, self.training), 2)


class DenseBlock(nn.Module):
    """BLOCK_LAYERS bottlenecks, each of which sees what all before it made;
    they lie in ``layer``, a published name.
    """

    def __init__(self, channels_in: int, droprate: float):
        super().__init__()
        self.layer = nn.Sequential(
            *(Bottleneck(channels_in + i * GROWTH, droprate) for i in range(BLOCK_LAYERS))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class DenseNet(nn.Module):
    """DenseNet-BC-100 with growth 12: three dense blocks of 16 bottlenecks,
    channels 24-216, 108-300, 150-342.

    Images (N,3,H,W), sides >= 4 -> (logits (N,C), features (N,342)); features are means of ReLUs,
    so >= 0. ValueError for smaller images. Huang et al., "Densely Connected Convolutional
    Networks", CVPR 2017, arXiv 1608.06993; parameter names as in the published DICE files. Departs
    from DICE's code: any image size, and initial weights from N(0, sqrt(2 / (k*k*out))) as in the
    SROE code, where DICE's draws every convolution from N(0, sqrt(2 / 16)).
    The SROE code trains it without dropout.
    """

    def __init__(self, num_classes: int, droprate: float = 0.0):
        super().__init__()
        if not 0 <= droprate < 1:
            raise ValueError(f"a dropout rate lies in [0, 1), not {droprate}")
        added, channels = BLOCK_LAYERS * GROWTH, 2 * GROWTH
        self.conv1 = FullPrecisionConv2d(3, channels, 3, padding=1, bias=False)
        self.block1 = DenseBlock(channels, droprate)
        self.trans1 = Transition(channels + added, (channels + added) // 2, droprate)
        channels = (channels + added) // 2
        self.block2 = DenseBlock(channels, droprate)
        self.trans2 = Transition(channels + added, (channels + added) // 2, droprate)
        channels = (channels + added) // 2
        self.block3 = DenseBlock(channels, droprate)
        self.bn1 = nn.BatchNorm2d(channels + added)
        self.fc = nn.Linear(channels + added, num_classes)
        self.feature_dim, self.num_classes = channels + added, num_classes
        initialise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        check_size(x, 4, "DenseNet")
        x = self.trans1(self.block1(self.conv1(x)))  # (N, 108, H/2, W/2)
        x = self.trans2(self.block2(x))  # (N, 150, H/4, W/4)
        x = self.block3(x)  # (N, 342, H/4, W/4)
        return pool_and_classify(bn_relu(x, self.bn1), self.fc)
