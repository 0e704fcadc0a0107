"""Where there is signal at all: docs/decisions.md#foreground-channel.

Shapes: B batch, S sources, H x W pixels.
"""

import torch
from torch import Tensor, nn


class AppendForeground(nn.Module):
    """Append a channel: 1 where any source is above -1, the background of scaled images, else 0.

    Args:
        num_masks: so many channels at the end are no sources but say which there are (`ops/availability.py`).
    """

    def __init__(self, num_masks: int = 0) -> None:
        super().__init__()
        self.num_masks = num_masks

    def forward(self, image: Tensor) -> Tensor:
        """(B, S, H, W) in [-1, 1] -> (B, S + 1, H, W)."""
        sources = image[:, : image.shape[1] - self.num_masks]
        foreground = (sources > -1).any(dim=1, keepdim=True).to(image.dtype)  # B 1 H W
        return torch.cat([image, foreground], dim=1)
