"""Lesions laid into real slices, alike in every contrast: few patients show few of the lesions there are.

Shapes: planes (C, H, W) in [-1, 1], all CONTRASTS; background, and what is missing, at -1.
"""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hmf_networks.physics.lesions import Shells, draw_plaque_shells, draw_tumour_shells
from hmf_networks.transforms.intensity import CLIPPED
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

# Times the median of the tissue around, from the mildest to the strongest: what reading rooms see of
# oedema, vital rim, necrosis and plaque; contrasts in the order of CONTRASTS.
BRIGHTNESS = {
    "oedema": ((0.95, 0.60), (0.95, 0.60), (1.20, 2.00), (1.20, 2.40), (1.00, 1.25)),
    "rim": ((1.10, 0.70), (1.30, 2.20), (0.95, 1.60), (0.95, 1.60), (1.00, 1.20)),
    "core": ((0.80, 0.35), (0.80, 0.35), (1.20, 2.50), (1.60, 0.50), (1.00, 1.30)),
    "plaque": ((1.00, 0.55), (1.00, 0.55), (1.20, 1.90), (1.25, 2.00), (1.00, 1.25)),
    "active": ((1.00, 0.60), (1.20, 2.00), (1.20, 1.90), (1.25, 2.00), (1.00, 1.25)),
}
TISSUES = tuple(BRIGHTNESS)
MASS, PLAQUE = (2, 1, 0), (3, 4)  # core, rim, oedema; chronic, active
PLAQUE_SHARE = 0.4
NUM_PLAQUES = 6
KEPT_TEXTURE = 0.5  # of what was there before
DISAGREEMENT = 0.2  # of the contrasts about how strong a lesion is
SCALED_BY = 0.995  # quantile of a plane
SKULL_MM = 18.0  # lesions lie deeper than this


class RandLesiond(RandomizableTransform, MapTransform):
    """A tumour with oedema, rim and core, or some plaques, drawn into all contrasts that are there.

    Args:
        keys: planes.
        prob: of a sample.
        pixel_mm: pixel size of the planes.
    """

    def __init__(self, keys: KeysCollection = "image", *, prob: float = 0.5, pixel_mm: float = 1.0) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=prob)
        self.pixel_mm = pixel_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        for key in self.keys:
            self.randomize(None)
            if self._do_transform:
                rng = np.random.default_rng(self.R.randint(2**31))
                sample[key] = with_lesions(sample[key].as_subclass(Tensor), rng, self.pixel_mm)
        return sample


def with_lesions(planes: Tensor, rng: np.random.Generator, pixel_mm: float) -> Tensor:
    """A copy with lesions where the planes are deep enough; background stays background."""
    signal = (planes > -1).any(dim=0)
    places = torch.nonzero(deep(signal, SKULL_MM / pixel_mm))
    if len(places) == 0:
        return planes
    unit = (planes + 1) / 2
    tissue = [channel[channel > 0].median() if (channel > 0).any() else channel.new_zeros(()) for channel in unit]
    lines, columns = (torch.arange(size) * pixel_mm for size in signal.shape)
    grid = torch.stack([*torch.meshgrid(lines, columns, indexing="ij"), torch.zeros(signal.shape)])
    points = grid.flatten(1).numpy()
    for shells in draw_shells(rng, places.numpy() * pixel_mm):
        near, shares = shells.at(points)
        for number, share in zip(shells.tissues, shares, strict=True):
            strength = rng.random()
            for contrast, (mild, strong) in enumerate(BRIGHTNESS[TISSUES[number]]):
                own = float(np.clip(strength + DISAGREEMENT * rng.standard_normal(), 0, 1))
                brightness = (mild + (strong - mild) * own) * tissue[contrast]
                before = unit[contrast].flatten()[near]
                change = KEPT_TEXTURE * (before - tissue[contrast]) + brightness - before
                unit[contrast].view(-1)[near] = before + torch.from_numpy(share) * change
    unit = unit / _brightest(unit, rng)
    return torch.where(planes > -1, (unit * 2 - 1).clamp(-1 + CLIPPED, 1), -1.0)


def _brightest(unit: Tensor, rng: np.random.Generator) -> Tensor:
    """What to divide by (C, 1, 1): a scan with bright lesions is scaled by them, the rest of it is darker."""
    tops = unit.flatten(1).quantile(SCALED_BY, dim=1).clamp(min=1)
    return (tops ** float(rng.uniform(0.5, 1)))[:, None, None]


def draw_shells(rng: np.random.Generator, places_mm: np.ndarray) -> list[Shells]:
    """One mass or some plaques; each has its middle near the plane of these places (N, 2)."""
    is_mass = rng.random() >= PLAQUE_SHARE
    drawn = []
    for _ in range(1 if is_mass else int(rng.integers(1, NUM_PLAQUES, endpoint=True))):
        in_plane = places_mm[rng.integers(len(places_mm))]
        across = rng.normal(0, 8.0 if is_mass else 2.0)
        centre = np.array([*in_plane, across], np.float32)
        drawn.append(draw_tumour_shells(rng, centre, MASS) if is_mass else draw_plaque_shells(rng, centre, PLAQUE))
    return drawn


def deep(signal: Tensor, pixels: float) -> Tensor:
    """Where a mask (H, W) reaches `pixels` further in every direction of the axes."""
    reach = round(pixels)
    outside = F.pad((~signal).float()[None, None], (reach, reach, reach, reach), value=1.0)
    outside = F.max_pool2d(outside, (2 * reach + 1, 1), stride=1)
    return F.max_pool2d(outside, (1, 2 * reach + 1), stride=1)[0, 0] == 0
