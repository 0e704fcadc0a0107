"""Losses that MONAI lacks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_matching(real: Sequence[Tensor], made: Sequence[Tensor]) -> Tensor:
    """Mean absolute difference of a discriminator's feature maps, summed over its layers (pix2pixHD, Wang 2018).

    Args:
        real: what its layers say of the true image, layer by layer; no gradient reaches it.
        made: what they say of the made one.
    """
    return torch.stack([F.l1_loss(m, r.detach()) for r, m in zip(real, made, strict=True)]).sum()
