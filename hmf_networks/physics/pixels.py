"""Pixels of a slice, and the places inside them where tissue is looked up.

A pixel is the mean of its places, along both axes and through the slice.
"""

from __future__ import annotations

import numpy as np
from hmf_networks.physics.fields import Floats

FINE = 2  # places to a pixel, along either axis
LARGEST_STEP_MM = 1.5  # between the places through a thick slice


def pixel_places(extent_mm: float, spacing_mm: float) -> Floats:
    """Centres of the pixels that cover an extent, about 0."""
    count = max(1, round(extent_mm / spacing_mm))
    return ((np.arange(count) - (count - 1) / 2) * spacing_mm).astype(np.float32)


def places_within(pixels: Floats) -> Floats:
    """FINE places to each of several evenly spaced pixels."""
    step = float(pixels[1] - pixels[0])
    offsets = (np.arange(FINE) - (FINE - 1) / 2) * step / FINE
    return (pixels[:, None] + offsets).ravel().astype(np.float32)


def places_through(thickness_mm: float) -> np.ndarray:
    """Places along the normal, about 0, that a slice is averaged over."""
    count = max(1, round(thickness_mm / LARGEST_STEP_MM))
    return (np.arange(count) - (count - 1) / 2) * thickness_mm / count


def to_pixels(planes: Floats) -> Floats:
    """(..., FINE R, FINE Q) -> (..., R, Q)."""
    height, width = planes.shape[-2:]
    split = planes.reshape(*planes.shape[:-2], height // FINE, FINE, width // FINE, FINE)
    return split.mean((-3, -1))
