"""Modulation fusion module (MFM): the encoder weighs in on every decoder stage. Paper section 3.4, figure 1c.

Shapes: B batch, C channels, H x W pixels.
"""

import torch
from hmf_networks.blocks.conv import ConvBlock
from hmf_networks.ops.narrow import spatial_mean
from torch import Tensor, nn


class MFM(nn.Module):
    """Two sources compete for every channel; the winner's mixture is joined with the decoder's own map."""

    def __init__(self, channels: int, *, reduction: int = 8) -> None:
        super().__init__()
        hidden = max(channels // reduction, 4)
        self.score = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.LeakyReLU(0.1),
            nn.Conv2d(hidden, 2 * channels, 1, bias=False),
        )
        self.output = ConvBlock(2 * channels, channels)

    def weights(self, extracted: Tensor, decoded: Tensor) -> Tensor:
        pooled = spatial_mean(extracted) + spatial_mean(decoded)  # B C 1 1
        return self.score(pooled).unflatten(1, (2, decoded.shape[1])).softmax(dim=1)  # B 2 C 1 1

    def forward(self, extracted: Tensor, decoded: Tensor) -> Tensor:
        weights = self.weights(extracted, decoded).to(decoded.dtype)
        modulated = torch.addcmul(weights[:, 0] * extracted, weights[:, 1], decoded)
        return self.output(torch.cat([modulated, decoded], dim=1))  # B C H W


class AddFusion(nn.Module):
    """Stand-in of the "w/o MFM" ablation: feature addition."""

    def __init__(self, channels: int) -> None:  # noqa: ARG002
        super().__init__()

    def forward(self, extracted: Tensor, decoded: Tensor) -> Tensor:
        return extracted + decoded  # B C H W
