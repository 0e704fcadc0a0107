"""HiNet: an encoder a contrast, fused layer by layer (Zhou et al., IEEE TMI 2020), written from its description.

Shapes: B batch, S sources, T targets, H x W pixels (multiples of 8), w `width`.
"""

import functools

import torch
import torch.nn.functional as F
from hmf_networks.ops.plane import check_plane
from torch import Tensor, nn

RECONSTRUCTION_WEIGHT = 20.0  # of the L1 of each source, where that of the target is 100 (the authors' settings)


class HiNet(nn.Module):
    """Hybrid-fusion network for multi-modal synthesis.

    Args:
        spatial_dims: 2.
        in_channels: S, source contrasts in [-1, 1]; the original is fixed at two.
        out_channels: T.
        width: channels of the first level; 32 in the original (3.87 M parameters with two sources).

    What differs from the original: any number of sources, whose maps are summed, multiplied and maximised
    alike; whole planes in place of patches of 128 x 128.
    """

    def __init__(self, spatial_dims: int = 2, in_channels: int = 2, out_channels: int = 1, *, width: int = 32) -> None:
        super().__init__()
        self.arguments = {
            "spatial_dims": spatial_dims,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "width": width,
        }
        one, two, four, eight = width, 2 * width, 4 * width, 8 * width
        self.encoders = nn.ModuleList(Encoder((one, two, four)) for _ in range(in_channels))
        self.fuse_1 = MixedFusion(one, 0, two)
        self.fuse_2 = MixedFusion(two, two, four)
        self.fuse_3 = MixedFusion(four, four, four)
        self.bottom = conv_block(four, eight)
        self.top = conv_block(eight, four)
        self.decode_3 = MixedFusion(four, four, two)
        self.decode_2 = MixedFusion(two, two, one)
        self.decode_1 = MixedFusion(one, one, one)
        self.image = nn.Sequential(conv_block(one, one), nn.Conv2d(one, out_channels, 3, padding=1), nn.Tanh())
        self.reconstruct = nn.ModuleList(reconstruction((four, four, two, two, one, one)) for _ in range(in_channels))

    def forward(self, image: Tensor, side_outputs: bool = False) -> Tensor:
        """(B, S, H, W) -> (B, T, H, W) in [-1, 1]; with `side_outputs` the S reconstructed sources follow it."""
        check_plane(image.shape[2], image.shape[3], 8)
        level_1, level_2, level_3 = self._encoded(image)  # S maps each: B w H/2 W/2, B 2w H/4 W/4, B 4w H/8 W/8

        fused = self.fuse_1(level_1, None)  # B 2w H/2 W/2
        fused = self.fuse_2(level_2, F.max_pool2d(fused, 2))
        fused = self.fuse_3(level_3, F.max_pool2d(fused, 2))  # B 4w H/8 W/8
        decoded = self.top(self.bottom(fused))
        decoded = F.interpolate(self.decode_3(level_3, decoded), scale_factor=2.0)  # B 2w H/4 W/4
        decoded = F.interpolate(self.decode_2(level_2, decoded), scale_factor=2.0)  # B w H/2 W/2
        decoded = F.interpolate(self.decode_1(level_1, decoded), scale_factor=2.0)  # B w H W
        target = self.image(decoded)
        if not side_outputs:
            return target
        sources = [decoder(x) for decoder, x in zip(self.reconstruct, level_3, strict=True)]
        return torch.cat([target, *sources], dim=1)

    def _encoded(self, image: Tensor) -> list[list[Tensor]]:
        """Three levels of S maps."""
        of_source = [encoder(image[:, s : s + 1]) for s, encoder in enumerate(self.encoders)]
        return [list(level) for level in zip(*of_source, strict=True)]


class Encoder(nn.Module):
    """Of one contrast: three times two convolutions and a maximum over 2 x 2."""

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        before = (1, *channels[:-1])
        self.levels = nn.ModuleList(
            nn.Sequential(conv_block(a, b), conv_block(b, b), nn.MaxPool2d(2))
            for a, b in zip(before, channels, strict=True)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for level in self.levels:
            x = level(x)
            maps.append(x)
        return maps


class MixedFusion(nn.Module):
    """Sum, product and maximum of the contrasts' maps; with what was fused before, if anything."""

    def __init__(self, channels: int, before_channels: int, out_channels: int) -> None:
        super().__init__()
        self.mix = conv_block(3 * channels, channels)
        self.join = conv_block(channels + before_channels, out_channels)

    def forward(self, maps: list[Tensor], before: Tensor | None) -> Tensor:
        product = functools.reduce(torch.mul, maps)
        largest = functools.reduce(torch.maximum, maps)
        mixed = self.mix(torch.cat([functools.reduce(torch.add, maps), product, largest], dim=1))
        return self.join(mixed if before is None else torch.cat([mixed, before], dim=1))


def conv_block(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.LeakyReLU(0.2)
    )


def reconstruction(channels: tuple[int, ...]) -> nn.Sequential:
    """The decoder of one source from its own encoder: twice as large after every second convolution."""
    layers: list[nn.Module] = []
    for number, (a, b) in enumerate(zip((channels[0], *channels), channels, strict=False)):
        layers.append(conv_block(a, b))
        if number % 2:
            layers.append(nn.Upsample(scale_factor=2))
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 3, padding=1), nn.Tanh())


def reconstruction_loss(side: Tensor, image: Tensor, target: Tensor) -> Tensor:  # noqa: ARG001 -- one signature for all
    """20 |x_s - R_s(x_s)|_1, summed over the sources; `side` are the S channels behind the prediction."""
    return RECONSTRUCTION_WEIGHT * side.shape[1] * F.l1_loss(side, image)
