"""The CNN block of encoder and decoder, and the residual CNN block. Paper sections 3.1 and 3.2.

Shapes: B batch, C channels, H x W pixels.
"""

from typing import Literal

import torch.nn.functional as F
from hmf_networks.ops.narrow import reflect_pad
from torch import Tensor, nn


class ReflectConv2d(nn.Conv2d):
    """A convolution that mirrors the map at its border, in the type that the map has."""

    def forward(self, x: Tensor) -> Tensor:
        padded = reflect_pad(x, self.dilation[0] * (self.kernel_size[0] // 2))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation)


CONVOLUTIONS = {"zeros": nn.Conv2d, "reflect": ReflectConv2d}


class ConvBlock(nn.Sequential):
    """Convolution, batch normalisation, ReLU: the "standard CNN block". Keeps the size when `stride` is 1."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int = 3,
        stride: int = 1,
        dilation: int = 1,
        padding_mode: Literal["zeros", "reflect"] = "zeros",
    ) -> None:
        super().__init__(
            CONVOLUTIONS[padding_mode](
                in_channels,
                out_channels,
                kernel_size,
                stride=stride,
                padding=dilation * (kernel_size // 2),
                dilation=dilation,
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class UpConvBlock(nn.Sequential):
    """Transposed convolution to twice the size, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


class ResidualBlock(nn.Module):
    """RCNN of section 3.2: two CNN blocks, added to the input, ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvBlock(channels, channels, padding_mode="reflect"), ConvBlock(channels, channels, padding_mode="reflect")
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(x + self.body(x))  # B C H W
