"""A person in a scanner: who lies there, how the head is cut, what each contrast shows of it.

Everything random is drawn once, in `draw_scene`; `render` then gives any slice of it. Shapes: R x Q pixels, C
contrasts (`protocols.CANONICAL`), first as sources show them, then by the canonical protocols; N points, T
tissues.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from hmf_networks.physics.contrast_table import draw_table
from hmf_networks.physics.fields import Field, Floats, draw_field
from hmf_networks.physics.head import FAR, REACH, SHRINKING, Head, Integers
from hmf_networks.physics.head_tissues import AIR, FLUIDS, NAMES, NUMBER, OUTSIDE
from hmf_networks.physics.lesions import Mass, Shells, draw_plaque_shells, draw_tumour_shells
from hmf_networks.physics.tissues import COMMON_SPREAD, OWN_SPREAD
from hmf_networks.physics.view import View, draw_view

ATROPHY, ATROPHY_KNOT_MM = (0.8, 4.0), 9.0  # how rarely cortex beside fluid is lost, in standard deviations
SOFT_KNOT_MM, MUSCLE = 7.0, (-0.6, 0.6)  # what is fat, what muscle; mean and deviation of the threshold
EDGE_MM, EDGE_KNOT_MM = (0.5, 3.5), 12.0  # from the closed brain, where an extraction cuts
TEXTURE_KNOTS = ((14.0, 1), (2.5, 4))  # mm, fields: coarse; fine, then one each of T1, T2, PD
TEXTURE = (0.15, 0.8)  # strength, of the spread that tissues.py tells of

POINT_SPREAD_MM = 0.5  # sigma: sulci narrower than a voxel are never as dark or bright as fluid

LESION_SHARES = {"none": 0.35, "plaques": 0.40, "tumour": 0.25}
NUM_PLAQUES_A_SLICE, NUM_PLAQUES_A_HEAD = (1, 6), (8, 40)
SLAB_MM = 10.0  # a thinner block is one slice, that lesions are drawn to meet
PLAQUES = (NUMBER["plaque"], NUMBER["active plaque"])
TUMOUR = (NUMBER["tumour core"], NUMBER["tumour rim"], NUMBER["oedema"])
PLAQUE_SHARE, TUMOUR_SHARE = (0.001, 0.05), (0.02, 0.3)  # of a head's white matter, for percentiles
BESIDE_BRAIN, BELOW_BRAIN = (12.0, 40.0), (5.0, 40.0)  # mm that a scan reaches beyond the brain
STEPS = ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))
SPREAD_SHARES = (0.48, 0.13, 0.13, 0.13, 0.13)  # of a voxel and its neighbours: POINT_SPREAD_MM, and its size

OF_HEAD = np.isin(NAMES, OUTSIDE)  # by number of the tissue
BEYOND_TUMOURS = np.isin(NAMES, (AIR, *OUTSIDE))
FIRM = ~np.isin(NAMES, (AIR, *FLUIDS, *OUTSIDE))


class Scene(NamedTuple):
    """All that was drawn of a person and a scan."""

    view: View
    shells: list[Shells]
    shrunk: tuple[float, Field]  # cortex beside fluid is lost where the field is above
    muscle: tuple[float, Field]  # soft tissue is muscle where the field is above
    edge: tuple[float, Field]  # mm from the closed brain, and how much the field moves it
    stripped: bool
    texture: float
    textures: list[Field]
    table: Floats  # (T, 4, 2 C)


class Rendered(NamedTuple):
    """One slice: signals (2 C, R, Q); the others (R, Q)."""

    signals: Floats
    inside: np.ndarray  # boolean: what was not cut away
    lesion: Floats  # share of a lesion, 0..1
    tissue: Integers  # in the middle of the slice, numbers in head_tissues.NAMES


def draw_scene(
    rng: np.random.Generator,
    head: Head,
    extents_mm: Sequence[float],
    *,
    stripped_share: float = 0.6,
    healthy: bool = False,
    **view: Any,
) -> Scene:
    """A person with this head, in a scanner.

    Args:
        rng: where all draws come from.
        head: whose.
        extents_mm: of the block that will be rendered: rows, columns, along the normal (0 for one slice).
        stripped_share: how often the brain is extracted.
        healthy: without lesions.
        **view: see `draw_view`.
    """

    def field(knot_mm: float, *count: int) -> Field:
        return draw_field(rng, knot_mm, extents_mm, count)

    scene = Scene(
        view=draw_view(rng, head, extents_mm, **view),
        shells=[],
        shrunk=(float(rng.uniform(*ATROPHY)), field(ATROPHY_KNOT_MM)),
        muscle=(float(rng.normal(*MUSCLE)), field(SOFT_KNOT_MM)),
        edge=(float(rng.uniform(*EDGE_MM)), field(EDGE_KNOT_MM)),
        stripped=bool(rng.random() < stripped_share),
        texture=float(rng.uniform(*TEXTURE)),
        textures=[field(knot_mm, count) for knot_mm, count in TEXTURE_KNOTS],
        table=draw_table(rng),
    )
    return scene if healthy else _with_lesions(rng, scene)


def render(scene: Scene, rows_mm: Floats, columns_mm: Floats, normal_mm: np.ndarray) -> Rendered:
    """The slice at these places of the block, averaged over those along the normal.

    Signals keep their sign, for those of larger voxels add up before their magnitude is taken. They are of
    the whole head: an extraction comes after the scan, and leaves or takes whole voxels.
    """
    from scipy.ndimage import gaussian_filter

    shape, count = (len(rows_mm), len(columns_mm)), len(normal_mm)
    signals = np.zeros((shape[0] * shape[1], scene.table.shape[2]), np.float32)
    inside, lesion = np.zeros(len(signals), np.float32), np.zeros(len(signals), np.float32)
    tissues = []
    for place in normal_mm:
        axes = (rows_mm, columns_mm, np.array([place], np.float32))
        points = scene.view.points(axes)
        tissue, there = _look_up(scene, points, axes)
        fields = _factors(np.concatenate([part.at(axes) for part in scene.textures]), scene.texture)
        plane = _signals(scene.table, tissue, fields)
        lesion += _lay_shells(scene, points, tissue, fields, plane) / count
        signals += plane
        inside += there / count
        tissues.append(tissue.reshape(shape))
    kept = (inside > 0.5).reshape(shape)
    mixed = (signals / count).T.reshape(-1, *shape)
    sigmas = [0.0, *(POINT_SPREAD_MM / abs(float(axis[1] - axis[0])) for axis in (rows_mm, columns_mm))]
    shown = gaussian_filter(mixed, sigmas, truncate=2.0)
    return Rendered(shown, kept, lesion.reshape(shape) * kept, tissues[count // 2])


def sample_signals(rng: np.random.Generator, scene: Scene) -> Floats:
    """Signals (N, 2 C) of voxels from all over the head, to take a volume's percentiles of.

    Each is the mean of its surroundings, as a voxel is: what lies at a rim, partly outside, decides the low
    percentile of an extracted brain. Fields, which a scene has in its block alone, are drawn for each voxel.
    """
    head, normal = scene.view.head, int(np.argmax(np.abs(scene.view.normal)))
    voxels = _in_view(rng, scene)
    count = len(voxels)
    limit_mm = np.maximum(scene.edge[0] + rng.standard_normal(count), EDGE_MM[0])
    muscle, shrunk = rng.standard_normal((2, count))
    factors = _factors(rng.standard_normal((5, count), dtype=np.float32), scene.texture)
    ill = _ill(rng, scene, count)
    mean, inside = np.zeros((count, scene.table.shape[2]), np.float32), np.zeros(count)
    for offset, share in _surroundings(normal, scene.view.extents_mm[2]):
        places = tuple((voxels + offset).T)
        found = head.tissue[places]
        tissue = (found & (SHRINKING - 1)).astype(np.uint8)
        inside += share * ((head.distance[places] <= limit_mm) & ~OF_HEAD[tissue])
        tissue[(found >= SHRINKING) & (shrunk > scene.shrunk[0])] = NUMBER["csf"]
        soft = tissue == NUMBER["soft"]
        tissue[soft] = _muscle_or_fat(scene, muscle[soft])
        tissue = np.where((ill > 0) & (tissue == NUMBER["white matter"]), ill, tissue)
        mean += np.float32(share) * _signals(scene.table, tissue, factors)
    return np.abs(mean[inside > 0.5] if scene.stripped else mean)


def _in_view(rng: np.random.Generator, scene: Scene) -> Integers:
    """Those of the head's voxels that a scan of it holds: some see face and neck, others do not."""
    head = scene.view.head
    margin_mm = np.array([rng.uniform(*BESIDE_BRAIN)] * 2 + [rng.uniform(*BELOW_BRAIN)])
    seen = (head.voxels > head.brain_low - margin_mm) & (head.voxels < head.brain_high + margin_mm)
    near = head.distance[tuple(head.voxels.T)] < FAR if scene.stripped else True
    return head.voxels[seen.all(axis=1) & near]


