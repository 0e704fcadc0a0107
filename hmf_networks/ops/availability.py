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


def wanted_targets(image: Tensor, label: Tensor, num_masks: int) -> Tensor:
    """(B, T), boolean: what a network is to learn from these samples, targets that are there but not given.

    Args:
        image: (B, C, H, W), its last `num_masks` channels the masks; without any, all targets are wanted.
        label: (B, T, H', W') in [-1, 1].
        num_masks: 0, or T: sources and targets are the same contrasts in the same order.
    """
    if num_masks == 0:
        return torch.ones(label.shape[:2], dtype=torch.bool, device=label.device)
    given = image[:, -num_masks:, 0, 0] > 0
    return available(label) & ~given
