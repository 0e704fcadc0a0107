"""Stand-ins for the context block and the decoder head: the ablations of paper section 4.6 and figure 9.

Those of MSF, MFEB and MFM stand beside what they replace.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from hmf_networks.blocks.conv import ConvBlock
from hmf_networks.blocks.inrb import INRB
from hmf_networks.blocks.rhmb import RHMB
from hmf_networks.ops.coordinates import sample_plane
from torch import Tensor, nn


def num_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def matching_width(build: Callable[[int], nn.Module], wanted: int, *, largest: int = 4096) -> int:
    """The width at which `build(width)` comes closest to `wanted` parameters; these must grow with it."""
    low, high = 1, largest
    with torch.device("meta"):
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if num_parameters(build(middle)) < wanted else (low, middle)
        return min((low, max(low - 1, 1)), key=lambda width: abs(num_parameters(build(width)) - wanted))


class ConvContext(nn.Sequential):
    """Ablation w/o RHMB: four convolutions with the parameter count of the RHMB that they replace."""

    def __init__(self, channels: int, **rhmb_arguments: int) -> None:
        with torch.device("meta"):
            wanted = num_parameters(RHMB(channels, **rhmb_arguments))
        hidden = matching_width(lambda width: _conv_stack(channels, width), wanted)
        super().__init__(*_conv_stack(channels, hidden))


def _conv_stack(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        ConvBlock(channels, hidden), ConvBlock(hidden, hidden), ConvBlock(hidden, hidden), ConvBlock(hidden, channels)
    )


class PixelHead(nn.Module):
    """A decoder on the pixel grid: features at full size, then `head`; other grids by linear resampling."""

    def __init__(self, head: nn.Module, stride: int) -> None:
        super().__init__()
        self.head = head
        self.stride = stride

    def forward(self, features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        full = F.interpolate(features, scale_factor=float(self.stride), mode="bilinear", align_corners=False)
        return sample_plane(torch.tanh(self.head(full)), rows, columns)  # B out R Q


def mlp_head(in_channels: int, out_channels: int, *, num_hidden: int, **inrb: int) -> PixelHead:
    """Ablation w/o INR: the same MLP, wider to match the parameters, without coordinates or neighbours."""

    def build(width: int) -> nn.Sequential:
        layers: list[nn.Module] = []
        channels = in_channels
        for _ in range(num_hidden):
            layers += [nn.Conv2d(channels, width, 1), nn.ReLU()]
            channels = width
        return nn.Sequential(*layers, nn.Conv2d(channels, out_channels, 1))

    return _matched_head(build, in_channels, out_channels, num_hidden=num_hidden, **inrb)


def pixel_head(in_channels: int, out_channels: int, **inrb: int) -> PixelHead:
    """The parameter-matched pixel-based decoder of figure 9: 3x3 convolution, ReLU, 7x7 convolution."""

    def build(width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, out_channels, 7, padding=3)
        )

    return _matched_head(build, in_channels, out_channels, **inrb)


def _matched_head(build: Callable[[int], nn.Module], in_channels: int, out_channels: int, **inrb: int) -> PixelHead:
    """A pixel head with as many parameters as the INRB of these arguments."""
    with torch.device("meta"):
        wanted = num_parameters(INRB(in_channels, out_channels, **inrb))
    return PixelHead(build(matching_width(build, wanted)), inrb["stride"])
