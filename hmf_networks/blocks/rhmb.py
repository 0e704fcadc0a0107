"""Residual hybrid Mamba block (RHMB): long range, channels, then local detail. Paper section 3.2, figure 2.

Shapes: B batch, C channels of the map, E of the branch inside, P patch size, h x w = H/P x W/P tokens.
"""

import torch.nn.functional as F
from hmf_networks.blocks.conv import ResidualBlock
from hmf_networks.blocks.ssm2d import SSM2d
from torch import Tensor, nn


class TokenMixer(nn.Module):
    """Z' = (G * norm(SSM(branch))) W + Z: the gated SSM over P x P patches, added to the map that came in.

    The sum is taken on the map, not on the tokens, so nothing of the map is lost in the embedding. The SSM is
    of fourth order in its branch; the norm keeps a few tokens from drowning all others in a batch norm.
    """

    def __init__(self, channels: int, *, patch_size: int, state_size: int, directions: int, expand: int) -> None:
        super().__init__()
        inner = expand * channels
        self.embed = nn.Conv2d(channels, channels, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(channels)
        self.gate = nn.Linear(channels, inner)
        self.branch = nn.Linear(channels, inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.pointwise = nn.Conv2d(inner, inner, 1)
        self.ssm = SSM2d(inner, state_size=state_size, step_rank=-(-channels // 16), directions=directions)
        self.norm_ssm = nn.LayerNorm(inner)  # VMamba's out_norm, docs/decisions.md#ssm-norm
        self.untokenise = nn.ConvTranspose2d(inner, channels, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.norm(self.embed(x).permute(0, 2, 3, 1))  # B h w C
        gate = F.silu(self.gate(tokens)).permute(0, 3, 1, 2)  # B E h w
        branch = self.branch(tokens).permute(0, 3, 1, 2)  # B E h w
        branch = F.silu(self.pointwise(self.depthwise(branch)))  # B E h w
        found = self.norm_ssm(self.ssm(branch).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # B E h w
        return x + self.untokenise(gate * found)  # B C H W


class RHMB(nn.Module):
    """Token mixing, channel mixing, residual CNN.

    Args:
        channels: C.
        patch_size: P; 1, 2 or 4. 2 is the reading that meets the paper's cost, docs/decisions.md#patch-size.
        state_size: N of the SSM.
        directions: scan directions, 1, 2 or 4.
        expand: E / C.
    """

    def __init__(
        self, channels: int, *, patch_size: int = 2, state_size: int = 16, directions: int = 4, expand: int = 2
    ) -> None:
        super().__init__()
        self.mix_tokens = TokenMixer(
            channels, patch_size=patch_size, state_size=state_size, directions=directions, expand=expand
        )
        self.mix_channels = nn.Conv2d(channels, channels, 1)
        nn.init.dirac_(self.mix_channels.weight)  # at first the map goes through as it is
        self.residual = ResidualBlock(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(self.mix_channels(self.mix_tokens(x)))  # B C H W
