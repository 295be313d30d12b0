"""Residual networks with the stem for small images."""

from torch import Tensor, nn
from torch.nn import functional as F

from .layers import FullPrecisionConv2d, bn_relu, pool_and_classify


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with BN, ReLU after the first and after adding the shortcut.

    The shortcut is a 1x1 convolution with BN where the shape changes, else the input itself.
    """

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = bn_relu(self.conv1(x), self.bn1)
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x), inplace=True)


def stage(blocks: int, channels_in: int, channels: int, stride: int) -> nn.Sequential:
    """A run of blocks of one width, the first of which has the stride."""
    first = BasicBlock(channels_in, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


class ResNet(nn.Module):
    """ResNet of basic blocks behind one 3x3 convolution, no max pooling: blocks (2,2,2,2) is
    ResNet-18, (3,4,6,3) -34.

    Images (N,3,H,W) -> (logits (N,C), features (N,512)); features are means of ReLUs, so >= 0.
    There is no dropout. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, arXiv
    1512.03385. Parameter names as in the public CIFAR variants (pytorch-cifar and the SROE code,
    whose head is ``linear``; OpenOOD, whose head is ``fc``), and PyTorch's own initial weights, as
    they keep them. Departs from the first two: any image size.
    """

    def __init__(self, blocks: tuple[int, int, int, int], num_classes: int):
        super().__init__()
        self.conv1 = FullPrecisionConv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = stage(blocks[0], 64, 64, 1)
        self.layer2 = stage(blocks[1], 64, 128, 2)
        self.layer3 = stage(blocks[2], 128, 256, 2)
        self.layer4 = stage(blocks[3], 256, 512, 2)
        self.fc = nn.Linear(512, num_classes)
        self.feature_dim, self.num_classes = 512, num_classes

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = bn_relu(self.conv1(x), self.bn1)  # (N, 64, H, W)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))  # (N, 512, H/8, W/8)
        return pool_and_classify(x, self.fc)
