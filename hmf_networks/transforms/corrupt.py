"""Sources as a bad day at the scanner gives them: motion, noise, shading, blur, thick and missing slices. For testing.

Volumes (S, X, Y, Z) in [-1, 1], background at -1, axial planes along the last axis; docs/experiments.md#motion.
"""

import zlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from hmf_networks.naming import unknown_word
from hmf_networks.physics.artefacts import rician_noise
from hmf_networks.physics.motion import SEVERITIES, with_motion
from hmf_networks.transforms.slices import voxel_spacing_mm
from monai.config import KeysCollection
from monai.transforms import MapTransform
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

Volume = NDArray[np.float64]  # (X, Y, Z) from 0 to 1, 0 outside the head
Spacing = Sequence[float]

LEVELS = 5  # of each but motion, whose levels have names
NOISE_SIGMA = 0.025  # a level more, of the range of values
BIAS_SPAN = 0.15  # a level more: how much brighter the brightest place is than the darkest
BLUR_MM = 0.5  # a level more, standard deviation within the plane
THICKER_MM = 1.5  # a level more, what a slice is averaged over beyond its own thickness
MISSING_SHARE = 0.05  # a level more, of the slices


def moved(volume: Volume, rng: np.random.Generator, level: str, spacing_mm: Spacing) -> Volume:
    """Each axial plane by itself, read anew."""
    severity, pixel_mm = SEVERITIES[level], float(np.mean(spacing_mm[:2]))
    planes = np.moveaxis(volume, 2, 0)
    return np.stack([with_motion(p, rng, severity, pixel_mm) if p.any() else p for p in planes], axis=2)


def noisy(volume: Volume, rng: np.random.Generator, level: int, _spacing_mm: Spacing) -> Volume:
    """Of magnitudes, inside the head."""
    noise = rician_noise(rng, volume.astype(np.float32), sigma=NOISE_SIGMA * level)
    return np.where(volume > 0, noise, 0.0)


def shaded(volume: Volume, rng: np.random.Generator, level: int, _spacing_mm: Spacing) -> Volume:
    """By a smooth gain with mean 1."""
    zoom = [size / 3 for size in volume.shape]
    field = ndimage.zoom(rng.standard_normal((3, 3, 3)), zoom, order=2, grid_mode=True, mode="nearest")
    gain = np.exp((field - field.mean()) / max(np.ptp(field), 1e-6) * np.log1p(BIAS_SPAN * level))
    return volume * gain


def blurred(volume: Volume, _rng: np.random.Generator, level: int, spacing_mm: Spacing) -> Volume:
    return ndimage.gaussian_filter(volume, [BLUR_MM * level / mm for mm in spacing_mm[:2]] + [0])


def thick(volume: Volume, _rng: np.random.Generator, level: int, spacing_mm: Spacing) -> Volume:
    """Averaged across the planes over a box about each; its ends count by how much of them lies in it."""
    reach = THICKER_MM * level / spacing_mm[2] / 2  # planes on either side, beyond half of one
    whole = int(reach)
    weights = np.array([reach - whole, *[1.0] * (2 * whole + 1), reach - whole])
    return ndimage.convolve1d(volume, weights / weights.sum(), axis=2, mode="constant")


def with_gaps(volume: Volume, rng: np.random.Generator, level: int, _spacing_mm: Spacing) -> Volume:
    """Planes that are not there: background."""
    there = np.flatnonzero(volume.any(axis=(0, 1)))
    volume = volume.copy()
    volume[:, :, rng.choice(there, round(MISSING_SHARE * level * len(there)), replace=False)] = 0
    return volume


KINDS: dict[str, Callable[..., Volume]] = {
    "motion": moved,
    "noise": noisy,
    "bias": shaded,
    "blur": blurred,
    "thick": thick,
    "missing": with_gaps,
}


class CorruptSourcesd(MapTransform):
    """Corrupt some of the sources of a volume; the same patient and seed, the same corruption.

    Args:
        keys: the sources, (S, X, Y, Z).
        kind: "none", or one of KINDS.
        level: "mild", "moderate" or "severe" of motion; 1 to 5 of the others.
        sources: which of the S: numbers from 0, or "all".
        seed: of the random numbers, beside the patient's name and the source.

    The sample gets `input_psnr`: how far the corrupted sources are from what they were, in dB, over the range and
    inside the head; the mean of them.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        *,
        kind: str = "none",
        level: str | int = 1,
        sources: list[int] | str = "all",
        seed: int = 0,
    ) -> None:
        super().__init__(keys)
        if kind not in ("none", *KINDS):
            raise ValueError(unknown_word("corruption", kind, ("none", *KINDS)))
        levels = SEVERITIES if kind == "motion" else range(1, LEVELS + 1)
        if kind != "none" and level not in levels:
            raise ValueError(f"level {level!r} of {kind}; there are {', '.join(map(str, levels))}")
        if not (sources == "all" or (isinstance(sources, list) and all(isinstance(s, int) for s in sources))):
            raise ValueError(f"sources must be numbers from 0, as in [0, 1], or 'all', not {sources!r}")
        self.kind, self.level, self.sources, self.seed = kind, level, sources, seed

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        if self.kind == "none":
            return sample
        for key in self.keys:
            image = sample[key]
            chosen = list(range(len(image))) if isinstance(self.sources, str) else self.sources
            if any(not 0 <= source < len(image) for source in chosen):
                raise ValueError(f"sources {chosen} to corrupt, but there are {len(image)}")
            who = zlib.crc32(str(data.get("patient", "")).encode())
            corrupted, psnr = image.clone(), []
            for source in chosen:
                before = (image[source].as_subclass(Tensor).numpy().astype(np.float64) + 1) / 2
                rng = np.random.default_rng([self.seed, who, source])
                after = KINDS[self.kind](before, rng, self.level, voxel_spacing_mm(image)).clip(0, 1)
                psnr.append(-10 * np.log10(max(np.mean((after - before)[before > 0] ** 2), 1e-12)))
                corrupted[source] = torch.from_numpy(after * 2 - 1).to(image.dtype)
            sample[key], sample["input_psnr"] = corrupted, float(np.mean(psnr))
        return sample
