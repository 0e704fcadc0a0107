"""Scanner units to the network's range and back: docs/decisions.md.

Shapes: volumes (C, X, Y, Z).
"""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from hmf_networks.ops.foreground import background_value, foreground
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

CLIPPED = 2.0**-20  # what clipped foreground lies above -1, the background
OUTPUT_MAXIMUM = 1000.0  # written volumes reach from 0 to this, so that integer viewers show them well


def scale_by_foreground(volume: Tensor, *, lower: float = 0.5, upper: float = 99.5) -> Tensor:
    """(X, Y, Z) with these percentiles of its foreground at -1 and 1, clipped; exact background at -1.

    Foreground never falls to -1 itself but stays a millionth above, so that no dark voxel passes for air.
    Where all voxels are alike there is no contrast: -1 all over.
    """
    inside = foreground(volume)
    if not inside.any():
        return torch.full_like(volume, -1.0)
    low, high = np.percentile(volume[inside].numpy(), [lower, upper])
    scaled = ((volume - low) / max(high - low, np.finfo(np.float32).tiny) * 2 - 1).clamp(-1, 1)
    scaled = torch.where(inside, scaled.clamp(min=-1 + CLIPPED), scaled)
    return torch.where(volume == background_value(volume), -1.0, scaled)


class ScaleForegroundd(MapTransform):
    """Every channel by the percentiles of its own foreground to [-1, 1], clipped; untouched background to -1.

    Args:
        keys: volumes (C, X, Y, Z).
        lower, upper: percentiles of the foreground that become -1 and 1.
        background_key: where to put the mask (1, X, Y, Z) of voxels that are exactly background in every
            channel of the first key, for `RestoreIntensityd`; None for nowhere. A channel without signal, of
            a contrast that is missing, is background all over: there the others decide.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        lower: float = 0.5,
        upper: float = 99.5,
        background_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.lower, self.upper = lower, upper
        self.background_key = background_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        for key in self.key_iterator(sample):
            volume = sample[key]
            plain = volume.as_subclass(Tensor)
            if self.background_key is not None and key == self.keys[0]:
                backgrounds = torch.stack([channel == background_value(channel) for channel in plain])
                sample[self.background_key] = backgrounds.all(dim=0, keepdim=True)
            scaled = [scale_by_foreground(channel, lower=self.lower, upper=self.upper) for channel in plain]
            volume.copy_(torch.stack(scaled))
        return sample


class RestoreIntensityd(MapTransform):
    """The prediction in [-1, 1] to 0..1000 by a fixed map; background of all sources becomes 0 again.

    Raises:
        FloatingPointError: it is not finite.
    """

    def __init__(self, keys: KeysCollection = ("pred",), *, background_key: str | None = "background") -> None:
        super().__init__(keys)
        self.background_key = background_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        for key in self.keys:
            if not torch.isfinite(sample[key]).all():  # clamped, infinity would pass for a value
                raise FloatingPointError(f"{key} holds NaN or infinity")
            restored = ((sample[key] + 1) / 2 * OUTPUT_MAXIMUM).clamp(0, OUTPUT_MAXIMUM)
            if self.background_key is not None:
                mask = sample[self.background_key].to(restored.device)
                restored = torch.where(mask, torch.zeros_like(restored), restored)
            sample[key] = restored
        return sample
