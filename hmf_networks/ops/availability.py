"""Which contrasts there are: what an any-to-any network is told beside the images (DESIGN section 3).

Shapes: B batch, S contrasts in the order the network knows them, H x W pixels.
"""

import torch
from torch import Tensor


def available(images: Tensor) -> Tensor:
    """(B, S, ...) in [-1, 1] -> (B, S), boolean: contrasts that are not background, -1, all over."""
    return (images > -1).flatten(2).any(dim=2)


def append_masks(images: Tensor, masks: Tensor) -> Tensor:
    """One constant channel more for each contrast, 1 where it is available and 0 where not.

    Args:
        images: (B, S, H, W).
        masks: (B, S), boolean.

    Returns:
        (B, 2 S, H, W).
    """
    constant = masks.to(images)[:, :, None, None].expand(-1, -1, *images.shape[2:])
    return torch.cat([images, constant], dim=1)
