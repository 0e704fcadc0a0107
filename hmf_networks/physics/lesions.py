"""Lesions drawn in template space, before the anatomy is warped: multiple sclerosis plaques, or one tumour.

A map is the fraction 0..1 of a lesion tissue in each voxel of the template (1 mm).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from hmf_networks.physics.fields import Floats

TUMOUR_SHARE = 0.35  # of the subjects with lesions; the others have plaques
NUM_PLAQUES = (8, 30)
ACTIVE_SHARE = 0.15  # of plaques that take up contrast agent
PLAQUE_RADIUS_MM = (2.0, 7.5)
TUMOUR_RADIUS_MM = (11.0, 20.0)  # rim and core; oedema reaches further
ANY_TUMOUR_RADIUS_MM = (5.0, 26.0)  # metastases, too
EDGE_MM = 1.0  # width of the soft border
REACH = 2  # times the radius: stretched and rippled, a lesion ends there


def draw_plaques(rng: np.random.Generator, likelihood: Floats) -> dict[str, Floats]:
    """Several ellipsoids, centres drawn by `likelihood` (template grid): {"plaque": map, "active": map}."""
    maps = {name: np.zeros(likelihood.shape, np.float32) for name in ("plaque", "active")}
    candidates = np.flatnonzero(likelihood)
    cumulative = np.cumsum(likelihood.ravel()[candidates], dtype=np.float64)
    for index in range(int(rng.integers(*NUM_PLAQUES, endpoint=True))):
        flat = candidates[np.searchsorted(cumulative, rng.random() * cumulative[-1])]
        centre = np.array(np.unravel_index(flat, likelihood.shape))
        smallest, largest = PLAQUE_RADIUS_MM
        radius = smallest * (largest / smallest) ** (rng.random() ** 1.5)  # many small, few large
        active = index > 0 and rng.random() < ACTIVE_SHARE
        _stamp(rng, maps["active" if active else "plaque"], centre, radius=radius)
    maps["plaque"] = np.minimum(maps["plaque"], 1 - maps["active"])
    return maps


def draw_tumour(rng: np.random.Generator, shape: Sequence[int], centre: np.ndarray) -> dict[str, Floats]:
    """One mass, shells from the inside out: {"core": map, "rim": map, "oedema": map}."""
    radius = float(rng.uniform(*TUMOUR_RADIUS_MM))
    seed = int(rng.integers(2**31))
    core_radius, oedema_radius = radius - rng.uniform(3, 7), radius * rng.uniform(1.35, 1.9)
    whole, inner, outer = (np.zeros(tuple(shape), np.float32) for _ in range(3))
    for image, reach, crinkle in ((inner, core_radius, 0.30), (whole, radius, 0.22), (outer, oedema_radius, 0.45)):
        _stamp(np.random.default_rng(seed), image, centre, radius=reach, crinkle=crinkle)
    inner = np.minimum(inner, whole)
    return {"core": inner, "rim": whole - inner, "oedema": np.clip(outer - whole, 0, 1)}


def pushed_aside(points_mm: Floats, centre_mm: np.ndarray, *, strength: float, reach_mm: float) -> Floats:
    """Where the tissue at `points_mm` (..., 3) came from, before a growing mass displaced it."""
    offset = points_mm - centre_mm.astype(np.float32)
    pull = strength * np.exp(-(offset**2).sum(-1, keepdims=True) / (2 * reach_mm**2))
    return (points_mm - pull * offset).astype(np.float32)


class Mass(NamedTuple):
    """A tumour that pushes its surroundings aside."""

    centre_mm: np.ndarray
    strength: float
    reach_mm: float


class Blob(NamedTuple):
    """An irregular ellipsoid of radius 1, up to its ripples."""

    stretch: np.ndarray
    turn: np.ndarray
    waves: np.ndarray
    phases: np.ndarray

    def share(self, offsets_mm: Floats, *, radius: float, crinkle: float, edge_mm: float = EDGE_MM) -> Floats:
        """How much of a point belongs to it, 0..1, at offsets (..., 3) from its centre."""
        local = offsets_mm @ self.turn / (radius * self.stretch)
        ripple = crinkle * np.sin(local @ self.waves.T + self.phases).mean(-1) * 2
        distance_mm = (np.linalg.norm(local, axis=-1) - 1 - ripple) * radius
        return np.clip(0.5 - distance_mm / (2 * edge_mm), 0, 1)


class Shells(NamedTuple):
    """One lesion, wherever it is asked for: blobs of one shape around each other, the largest first."""

    centre: np.ndarray
    blob: Blob
    tissues: tuple[int, ...]
    radii_mm: tuple[float, ...]
    crinkles: tuple[float, ...]
    edges_mm: tuple[float, ...]

    def at(self, points_mm: Floats) -> tuple[np.ndarray, list[Floats]]:
        """Which of the points (3, N) it may reach, and for each tissue how much of them it is."""
        offsets = points_mm - self.centre[:, None]
        settings = list(zip(self.radii_mm, self.crinkles, self.edges_mm, strict=True))
        reach = self.blob.stretch.max() * max(radius * (1 + 2 * c) + edge for radius, c, edge in settings)
        near = np.flatnonzero(np.einsum("kn,kn->n", offsets, offsets) < reach * reach)
        local = offsets[:, near].T
        return near, [
            self.blob.share(local, radius=radius, crinkle=crinkle, edge_mm=edge_mm).astype(np.float32)
            for radius, crinkle, edge_mm in settings
        ]


def draw_plaque_shells(rng: np.random.Generator, centre: np.ndarray, tissues: tuple[int, int]) -> Shells:
    """A plaque of the first tissue, or, a few, of the second that takes up contrast agent."""
    smallest, largest = PLAQUE_RADIUS_MM
    radius = smallest * (largest / smallest) ** (rng.random() ** 1.5)  # many small, few large
    tissue = tissues[int(rng.random() < ACTIVE_SHARE)]
    return Shells(centre, draw_blob(rng), (tissue,), (radius,), (0.25,), (rng.uniform(0.7, 2.0),))


def draw_tumour_shells(rng: np.random.Generator, centre: np.ndarray, tissues: tuple[int, int, int]) -> Shells:
    """A mass of these tissues: core, rim, oedema; it may lack a core, or consist of little but oedema."""
    radius = float(rng.uniform(*ANY_TUMOUR_RADIUS_MM))
    core = max(radius - rng.uniform(2, 8), 0.1)
    oedema = radius * rng.uniform(1.05, 2.2)
    return Shells(
        centre,
        draw_blob(rng),
        tissues[::-1],
        (oedema, radius, core),
        (0.45, 0.22, 0.30),
        (rng.uniform(1.0, 6.0), EDGE_MM, EDGE_MM),
    )


def draw_blob(rng: np.random.Generator) -> Blob:
    stretch = np.exp(rng.uniform(-0.35, 0.35, 3))
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    waves = rng.standard_normal((4, 3)) * 2.2
    return Blob(stretch, turn, waves, rng.uniform(0, 2 * np.pi, 4))


def _stamp(
    rng: np.random.Generator, image: Floats, centre: np.ndarray, *, radius: float, crinkle: float = 0.25
) -> None:
    """Lay one irregular soft ellipsoid into the image, in place: the larger of old and new fraction."""
    blob = draw_blob(rng)
    reach = int(np.ceil(radius * REACH)) + 2
    low = np.maximum(centre - reach, 0)
    high = np.minimum(centre + reach + 1, image.shape)
    window = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
    points = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), -1)
    image[window] = np.maximum(image[window], blob.share(points - centre, radius=radius, crinkle=crinkle))
