"""Multi-feature extraction block (MFEB) and multi-scale selective fusion (MSF). Paper section 3.3, figure 3.

Shapes: B batch, S scales, C channels, H x W pixels.
"""

import torch
from hmf_networks.blocks.conv import ConvBlock
from hmf_networks.ops.narrow import spatial_mean
from torch import Tensor, nn

DILATIONS = (1, 2, 4, 8)  # four by section 3.3; the rates are our reading, docs/decisions.md#dilations


class MSF(nn.Module):
    """The scales compete for every channel. Sigmoid stands before softmax, so no scale can be switched off:
    every weight lies in [1 / (1 + 3e), e / (e + 3)].
    """  # noqa: D205

    def __init__(self, channels: int, *, num_scales: int = 4, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.score = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.LeakyReLU(0.1), nn.Conv2d(hidden, channels, 1))
        self.num_scales = num_scales

    def weights(self, scales: list[Tensor]) -> Tensor:
        scores: list[Tensor] = []
        for scale in scales:
            average, maximum = spatial_mean(scale), scale.amax((2, 3), keepdim=True)
            scores.append(self.score(average) + self.score(maximum))  # B C 1 1
        return torch.stack(scores, dim=1).sigmoid().softmax(dim=1)  # B S C 1 1

    def forward(self, scales: list[Tensor]) -> Tensor:
        weights = self.weights(scales).to(scales[0].dtype)
        fused = weights[:, 0] * scales[0]
        for number, scale in enumerate(scales[1:], start=1):  # no stack of all scales is ever written
            fused = torch.addcmul(fused, weights[:, number], scale)
        return fused  # B C H W


class ConvFusion(nn.Module):
    """Stand-in of the "w/o MSF" ablation: a standard convolution over the stacked scales."""

    def __init__(self, channels: int, *, num_scales: int = 4) -> None:
        super().__init__()
        self.fuse = nn.Conv2d(num_scales * channels, channels, 1)

    def forward(self, scales: list[Tensor]) -> Tensor:
        return self.fuse(torch.cat(scales, dim=1))  # B C H W


SELECTIVE_FUSIONS = {"msf": MSF, "conv": ConvFusion}


class MFEB(nn.Module):
    """Bottleneck stages in, complementary multi-scale features out: reduce, dilate, fuse, add."""

    def __init__(self, channels: int, *, num_stages: int = 3, selective_fusion: str = "msf") -> None:
        super().__init__()
        self.reduce = ConvBlock(num_stages * channels, channels, kernel_size=1)
        self.dilated = nn.ModuleList(ConvBlock(channels, channels, dilation=rate) for rate in DILATIONS)
        self.fuse = SELECTIVE_FUSIONS[selective_fusion](channels, num_scales=len(DILATIONS))

    def forward(self, stages: list[Tensor]) -> Tensor:
        reduced = self.reduce(torch.cat(stages, dim=1))  # B C H W, F0 of the paper
        scales = [branch(reduced) for branch in self.dilated]
        return self.fuse(scales) + reduced  # B C H W


class ConcatReduce(nn.Module):
    """Stand-in of the "w/o MFEB" ablation: only concatenation and convolution are kept."""

    def __init__(self, channels: int, *, num_stages: int = 3, selective_fusion: str = "msf") -> None:  # noqa: ARG002
        super().__init__()
        self.reduce = ConvBlock(num_stages * channels, channels, kernel_size=1)

    def forward(self, stages: list[Tensor]) -> Tensor:
        return self.reduce(torch.cat(stages, dim=1))  # B C H W
