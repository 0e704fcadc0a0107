"""What the scanner adds to the signal: coil shading, blur, noise, an arbitrary scale of stored numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hmf_networks.physics.fields import Floats, smooth_field
from numpy.typing import NDArray

BIAS_RANGE = (0.10, 0.30)  # brightest over darkest place of the brain, minus one: clinical scans, not corrected
BIAS_KNOT_MM = 70.0
SNR_RANGE = (15.0, 40.0)  # white matter signal over noise sigma
BLUR_SIGMA_MM = (0.4, 0.7)
STORED_RANGE = (300.0, 6000.0)  # where the 99.5th percentile of the brain lands in the int16 file


def bias_field(rng: np.random.Generator, axes_mm: Sequence[Floats], brain: np.ndarray) -> Floats:
    """Gain at every brain voxel, mean 1; its range is that of the 1st to 99th percentile."""
    field = smooth_field(rng, BIAS_KNOT_MM, axes_mm)[brain]
    low, high = np.percentile(field[::31], (1, 99))  # a smooth field needs no full sort
    gain = np.exp(np.log1p(rng.uniform(*BIAS_RANGE)) / max(high - low, 1e-6) * field)
    return (gain / gain.mean()).astype(np.float32)


def blur(image: Floats, *, sigma_voxels: float) -> Floats:
    """Point spread of a real readout: a narrow Gaussian; the image is zero outside the head."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image, sigma_voxels, truncate=3.0, mode="constant")


def rician_noise(rng: np.random.Generator, values: Floats, *, sigma: float) -> Floats:
    """Magnitude of a complex signal with Gaussian noise in both channels (Gudbjartsson 1995)."""
    real = values + np.float32(sigma) * rng.standard_normal(values.shape, dtype=np.float32)
    imaginary = np.float32(sigma) * rng.standard_normal(values.shape, dtype=np.float32)
    return np.hypot(real, imaginary)


def stored(values: Floats, *, level: float) -> NDArray[np.int16]:
    """Integers as in a file: the 99.5th percentile becomes `level`; never 0, which means no brain."""
    scale = level / max(float(np.percentile(values, 99.5)), 1e-6)
    return np.clip(np.rint(values * scale), 1, np.iinfo(np.int16).max).astype(np.int16)
