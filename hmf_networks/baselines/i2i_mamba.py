"""I2I-Mamba: Mamba blocks in the bottleneck of a ResNet generator (Atli et al., arXiv 2405.14022, first version).

Written from the description. Shapes: B batch, S sources, C channels, H x W pixels (multiples of 4), w `width`.
"""

# flake8: noqa: N806

import math

import torch
import torch.nn.functional as F
from hmf_networks.blocks.conv import ConvBlock, UpConvBlock
from hmf_networks.blocks.resnet import ChannelCompression, ResnetBlock, image_head
from hmf_networks.blocks.ssm2d import initial_step_bias
from hmf_networks.ops.plane import check_plane
from hmf_networks.ops.selective_scan import selective_scan
from torch import Tensor, nn

NUM_BLOCKS, WITH_MAMBA = 9, (0, 4, 8)  # first, middle and last


class I2IMamba(nn.Module):
    """Episodic bottleneck with skips, as first released.

    Args:
        spatial_dims: 2.
        in_channels: S, source contrasts in [-1, 1].
        out_channels: target contrasts.
        width: channels of the first stage; 64 in the original (18.8 M parameters that are used; as published
            it also holds 85 M of a transformer that no input passes through, left out here).

    What differs from the original: no absolute sizes, so any plane; our selective scan in place of a CUDA package.
    """

    def __init__(self, spatial_dims: int = 2, in_channels: int = 2, out_channels: int = 1, *, width: int = 64) -> None:
        super().__init__()
        self.arguments = {
            "spatial_dims": spatial_dims,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "width": width,
        }
        wide, middle, narrow = 4 * width, 2 * width, width
        self.encode_1 = ConvBlock(in_channels, narrow, kernel_size=7, padding_mode="reflect")
        self.encode_2 = ConvBlock(narrow, middle, stride=2)
        self.encode_3 = ConvBlock(middle, wide, stride=2)
        self.bottleneck = nn.Sequential(
            *(ContextBlock(wide) if place in WITH_MAMBA else ResnetBlock(wide) for place in range(NUM_BLOCKS))
        )
        self.up_2 = UpConvBlock(2 * wide, middle)
        self.up_1 = UpConvBlock(2 * middle, narrow)
        self.image = image_head(2 * narrow, out_channels)

    def forward(self, image: Tensor) -> Tensor:
        """(B, S, H, W) -> (B, T, H, W) in [-1, 1]."""
        check_plane(image.shape[2], image.shape[3], 4, 8)
        encoded_1 = self.encode_1(image)  # B w H W
        encoded_2 = self.encode_2(encoded_1)  # B 2w H/2 W/2
        encoded_3 = self.encode_3(encoded_2)  # B 4w H/4 W/4
        decoded = self.bottleneck(encoded_3)
        decoded = self.up_2(torch.cat([decoded, encoded_3], dim=1))
        decoded = self.up_1(torch.cat([decoded, encoded_2], dim=1))
        return self.image(torch.cat([decoded, encoded_1], dim=1))


class ContextBlock(nn.Module):
    """Mamba over the pixels row by row, joined with the map by channel compression, then a residual CNN."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.mamba = Mamba(channels)
        self.compress = ChannelCompression(2 * channels, channels)
        self.cnn = ResnetBlock(channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(x.flatten(2).transpose(1, 2))  # B HW C
        context = self.mamba(tokens).transpose(1, 2).reshape(x.shape)
        return self.cnn(self.compress(x, context))


class Mamba(nn.Module):
    """Gated selective state space over a sequence (Gu & Dao 2023): (B, L, C) -> (B, L, C)."""

    def __init__(self, channels: int, *, state_size: int = 16, kernel_size: int = 4, expand: int = 2) -> None:
        super().__init__()
        inner, rank = expand * channels, math.ceil(channels / 16)
        self.sizes = [rank, state_size, state_size]
        self.into = nn.Linear(channels, 2 * inner, bias=False)
        self.conv = nn.Conv1d(inner, inner, kernel_size, padding=kernel_size - 1, groups=inner)
        self.project = nn.Linear(inner, sum(self.sizes), bias=False)
        self.step = nn.Linear(rank, inner, bias=False)
        self.step_bias = nn.Parameter(initial_step_bias(inner))
        self.A_log = nn.Parameter(torch.arange(1.0, state_size + 1).log().repeat(inner, 1))  # A = -(1 .. N)
        self.D = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, channels, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        u, gate = self.into(tokens).chunk(2, dim=-1)  # B L d
        u = F.silu(self.conv(u.transpose(1, 2))[:, :, : u.shape[1]])  # B d L; it sees no later token
        step, B, C = self.project(u.transpose(1, 2)).split_with_sizes(self.sizes, dim=-1)  # B L R, B L N, B L N
        delta = self.step(step).transpose(1, 2)
        B, C = B.transpose(1, 2).unsqueeze(1), C.transpose(1, 2).unsqueeze(1)  # B 1 N L
        A = -torch.exp(self.A_log.float())
        y = selective_scan(u, delta, A, B, C, self.D, gate.transpose(1, 2), self.step_bias, True)
        return self.out(y.transpose(1, 2))
