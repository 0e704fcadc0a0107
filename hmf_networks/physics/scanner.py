"""From the signal of a slice to the plane a network gets: shift, blur, shading, noise, percentiles.

Scaled as `transforms/intensity.py` scales whole volumes; there is no volume here, so voxels drawn from all
over the head stand for it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hmf_networks.physics.fields import Floats, draw_coefficients, expand

PERCENTILES = (0.5, 99.5)
SIGNAL_SHARE, DARK_SHARE = 0.05, 0.1  # as transforms/intensity.py tells foreground
ABOVE_BACKGROUND = 2.0**-20

SHIFT_SHARE, SHIFT_FINE = 0.25, 2  # contrasts that lie a little off, and by how many half millimetres
BLUR_PIXELS, RESLICED_SHARE, RESLICED_PIXELS = 0.8, 0.1, 2.0
BIAS_KNOT_MM, BIAS_STRENGTH = 60.0, 0.15
SNR_RANGE = (12.0, 80.0)  # median signal over noise sigma
MASKED_AIR_SHARE = 0.6  # of the scans with skull whose air is exactly 0
SCALE_JITTER, LOW_JITTER, GAMMA_JITTER = 0.06, 0.02, 0.10


class Scan(NamedTuple):
    """What all contrasts of a session share."""

    stripped: bool
    masked_air: bool
    snr: float
    thick_axis: int | None  # rows or columns that lie across thick slices


def draw_scan(rng: np.random.Generator, stripped: bool) -> Scan:
    low, high = np.log(SNR_RANGE)
    return Scan(
        stripped=stripped,
        masked_air=bool(rng.random() < MASKED_AIR_SHARE),
        snr=float(np.exp(rng.uniform(low, high))),
        thick_axis=int(rng.integers(2)) if rng.random() < RESLICED_SHARE else None,
    )


def scan_plane(
    rng: np.random.Generator, scan: Scan, signal: Floats, inside: np.ndarray, voxels: Floats, fine: int
) -> Floats:
    """One contrast as a scanner stores it, scaled: (R, Q) fine pixels -> (R / fine, Q / fine) in [-1, 1]."""
    from scipy.ndimage import gaussian_filter

    if rng.random() < SHIFT_SHARE:
        shift = tuple(rng.integers(-SHIFT_FINE, SHIFT_FINE + 1, 2))
        signal, inside = (
            np.roll(signal, shift, (0, 1)),
            inside if scan.stripped else np.roll(inside, shift, (0, 1)),
        )
    plane, share = _averaged(signal, fine), _averaged(inside.astype(np.float32), fine)
    sigma = rng.uniform(0, BLUR_PIXELS, 2)
    if scan.thick_axis is not None and rng.random() < 0.7:
        sigma[scan.thick_axis] = rng.uniform(0.5, RESLICED_PIXELS)
    plane = gaussian_filter(plane, sigma, truncate=3.0)
    axes = [np.arange(size, dtype=np.float32) - (size - 1) / 2 for size in plane.shape]
    extents = (float(plane.shape[0]), float(plane.shape[1]), 0.0)
    field = expand(
        draw_coefficients(rng, BIAS_KNOT_MM, extents), BIAS_KNOT_MM, [*axes, np.zeros(1, np.float32)], extents
    )[..., 0]
    strength = BIAS_STRENGTH * rng.random()
    there = plane > 0.02 * np.percentile(voxels, 99.5)
    plane = plane * np.exp(np.float32(strength) * field)
    noise = float(np.median(voxels)) / (scan.snr * rng.uniform(0.7, 1.4))
    plane = _rician(rng, plane, noise)
    shown = share > 0.5 if scan.stripped else (there if scan.masked_air else np.ones_like(there))
    shaded = voxels * np.exp(strength * rng.standard_normal(len(voxels)))
    low, high = percentiles(_rician(rng, shaded, noise))
    spread = high - low
    low += spread * LOW_JITTER * rng.standard_normal()
    high += spread * SCALE_JITTER * rng.standard_normal()
    scaled = scaled_plane(plane, shown, low, high)
    unit = (scaled + 1) / 2
    curved = np.where(shown, unit ** np.exp(GAMMA_JITTER * rng.standard_normal()) * 2 - 1, -1)
    return np.where(shown, np.maximum(curved, -1 + ABOVE_BACKGROUND), -1).astype(np.float32)


def scaled_plane(plane: Floats, shown: np.ndarray, low: float, high: float) -> Floats:
    """To [-1, 1]; what is not shown is -1, all else a little above it."""
    scaled = np.clip((plane - low) / max(high - low, 1e-12) * 2 - 1, -1 + ABOVE_BACKGROUND, 1)
    return np.where(shown, scaled, -1).astype(np.float32)


def percentiles(voxels: Floats) -> tuple[float, float]:
    """The 0.5 and 99.5 percentile of the foreground, as of a whole volume."""
    bright = voxels > SIGNAL_SHARE * np.percentile(voxels, 99.5)
    few_are_dark = len(voxels) < (1 + DARK_SHARE) * bright.sum()
    low, high = np.percentile(voxels if few_are_dark else voxels[bright], PERCENTILES)
    return float(low), float(high)


def _averaged(plane: Floats, fine: int) -> Floats:
    height, width = plane.shape
    return plane.reshape(height // fine, fine, width // fine, fine).mean((1, 3))


def _rician(rng: np.random.Generator, values: Floats, sigma: float) -> Floats:
    noise = np.float32(sigma) * rng.standard_normal((2, *values.shape), dtype=np.float32)
    return np.hypot(values + noise[0], noise[1])
