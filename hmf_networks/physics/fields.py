"""Smooth random fields over the head: cubic B-splines on a coarse lattice of knots.

All lengths are millimetres from the centre of the field of view. The knots never depend on the voxel size,
so one seed gives one and the same field at 1 mm and at 4 mm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FIELD_OF_VIEW_MM = (160.0, 208.0, 160.0)  # left-right, front-back, foot-head: an adult brain and a small margin
_SPLINE_STD = (151 / 315) ** 1.5  # of a cubic B-spline sum with independent unit coefficients, three axes


def voxel_centres(spacing_mm: float) -> list[Floats]:
    """Centres along each axis of the voxels that fill the field of view, in mm."""
    counts = [max(1, round(extent / spacing_mm)) for extent in FIELD_OF_VIEW_MM]
    return [((np.arange(count) - (count - 1) / 2) * spacing_mm).astype(np.float32) for count in counts]


def knots(knot_mm: float, extents_mm: Sequence[float] = FIELD_OF_VIEW_MM) -> list[Floats]:
    """Knots along each axis, `knot_mm` apart, with the rim that cubic splines need beyond the edge."""
    halves = [int(np.ceil(extent / 2 / knot_mm)) + 2 for extent in extents_mm]
    return [(np.arange(-half, half + 1) * knot_mm).astype(np.float32) for half in halves]


def expand(
    coefficients: Floats, knot_mm: float, axes_mm: Sequence[Floats], extents_mm: Sequence[float] = FIELD_OF_VIEW_MM
) -> Floats:
    """Splines with coefficients (..., K, K, K) on `knots`, read at `axes_mm`; straight lines stay exact."""
    field, places = coefficients, knots(knot_mm, extents_mm)
    for axis in (-1, -2, -3):  # the largest axis product comes last, as one matrix product
        weights = _cubic_spline((axes_mm[axis][:, None] - places[axis][None, :]) / knot_mm)
        field = np.moveaxis(np.tensordot(weights, field, axes=(1, axis)), 0, axis)
    return np.ascontiguousarray(field)


def smooth_field(rng: np.random.Generator, knot_mm: float, axes_mm: Sequence[Floats]) -> Floats:
    """Gaussian random field: mean 0, standard deviation 1, correlated over about two knots."""
    return expand(draw_coefficients(rng, knot_mm), knot_mm, axes_mm)


def draw_coefficients(
    rng: np.random.Generator,
    knot_mm: float,
    extents_mm: Sequence[float] = FIELD_OF_VIEW_MM,
    count: tuple[int, ...] = (),
) -> Floats:
    """Of `count` Gaussian random fields, to be read with `expand`: a slice of them costs no volume."""
    shape = [*count, *(len(axis) for axis in knots(knot_mm, extents_mm))]
    return rng.standard_normal(shape, dtype=np.float32) / np.float32(_SPLINE_STD)


class Field(NamedTuple):
    """Random fields over a block, to be read wherever they are wanted."""

    knot_mm: float
    extents_mm: Sequence[float]  # of the block
    coefficients: Floats

    def at(self, axes_mm: Sequence[Floats]) -> Floats:
        """(..., N): at the points of the grid, one after the other."""
        fields = expand(self.coefficients, self.knot_mm, axes_mm, self.extents_mm)
        return fields.reshape(*fields.shape[:-3], -1)


def draw_field(
    rng: np.random.Generator, knot_mm: float, extents_mm: Sequence[float], count: tuple[int, ...] = ()
) -> Field:
    """`count` Gaussian random fields of unit spread, correlated over about two knots."""
    return Field(knot_mm, extents_mm, draw_coefficients(rng, knot_mm, extents_mm, count))


def rotation(angles: np.ndarray) -> np.ndarray:
    """Turns about the three axes, one after the other; angles in radians."""
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        i, j = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[i, i] = step[j, j] = np.cos(angle)
        step[i, j], step[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ step
    return turn


def _cubic_spline(distance: Floats) -> Floats:
    near, far = np.abs(distance), 2 - np.abs(distance)
    inner = 2 / 3 - near**2 + near**3 / 2
    return np.where(near < 1, inner, np.clip(far, 0, None) ** 3 / 6).astype(np.float32)
