"""From the signal of a slice to the plane a network gets: shift, blur, shading, noise, percentiles.

Scaled as `transforms/intensity.py` scales whole volumes; there is no volume here, so voxels drawn from all
over the head stand for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from hmf_networks.physics.artefacts import rician_noise
from hmf_networks.physics.fields import Floats, draw_coefficients, expand

PERCENTILES = (0.5, 99.5)
AIR_SHARE = 0.04  # of the median signal: less is air or bone
SIGNAL_SHARE, DARK_SHARE = 0.05, 0.1  # as ops/foreground.py tells foreground
ABOVE_BACKGROUND = 2.0**-20
RAYLEIGH_MEDIAN = 1.177  # of the noise in air, in sigmas

SHIFT_SHARE, SHIFT_MM = 0.25, 1.0  # contrasts that lie a little off the others, and how far along an axis
BLUR_MM, RESLICED_SHARE, RESLICED_MM = 0.8, 0.1, (0.5, 2.0)  # largest sigma of the point spread
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


class Received(NamedTuple):
    """A contrast in the units of its signal: the image, where the file is not 0, and how it was shaded.

    `air` is what the air in the file's corners shows; None where all of it is 0.
    """

    image: Floats
    shown: np.ndarray
    shading: float
    noise: float
    air: float | None


def draw_scan(rng: np.random.Generator, *, stripped: bool) -> Scan:
    low, high = np.log(SNR_RANGE)
    return Scan(
        stripped=stripped,
        masked_air=bool(rng.random() < MASKED_AIR_SHARE),
        snr=float(np.exp(rng.uniform(low, high))),
        thick_axis=int(rng.integers(2)) if rng.random() < RESLICED_SHARE else None,
    )


def receive(
    rng: np.random.Generator, scan: Scan, signal: Floats, inside: np.ndarray, level: float, spacing_mm: Sequence[float]
) -> Received:
    """Shift, blur, shade and add noise: a plane or a volume, where `inside` says what was not cut away.

    Args:
        rng: where all draws come from.
        scan: what the contrasts of this session share.
        signal: a plane or a volume.
        inside: where nothing was cut away, of the same shape.
        level: median signal of the head, what noise is relative to.
        spacing_mm: of each axis.
    """
    from scipy.ndimage import gaussian_filter, shift

    spacing = np.asarray(spacing_mm, np.float64)
    if rng.random() < SHIFT_SHARE:
        signal = shift(signal, rng.uniform(-SHIFT_MM, SHIFT_MM, signal.ndim) / spacing, order=1, mode="nearest")
    sigma_mm = rng.uniform(0, BLUR_MM, signal.ndim)
    if scan.thick_axis is not None and rng.random() < 0.7:
        sigma_mm[scan.thick_axis] = rng.uniform(*RESLICED_MM)
    image = gaussian_filter(signal, sigma_mm / spacing, truncate=3.0)
    air = image < AIR_SHARE * level
    strength = BIAS_STRENGTH * rng.random()
    image = image * np.exp(np.float32(strength) * _shading(rng, signal.shape, spacing))
    noise = level / (scan.snr * rng.uniform(0.7, 1.4))
    shown = inside if scan.stripped else ~air if scan.masked_air else np.ones_like(air)
    seen = None if scan.stripped or scan.masked_air else RAYLEIGH_MEDIAN * noise
    return Received(np.where(shown, rician_noise(rng, image, sigma=noise), 0), shown, strength, noise, seen)


def scan_plane(rng: np.random.Generator, scan: Scan, signal: Floats, inside: np.ndarray, voxels: Floats) -> Floats:
    """One contrast as a network gets it, in [-1, 1], of 1 mm pixels; `voxels` stand for the volume."""
    received = receive(rng, scan, signal, inside, float(np.median(voxels)), (1.0, 1.0))
    shaded = voxels * np.exp(received.shading * rng.standard_normal(len(voxels)))
    noisy = rician_noise(rng, shaded, sigma=received.noise)
    least = least_signal(noisy, received.air)
    low, high = percentiles(noisy, received.air)
    spread = high - low
    low += spread * LOW_JITTER * rng.standard_normal()
    high += spread * SCALE_JITTER * rng.standard_normal()
    bright = np.abs(received.image - (received.air or 0.0)) > least
    scaled = scaled_plane(received.image, received.shown & bright, low, high)
    curved = ((scaled + 1) / 2) ** np.exp(GAMMA_JITTER * rng.standard_normal()) * 2 - 1
    lifted = np.where(received.shown & bright, np.maximum(curved, -1 + ABOVE_BACKGROUND), curved)
    return np.where(received.shown, lifted, -1).astype(np.float32)


def scaled_plane(plane: Floats, inside: np.ndarray, low: float, high: float) -> Floats:
    """To [-1, 1]; the foreground, `inside`, stays a little above -1."""
    scaled = np.clip((plane - low) / max(high - low, 1e-12) * 2 - 1, -1, 1)
    return np.where(inside, np.maximum(scaled, -1 + ABOVE_BACKGROUND), scaled).astype(np.float32)


def least_signal(voxels: Floats, air: float | None = None) -> float:
    """How far the foreground of a volume is from what the air shows, at least.

    0 where the air is 0 and few of the head's voxels are as dark; noise is never told from dark fluid.
    """
    signal = np.abs(voxels - (air or 0.0))
    least = SIGNAL_SHARE * float(np.percentile(signal, 99.5))
    few_are_dark = len(signal) < (1 + DARK_SHARE) * (signal > least).sum()
    return 0.0 if few_are_dark and air is None else least


def percentiles(voxels: Floats, air: float | None = None) -> tuple[float, float]:
    """The 0.5 and 99.5 percentile of the foreground, as of a whole volume."""
    inside = np.abs(voxels - (air or 0.0)) > least_signal(voxels, air)
    low, high = np.percentile(voxels[inside], PERCENTILES)
    return float(low), float(high)


def _shading(rng: np.random.Generator, shape: tuple[int, ...], spacing_mm: np.ndarray) -> Floats:
    """Unit field over a plane or a volume."""
    extents = [float(size * mm) for size, mm in zip(shape, spacing_mm, strict=True)]
    axes = [
        ((np.arange(size) - (size - 1) / 2) * mm).astype(np.float32) for size, mm in zip(shape, spacing_mm, strict=True)
    ]
    thin = 3 - len(shape)
    extents, axes = extents + [0.0] * thin, axes + [np.zeros(1, np.float32)] * thin
    coefficients = draw_coefficients(rng, BIAS_KNOT_MM, extents)
    return expand(coefficients, BIAS_KNOT_MM, axes, extents).reshape(shape)
