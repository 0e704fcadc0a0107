"""How a block of slices lies in a head: turned, stretched, bent, its ventricles wide or narrow.

Points are in voxels of the map (`physics/head.py`); N points of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from hmf_networks.physics.fields import Field, Floats, draw_field, rotation
from hmf_networks.physics.head import LATTICE_MM, Head, Integers
from hmf_networks.physics.lesions import Mass, pushed_aside

SIZE, STRETCH, SHEAR, TURN_DEGREES = (0.88, 1.14), 0.06, 0.03, 6.0  # the last a standard deviation
REACH, SPREAD, UPWARD = 0.47, 0.2, 0.1  # of the brain's extent along the normal, from its middle
OFF_CENTRE_MM = 8.0  # the middle of the brain from that of the block
BENDS = ((40.0, 2.5), (16.0, 1.0))  # knot distance and standard deviation, mm
GROWTH_MM = (-1.0, 2.5)  # of the ventricles


class View(NamedTuple):
    """All that was drawn of it."""

    head: Head
    extents_mm: Sequence[float]  # of the block: rows, columns, along the normal
    matrix: Floats  # (3, 3): mm in the block -> voxels of the map
    centre: Floats  # 3, voxel in the middle of the block
    bends: list[tuple[float, Field]]  # mm, three fields
    growth_mm: float
    mass: Mass | None = None

    @property
    def normal(self) -> Floats:
        """Unit vector across the slices."""
        across: Floats = self.matrix[:, 2] / np.linalg.norm(self.matrix[:, 2])
        return across

    def points(self, axes_mm: Sequence[Floats]) -> Floats:
        """Where the points of a grid in the block lie, (3, N)."""
        grid = np.stack([part.ravel() for part in np.meshgrid(*axes_mm, indexing="ij")]).astype(np.float32)
        for deviation_mm, fields in self.bends:
            grid += np.float32(deviation_mm) * fields.at(axes_mm)
        points = self.matrix @ grid + self.centre[:, None]
        points -= np.float32(self.growth_mm) * self._push(points)
        if self.mass is None:
            return points
        centre, strength, reach_mm = self.mass
        return pushed_aside(points.T, centre, strength=strength, reach_mm=reach_mm).T

    def voxels(self, points: Floats) -> Integers:
        """Flat indices of the nearest voxels; beyond the map its rim, which is air."""
        x, y, z = _nearest(points, self.head.tissue.shape)
        return (x * self.head.tissue.shape[1] + y) * self.head.tissue.shape[2] + z

    def from_ventricles(self, points: Floats) -> Integers:
        """How far points lie from the ventricles, mm."""
        return self.head.from_ventricles[self._on_lattice(points)]

    def _push(self, points: Floats) -> Floats:
        """Away from the ventricles."""
        return self.head.push[(slice(None), *self._on_lattice(points))]

    def _on_lattice(self, points: Floats) -> tuple[Any, ...]:
        return tuple(_nearest(points / LATTICE_MM, self.head.from_ventricles.shape))


def draw_view(
    rng: np.random.Generator,
    head: Head,
    extents_mm: Sequence[float],
    *,
    normal: int = 2,
    at: Sequence[float] | np.ndarray | None = None,
) -> View:
    """A view of this head.

    Args:
        rng: where all draws come from.
        head: whose.
        extents_mm: of the block; 0 along the normal for a single slice.
        normal: axis of the map that the slices are perpendicular to.
        at: voxel in the middle of the block; None for any in the brain.
    """
    order = [axis for axis in range(3) if axis != normal] + [normal]
    matrix = np.eye(3) + rng.uniform(-SHEAR, SHEAR, (3, 3))
    matrix = matrix @ rotation(np.radians(rng.normal(0, TURN_DEGREES, 3)))
    matrix = matrix @ np.diag(rng.uniform(1 - STRETCH, 1 + STRETCH, 3)) / rng.uniform(*SIZE)
    if rng.random() < 0.5:
        matrix[:, 0] *= -1  # a person whose left and right are exchanged
    centre = (head.brain_low + head.brain_high) / 2 if at is None else np.asarray(at)
    if at is None:
        centre = centre + _off_centre(rng, head.brain_high - head.brain_low, extents_mm, order)
    bends = [(deviation, draw_field(rng, knot, extents_mm, (3,))) for knot, deviation in BENDS]
    growth_mm = float(rng.uniform(*GROWTH_MM))
    return View(head, extents_mm, matrix[:, order].astype(np.float32), centre.astype(np.float32), bends, growth_mm)


def _off_centre(
    rng: np.random.Generator, brain: Floats, extents_mm: Sequence[float], order: Sequence[int]
) -> np.ndarray:
    """Within the slices about the brain's middle or wherever it overhangs; along the normal mostly there.

    The middle of a brain from above is that of its hemispheres, over stem and cerebellum.
    """
    rows, columns, normal = order
    slack = np.zeros(3)
    for axis, extent in zip((rows, columns), extents_mm[:2], strict=True):
        slack[axis] = max((brain[axis] - extent) / 2, 0.0) + OFF_CENTRE_MM
    slack[normal] = max(REACH * brain[normal] - extents_mm[2] / 2, 0.0)
    off = rng.uniform(-slack, slack)
    middle = UPWARD * (normal == 2)
    off[normal] = np.clip(rng.normal(middle, SPREAD) * brain[normal], -slack[normal], slack[normal])
    return off


def _nearest(points: np.ndarray, shape: Sequence[int]) -> Integers:
    places = np.rint(points).astype(np.int32)
    for axis, size in enumerate(shape):
        np.clip(places[axis], 0, size - 1, out=places[axis])
    return places
