"""Parts of pix2pix's ResNet generator, of which ResViT and I2I-Mamba are built (Isola 2017, Johnson 2016).

Shapes: B batch, C channels, H x W pixels.
"""

import torch
import torch.nn.functional as F
from hmf_networks.blocks.conv import ConvBlock, ReflectConv2d
from torch import Tensor, nn


class ResnetBlock(nn.Module):
    """x + (conv, norm, ReLU, conv, norm), mirrored borders; unlike `conv.ResidualBlock` nothing follows the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            ConvBlock(channels, channels, padding_mode="reflect"),
            ReflectConv2d(channels, channels, 3, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)  # B C H W


class ChannelCompression(nn.Module):
    """[map, context] -> one map: a 1x1 convolution beside two of 3x3, summed (ResViT, section "ART blocks")."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.short = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels))
        self.long = nn.Sequential(
            ConvBlock(in_channels, out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        both = torch.cat([x, context], dim=1)  # B in H W
        return F.relu(self.short(both) + self.long(both))  # B out H W


def image_head(in_channels: int, out_channels: int) -> nn.Sequential:
    """7x7 convolution with mirrored borders, tanh."""
    return nn.Sequential(ReflectConv2d(in_channels, out_channels, 7), nn.Tanh())