def _surroundings(normal: int, thickness_mm: float) -> Iterator[tuple[np.ndarray, float]]:
    """Steps to the voxels that one of a slice is the mean of, and their shares: point spread, thickness."""
    half_mm = max(1.0, min(thickness_mm, 2.0 * REACH) * (thickness_mm < SLAB_MM)) / 2
    edges = np.clip(np.arange(-REACH, REACH + 2) - 0.5, -half_mm, half_mm)
    through = np.diff(edges) / (2 * half_mm)
    in_plane = [axis for axis in range(3) if axis != normal]
    for place in np.flatnonzero(through):
        for step, share in zip(STEPS, SPREAD_SHARES, strict=True):
            offset = np.zeros(3, int)
            offset[normal], offset[in_plane] = place - REACH, step
            yield offset, share * through[place]


def _ill(rng: np.random.Generator, scene: Scene, count: int) -> Integers:
    """Which tissue of a lesion each voxel is, were it white matter; 0 for none."""
    ill = np.zeros(count, np.uint8)
    for shells in scene.shells[:1]:
        shares = np.exp(rng.uniform(*np.log(TUMOUR_SHARE if scene.view.mass else PLAQUE_SHARE)))
        where = rng.random(count) < shares
        ill[where] = rng.choice(shells.tissues, int(where.sum()))
    return ill


