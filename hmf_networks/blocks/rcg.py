"""Residual convolution group (RCG): what stands between two RHMBs. Paper section 3.1, figure 1."""

from hmf_networks.blocks.conv import ResidualBlock
from torch import nn


class RCG(nn.Sequential):
    """`num_blocks` residual CNN blocks in a row. Three as in I2I-Mamba; docs/decisions.md#rcg."""

    def __init__(self, channels: int, *, num_blocks: int = 3) -> None:
        super().__init__(*(ResidualBlock(channels) for _ in range(num_blocks)))
