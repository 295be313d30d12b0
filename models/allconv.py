"""All-convolutional network for small images."""

import torch
from torch import Tensor, nn

from .layers import FullPrecisionConv2d, check_size, initialise, pool_and_classify


class SigmoidGELU(nn.Module):
    """x * sigmoid(1.702 x), the sigmoid form of the GELU; its smallest value is about -0.164."""

    swish = 1.702  # by which models/kernels/folded.py knows it

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.swish * x)


def unit(
    channels_in: int,
    channels: int,
    kernel: int,
    padding: int,
    convolution: type[nn.Conv2d] = nn.Conv2d,
) -> list[nn.Module]:
    """Convolution with bias, BN, GELU: three places of the Sequential."""
    return [
        convolution(channels_in, channels, kernel, padding=padding),
        nn.BatchNorm2d(channels),
        SigmoidGELU(),
    ]


def halve() -> list[nn.Module]:
    """2x2 max pooling and dropout 0.5: two places of the Sequential, without parameters."""
    return [nn.MaxPool2d(2), nn.Dropout(0.5)]


class AllConvNet(nn.Module):
    """Nine convolutions, 96 x3 and 192 x6, each with BN and GELU;
    max pooling and dropout 0.5 after the 3rd and 6th.

    Images (N,3,H,W), sides >= 12 -> (logits (N,C), features (N,192)); features are means of GELUs
    and can be negative. ValueError for smaller images. Springenberg et al., "Striving for
    Simplicity", arXiv 1412.6806, in the form of the outlier-exposure code (Hendrycks et al., ICLR
    2019), with its parameter names, but its head is ``classifier``. That code pads the two 1x1
    convolutions by 1 and of the 10x10 positions a 32x32 image then has averages the first 8x8; its
    files need the same. Departs from it: any image size, averaged over all but the
    last two rows and columns.
    """

    def __init__(self, num_classes: int):
        super().__init__()
        self.features = nn.Sequential(
            *unit(3, 96, 3, 1, FullPrecisionConv2d),
            *unit(96, 96, 3, 1),
            *unit(96, 96, 3, 1),
            *halve(),
            *unit(96, 192, 3, 1),
            *unit(192, 192, 3, 1),
            *unit(192, 192, 3, 1),
            *halve(),
            *unit(192, 192, 3, 0),
            *unit(192, 192, 1, 1),
            *unit(192, 192, 1, 1),
        )
        self.fc = nn.Linear(192, num_classes)
        self.feature_dim, self.num_classes = 192, num_classes
        initialise(self)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        check_size(x, 12, "AllConvNet")
        x = self.features(x)  # (N, 192, H/4 + 2, W/4 + 2)
        return pool_and_classify(x[:, :, :-2, :-2], self.fc)
