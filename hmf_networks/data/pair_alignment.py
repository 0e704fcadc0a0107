"""Do two volumes of one head lie on each other? Measured by the information one holds about the other.

All of it on a coarse grid. Shapes: X, Y, Z axes in RAS+ order; L intensity levels.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Spacing = NDArray[np.float64]  # three numbers in mm
Steps = tuple[int, int, int]

COARSE_MM = 2.5  # voxels are averaged to about this size: folds of the cortex can still be told apart
FULL_SHARE = 0.9  # of the fine voxels that must be foreground, or the coarse one is not
RUN_SHARE = 0.9  # of background voxels whose neighbour is background too: 0.98 if set to a constant, less in noise
OUTLIER = 8.0  # times the 99th percentile: no fluid, fat or vessel is as bright
NEIGHBOURHOOD_MM = 6.0  # standard deviation of the window in which intensities are compared: no shading is left
NUM_LEVELS = 16  # L: of equal population, so that no scale or window matters; two of them fill a byte
MIN_VOXELS = 1000  # coarse voxels in common, or there is no opinion: L^2 cells want a few each
LEAST_SPREAD = 0.05  # of the mean local deviation: what is flatter is no structure, and its noise is not blown up
REACH_MM = 16.0  # of the search along each axis, from where it starts


class Coarse(NamedTuple):
    """A volume as block averages, where it has signal, and the size of its voxels."""

    values: Floats
    foreground: Mask
    spacing_mm: Spacing


class Levelled(NamedTuple):
    """Intensity levels 0..L-1 of the locally normalised volume, and where they count."""

    levels: NDArray[np.uint8]
    foreground: Mask


class Fit(NamedTuple):
    """The best translation of the second volume in mm (right, front, up), and how well it fits there."""

    shift_mm: NDArray[np.float64]
    information: float  # normalised mutual information less 1: 0 for strangers, 1 for equals
    information_unmoved: float


def coarsen(volume: Floats, spacing_mm: Sequence[float]) -> Coarse:
    """Average blocks to about COARSE_MM; what does not fill a block at the far ends is left out."""
    blocks = [min(max(1, round(COARSE_MM / mm)), size) for mm, size in zip(spacing_mm, volume.shape, strict=True)]
    values = _in_range(_block_means(volume, blocks))
    background = constant_background(volume)
    if background is None:
        foreground = values > _between_air_and_head(values)
    else:
        foreground = _block_means(volume != background, blocks) > FULL_SHARE
    return Coarse(values, foreground, np.multiply(spacing_mm, blocks))


def constant_background(volume: Floats) -> float | None:
    """The one value around an extracted brain or a masked head; None where air is noise."""
    faces = np.concatenate([volume[np.ix_(*ends)].ravel() for ends in _faces(volume.shape)])
    found, counts = np.unique(faces, return_counts=True)
    value = found[np.argmax(counts)]
    same = volume == value
    followed = same[1:] & same[:-1]
    return float(value) if followed.sum() > RUN_SHARE * same[:-1].sum() else None


def to_levels(coarse: Coarse) -> Levelled:
    """Levels of what stands out from its neighbourhood: nothing is left of scale, offset or coil shading."""
    local = standing_out(coarse.values, coarse.foreground, NEIGHBOURHOOD_MM / coarse.spacing_mm)
    edges = np.percentile(local[coarse.foreground], np.linspace(0, 100, NUM_LEVELS + 1)[1:-1])
    return Levelled(np.searchsorted(edges, local).astype(np.uint8), coarse.foreground)


def standing_out(values: Floats, mask: Mask, sigma: NDArray[np.float64]) -> Floats:
    """(value - mean) / deviation within a Gaussian window of `sigma` voxels that sees only the mask."""
    weight = window_weight(mask, sigma)
    deviations = values - window_mean(values, mask, sigma, weight)
    spread = np.sqrt(np.clip(window_mean(deviations**2, mask, sigma, weight), 0, None))
    least = LEAST_SPREAD * float(spread[mask].mean()) + float(np.finfo(np.float32).tiny)
    return np.asarray(deviations / np.maximum(spread, least), np.float32)


def window_weight(mask: Mask, sigma: NDArray[np.float64]) -> Floats:
    """Share of a Gaussian window of `sigma` voxels that lies in the mask."""
    return _blurred(mask.astype(np.float32), sigma)


def window_mean(values: Floats, mask: Mask, sigma: NDArray[np.float64], weight: Floats) -> Floats:
    """Mean of the masked values within the window that has this `weight`."""
    return np.asarray(_blurred(values * mask, sigma) / np.maximum(weight, 1e-3), np.float32)


def mirrored(levels: Levelled) -> Levelled:
    """Left and right exchanged about the middle of the grid, as when a header loses its sign."""
    return Levelled(levels.levels[::-1], levels.foreground[::-1])


def best_fit(fixed: Levelled, moving: Levelled, spacing_mm: Spacing, *, start: Steps) -> Fit | None:
    """Climb from `start` voxels to the next best translation of `moving`; None with too little in common."""
    limits = np.ceil(REACH_MM / spacing_mm)
    known: dict[Steps, float] = {}

    def information(steps: Steps) -> float:
        if steps not in known:
            near = bool((np.abs(np.subtract(steps, start)) <= limits).all())
            known[steps] = shared_information(fixed, moving, steps) if near else -1.0
        return known[steps]

    if information(start) < 0:
        return None
    top = _climb(information, start)
    shift = [_peak(information, top, axis) for axis in range(3)]
    return Fit(np.array(shift) * spacing_mm, information(top), information(start))


def shared_information(fixed: Levelled, moving: Levelled, steps: Steps) -> float:
    """Normalised mutual information (Studholme 1999) less 1 where both have signal; -1: too few voxels."""
    here, there = _overlap(fixed.levels.shape, steps)
    both = fixed.foreground[here] & moving.foreground[there]
    num_voxels = np.count_nonzero(both)
    if num_voxels < MIN_VOXELS:
        return -1.0
    cells = (fixed.levels[here] * np.uint8(NUM_LEVELS) + moving.levels[there])[both]
    joint = np.bincount(cells, minlength=NUM_LEVELS**2).reshape(NUM_LEVELS, NUM_LEVELS) / num_voxels
    apart = _entropy(joint.sum(0)) + _entropy(joint.sum(1))
    together = _entropy(joint)
    return apart / together - 1 if together > 0 else 0.0


def start_of_mirrored(fixed: Mask, moving: Mask) -> Steps:
    """Voxels along x by which the mirrored head must move so that the middles of both masks agree."""
    middles = [np.average(np.arange(len(mask)), weights=mask.sum((1, 2))) for mask in (fixed, moving)]
    return (round(middles[0] - middles[1]), 0, 0)


def _climb(information: Callable[[Steps], float], start: Steps) -> Steps:
    top = start
    while True:
        around = [_moved(top, step) for step in itertools.product((-1, 0, 1), repeat=3)]
        best = max(around, key=information)
        if information(best) <= information(top):
            return top
        top = best


def _peak(information: Callable[[Steps], float], top: Steps, axis: int) -> float:
    """The summit of the parabola through the best voxel and its two neighbours."""
    step = tuple(int(other == axis) for other in range(3))
    before, best, after = (information(_moved(top, step, by)) for by in (-1, 0, 1))
    bend = before - 2 * best + after
    inside = before >= 0 and after >= 0 and bend < 0
    return top[axis] + (0.5 * (before - after) / bend if inside else 0.0)


def _moved(steps: Steps, step: Sequence[int], by: int = 1) -> Steps:
    x, y, z = (old + by * new for old, new in zip(steps, step, strict=True))
    return x, y, z


def _overlap(shape: Sequence[int], steps: Steps) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """Windows of the fixed and of the moving volume that lie on each other."""
    fixed, moving = [], []
    for size, step in zip(shape, steps, strict=True):
        fixed.append(slice(max(0, step), max(0, size + min(0, step))))
        moving.append(slice(max(0, -step), max(0, size - max(0, step))))
    return tuple(fixed), tuple(moving)


def _entropy(probabilities: NDArray[np.float64]) -> float:
    some = probabilities[probabilities > 0]
    return float(-(some * np.log(some)).sum())


def _in_range(values: Floats) -> Floats:
    """In units of the 99th percentile and without what is far beyond, so that squares fit into float32."""
    size = np.abs(values)
    unit = (np.percentile(size, 99) or size.max(initial=0.0)) or 1.0
    return np.clip(values / np.float32(unit), -OUTLIER, OUTLIER)


def _block_means(volume: NDArray[np.generic], blocks: Sequence[int]) -> Floats:
    means: Floats = volume.astype(np.float32)
    for axis, block in enumerate(blocks):
        lines = np.moveaxis(means, axis, 0)[: means.shape[axis] // block * block]
        total = np.zeros_like(lines[::block])
        for first in range(block):
            total += lines[first::block]
        means = np.moveaxis(total / np.float32(block), 0, axis)
    return np.ascontiguousarray(means)


def _blurred(values: Floats, sigma: NDArray[np.float64]) -> Floats:
    return np.asarray(ndimage.gaussian_filter(values, sigma, mode="constant", truncate=2.5))


def _faces(shape: Sequence[int]) -> list[list[Sequence[int]]]:
    whole: list[Sequence[int]] = [range(size) for size in shape]
    return [[*whole[:axis], (0, shape[axis] - 1), *whole[axis + 1 :]] for axis in range(3)]


def _between_air_and_head(values: Floats) -> float:
    """Half the threshold of Otsu (1979): dark fluid belongs to the head."""
    low, high = np.percentile(values, (0, 99.5))
    counts, edges = np.histogram(np.clip(values, low, high), bins=128)
    middles = (edges[1:] + edges[:-1]) / 2
    below, sum_below = np.cumsum(counts)[:-1], np.cumsum(counts * middles)[:-1]
    above, sum_above = counts.sum() - below, (counts * middles).sum() - sum_below
    apart = below * above * (sum_below / np.maximum(below, 1) - sum_above / np.maximum(above, 1)) ** 2
    return float(low + 0.5 * (middles[np.argmax(apart)] - low))
