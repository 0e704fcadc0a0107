"""Real slices as other scanners would have taken them: what a network fine-tuned on few patients needs.

Shapes: planes (C, H, W) in [-1, 1], background at -1.
"""

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from hmf_networks.transforms.intensity import CLIPPED
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor


class RandScannerd(RandomizableTransform, MapTransform):
    """Every channel for itself: another scale, curve and noise; background stays background.

    Args:
        keys: planes.
        prob: of each channel.
        gamma, scale, offset: standard deviations of the logarithm of the exponent, of the logarithm of the
            brightest value, of what is added; of values in 0..1.
        noise: largest standard deviation of what each pixel is moved by.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        *,
        prob: float = 0.8,
        gamma: float = 0.15,
        scale: float = 0.08,
        offset: float = 0.02,
        noise: float = 0.03,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=1.0)
        self.channel_prob, self.gamma, self.scale, self.offset, self.noise = prob, gamma, scale, offset, noise

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        for key in self.keys:
            sample[key] = torch.stack([self._taken(plane) for plane in sample[key].as_subclass(Tensor)])
        return sample

    def _taken(self, plane: Tensor) -> Tensor:
        if self.R.random_sample() >= self.channel_prob:
            return plane
        curve, brightness, added = self.R.standard_normal(3) * (self.gamma, self.scale, self.offset)
        grain = torch.from_numpy(self.R.standard_normal(plane.shape)).float()
        unit = ((plane + 1) / 2).clamp(0, 1) ** math.exp(curve)
        unit = unit * math.exp(brightness) + added
        unit = unit + self.noise * self.R.random_sample() * grain
        taken = (unit * 2 - 1).clamp(-1 + CLIPPED, 1)
        return torch.where(plane > -1, taken, -1.0)


class FineLabeld(MapTransform):
    """The planes become `label`, and the average of 2 x 2 of their pixels takes their place.

    Planes of half the trained pixel size so give a truth that is finer than what the network reads.
    """

    def __init__(self, keys: KeysCollection = "image", *, label_key: str = "label") -> None:
        super().__init__(keys)
        self.label_key = label_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        for key in self.keys:
            sample[self.label_key] = sample[key].as_subclass(Tensor)
            sample[key] = F.avg_pool2d(sample[self.label_key], 2)
        return sample