def _with_lesions(rng: np.random.Generator, scene: Scene) -> Scene:
    kind = rng.choice(list(LESION_SHARES), p=list(LESION_SHARES.values()))
    sites, near = _sites(scene)
    if kind == "none" or len(near) < 50:  # or beside the brain
        return scene
    is_slice = scene.view.extents_mm[2] < SLAB_MM

    def site(number: int, off_mm: float) -> np.ndarray:
        """A place in the block; for a slice also in front of it or behind."""
        return sites[:, number] + scene.view.normal * rng.uniform(-off_mm, off_mm) * is_slice

    if kind == "tumour":
        shells = draw_tumour_shells(rng, site(int(rng.integers(len(near))), 12.0), TUMOUR)
        mass = Mass(shells.centre, float(rng.uniform(0.0, 0.4)), 1.4 * shells.radii_mm[1])
        return scene._replace(view=scene.view._replace(mass=mass), shells=[shells])
    likely = np.exp(-near / 8.0) + 0.04
    limits = NUM_PLAQUES_A_SLICE if is_slice else NUM_PLAQUES_A_HEAD
    chosen = rng.choice(len(near), int(rng.integers(*limits, endpoint=True)), p=likely / likely.sum())
    return scene._replace(shells=[draw_plaque_shells(rng, site(n, 3.0), PLAQUES) for n in chosen])


def _sites(scene: Scene) -> tuple[Floats, Integers]:
    """Points (3, N) of white matter in the block, and how far from the ventricles they lie, mm."""
    axes = [
        np.arange(-extent / 2, extent / 2 + 0.1, step).astype(np.float32)
        for extent, step in zip(scene.view.extents_mm, (2.0, 2.0, 4.0), strict=True)
    ]
    points = scene.view.points(axes)
    white = scene.view.head.tissue.ravel()[scene.view.voxels(points)] == NUMBER["white matter"]
    return points[:, white], scene.view.from_ventricles(points[:, white])


def _look_up(scene: Scene, points: Floats, axes: Sequence[Floats]) -> tuple[Integers, np.ndarray]:
    """Tissue at each point (N), and whether the scan shows it."""
    head, voxels = scene.view.head, scene.view.voxels(points)
    found = head.tissue.ravel()[voxels]
    threshold, field = scene.shrunk
    tissue = (found & (SHRINKING - 1)).astype(np.uint8)
    tissue[(found >= SHRINKING) & (field.at(axes) > threshold)] = NUMBER["csf"]
    there = np.ones(len(tissue), bool)
    if scene.stripped:
        limit_mm, field = scene.edge
        there = head.distance.ravel()[voxels] <= np.maximum(limit_mm + field.at(axes), EDGE_MM[0])
        there &= ~OF_HEAD[tissue]
    soft = tissue == NUMBER["soft"]
    tissue[soft] = _muscle_or_fat(scene, scene.muscle[1].at(axes)[soft])
    return tissue, there


def _muscle_or_fat(scene: Scene, field: np.ndarray) -> Integers:
    return np.where(field > scene.muscle[0], NUMBER["muscle"], NUMBER["fat"]).astype(np.uint8)


def _factors(fields: Floats, strength: float) -> Floats:
    """Five unit fields (5, N) -> (N, 4): 1, and the logarithms of the factors on T1, T2, PD."""
    fields = np.float32(strength) * fields
    common = np.float32(np.sqrt(0.5)) * (fields[0] + fields[1])
    logarithms = [
        np.float32(both) * common + np.float32(own) * field
        for both, own, field in zip(COMMON_SPREAD, OWN_SPREAD, fields[2:], strict=True)
    ]
    return np.stack([np.ones_like(common), *logarithms], axis=1)


def _signals(table: Floats, tissue: Integers, factors: Floats) -> Floats:
    """(N, 2 C): one matrix product for each tissue that is there."""
    signals = np.zeros((len(tissue), table.shape[2]), np.float32)
    for number in np.unique(tissue):
        there = np.flatnonzero(tissue == number)
        signals[there] = factors[there] @ table[number]
    return signals


def _lay_shells(scene: Scene, points: Floats, tissue: Integers, factors: Floats, signals: Floats) -> np.ndarray:
    """Blend the lesions into the signals, in place; their share. Fluid resists plaques, air and bone all."""
    covered = np.zeros(len(tissue), np.float32)
    resists = BEYOND_TUMOURS if scene.view.mass is not None else ~FIRM
    for shells in scene.shells:
        near, shares = shells.at(points)
        for number, share in zip(shells.tissues, shares, strict=True):
            share[resists[tissue[near]]] = 0
            places, weight = near[share > 0], share[share > 0]
            signals[places] += weight[:, None] * (factors[places] @ scene.table[number] - signals[places])
            covered[places] = np.maximum(covered[places], weight)
    return covered
