"""A patient who moves while a slice is read: k-space filled from several poses, ghosts, blur that varies.

Planes (H, W) of magnitudes, 0 outside the head. The phase-encoding axis lies in the plane, so that motion shows in
a slice by itself; torchio's RandomMotion splits k-space along the third axis, of which a slice has none.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Plane = NDArray[np.float64]

NUM_POSES = (2, 6)  # of the head while the lines are read
UNMOVED_SHARE = 0.08  # of the lines, those in the middle: from the pose that the target is in
JITTER = 0.3  # of a segment's length, its end may lie earlier or later
GHOST_PERIOD = (3, 8)  # lines from one that is weakened to the next
MASK_KNOTS = 4  # places along a side at which the blur's share is drawn


class Severity(NamedTuple):
    """How far a head turns (degrees) and shifts (mm), what ghosts take away, how far edges spread (mm)."""

    degrees: float
    shift_mm: float
    ghost: float
    blur_mm: float


SEVERITIES = {
    "mild": Severity(2.0, 2.0, 0.15, 0.5),
    "moderate": Severity(5.0, 5.0, 0.3, 1.0),
    "severe": Severity(10.0, 10.0, 0.5, 2.0),
}


def with_motion(plane: Plane, rng: np.random.Generator, severity: Severity, pixel_mm: float) -> Plane:
    """The magnitude of what such a read-out gives."""
    axis = int(rng.integers(2))
    read = moved_kspace(plane, rng, severity, pixel_mm, axis)
    read = ghosted(read, rng, severity.ghost, axis)
    image = np.abs(np.fft.ifft2(np.fft.ifftshift(read)))
    return blurred_somewhere(image, rng, severity.blur_mm / pixel_mm)


def moved_kspace(plane: Plane, rng: np.random.Generator, severity: Severity, pixel_mm: float, axis: int) -> Plane:
    """Lines along `axis`, read segment by segment, each from another pose; those in the middle unmoved."""
    still = kspace(plane)
    lines = plane.shape[axis]
    num_poses = int(rng.integers(NUM_POSES[0], NUM_POSES[1] + 1))
    ends = np.arange(1, num_poses) + rng.uniform(-JITTER, JITTER, num_poses - 1)
    segments = np.searchsorted(np.sort(ends) * lines / num_poses, np.arange(lines), side="right")
    read = still.copy()
    for pose in range(num_poses):
        angle = np.deg2rad(rng.uniform(-severity.degrees, severity.degrees))
        shift = rng.uniform(-severity.shift_mm, severity.shift_mm, 2) / pixel_mm
        where = [slice(None), slice(None)]
        where[axis] = segments == pose
        read[tuple(where)] = kspace(posed(plane, angle, shift))[tuple(where)]
    middle = [slice(None), slice(None)]
    half = max(1, round(UNMOVED_SHARE * lines / 2))
    middle[axis] = slice(lines // 2 - half, lines // 2 + half)
    read[tuple(middle)] = still[tuple(middle)]
    return read


def posed(plane: Plane, angle: float, shift: NDArray[np.float64]) -> Plane:
    """Turned about its centre (radians), then shifted (pixels); nothing comes in from outside."""
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = (np.array(plane.shape) - 1) / 2
    return ndimage.affine_transform(plane, turn, centre - turn @ (centre + shift), order=1)


def ghosted(read: Plane, rng: np.random.Generator, intensity: float, axis: int) -> Plane:
    """About every n-th line is weakened, as by breathing or pulse; those in the middle are not."""
    lines = read.shape[axis]
    period = rng.uniform(*GHOST_PERIOD)
    places = np.arange(rng.uniform(0, period), lines, period)
    hit = np.unique(np.clip(np.round(places + rng.uniform(-0.5, 0.5, len(places))), 0, lines - 1).astype(int))
    hit = hit[np.abs(hit - lines / 2) > UNMOVED_SHARE * lines / 2]
    gain = np.ones(lines)
    gain[hit] = 1 - intensity * rng.uniform(0.5, 1.0)
    return read * (gain[:, None] if axis == 0 else gain)


def blurred_somewhere(image: Plane, rng: np.random.Generator, sigma: float) -> Plane:
    """Mixed with its blurred self (sigma in pixels), by a share between 0 and 1 that varies smoothly."""
    knots = rng.random((MASK_KNOTS, MASK_KNOTS))
    zoom = [size / MASK_KNOTS for size in image.shape]
    share = ndimage.zoom(knots, zoom, order=1, grid_mode=True, mode="nearest").clip(0, 1)
    return share * ndimage.gaussian_filter(image, sigma) + (1 - share) * image


def kspace(plane: Plane) -> Plane:
    """Its lowest frequency in the middle."""
    return np.fft.fftshift(np.fft.fft2(plane))
