"""A person in a scanner: who lies there, how the head is cut, what each contrast shows of it.

Everything random is drawn once, in `draw_scene`; `render` then gives any slice of it. Shapes: R x Q pixels, C
contrasts (`CONTRASTS`), first as the sources show them, then as the canonical protocols would; T tissues.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from typing import NamedTuple

import numpy as np

from hmf_networks.naming import CONTRASTS
from hmf_networks.physics.fields import Floats, draw_coefficients, expand, rotation
from hmf_networks.physics.head import PUSH_MM, SHRINKING, Head, Integers
from hmf_networks.physics.head_tissues import (
    AIR,
    FLUIDS,
    NAMES,
    NUMBER,
    OUTSIDE,
    draw_head_tissues,
    draw_uptake,
)
from hmf_networks.physics.lesions import Shells, draw_plaque_shells, draw_tumour_shells, pushed_aside
from hmf_networks.physics.protocols import CANONICAL, draw_any_protocols
from hmf_networks.physics.signal import Sequence, Tissue, signed_signal, with_gadolinium
from hmf_networks.physics.tissues import COMMON_SPREAD, CSF_SHARE_OF_SPREAD, FIELDS_TESLA, OWN_SPREAD

SIZE, STRETCH, SHEAR, TURN_DEGREES = (0.88, 1.14), 0.06, 0.03, 12.0
OFF_CENTRE_MM = 8.0  # the middle of the brain from that of the block
WARPS = ((40.0, 2.5), (16.0, 1.0))  # knot distance and standard deviation, mm
GROWTH_MM = (-1.0, 3.5)  # of the ventricles
ATROPHY_KNOT_MM, SOFT_KNOT_MM, EDGE_KNOT_MM = 9.0, 7.0, 12.0
TEXTURES = ((14.0, 1), (2.5, 4))  # knot distance, fields: coarse; fine, then one each of T1, T2, PD
TEXTURE = (0.15, 0.8)  # strength, of the spread that tissues.py tells of
FATTY = ("fat", "scalp", "marrow")
FAT_SUPPRESSED = {"t1": 0.1, "t1c": 0.3, "t2": 0.15, "flair": 0.5, "pd": 0.1}  # how often
CANONICAL_FAT = {"t1": 0.9, "t1c": 0.9, "t2": 1.3, "flair": 0.3, "pd": 1.0}  # times its signal equation
CONTRAST_JITTER = 0.04  # of each tissue in each source, as a logarithm: what three numbers do not tell of it
DERIVATIVE_STEP = 0.02
LESION_SHARES = {"none": 0.35, "plaques": 0.40, "tumour": 0.25}
NUM_PLAQUES_A_SLICE, NUM_PLAQUES_A_HEAD = (1, 6), (8, 40)


_OF_HEAD = np.isin(NAMES, OUTSIDE)  # by number of the tissue
_FIRM = ~np.isin(NAMES, (AIR, *FLUIDS, *OUTSIDE))
TUMOUR = (NUMBER["tumour core"], NUMBER["tumour rim"], NUMBER["oedema"])


class Scene(NamedTuple):
    """All that was drawn of a person and a scan."""

    head: Head
    extents_mm: tuple[float, float, float]  # of the block that may be rendered: rows, columns, normal
    matrix: Floats  # (3, 3): mm in the block -> voxels of the map
    centre: Floats  # 3, voxel in the middle of the block
    warps: list[tuple[float, Floats]]  # knot distance, coefficients (3, ...)
    growth_mm: float
    shells: list[Shells]
    mass_mm: float  # strength with which a tumour pushes
    atrophy: tuple[float, Floats]  # threshold, coefficients
    soft: tuple[float, Floats]
    edge: tuple[float, Floats]  # of the extracted brain: mm from its tissue
    stripped: bool
    textures: list[tuple[float, Floats]]
    texture: float
    table: Floats  # (T, 4, 2 C): signal, and its change with T1, T2 and PD


class Rendered(NamedTuple):
    """One slice: signals (2 C, R, Q), and where the scan shows anything (R, Q)."""

    signals: Floats
    inside: np.ndarray
    lesion: np.ndarray


def draw_scene(
    rng: np.random.Generator,
    head: Head,
    extents_mm: tuple[float, float, float],
    *,
    normal: int = 2,
    at: Several[float] | None = None,
    stripped_share: float = 0.6,
    healthy: bool = False,
) -> Scene:
    """A person with this head, on a scanner.

    Args:
        rng: where all draws come from.
        head: whose.
        extents_mm: of the block that will be rendered: rows, columns, along the normal (0 for one slice).
        normal: axis of the map that the slices are perpendicular to.
        at: voxel in the middle of the block; None for one in the brain, drawn along the normal.
        stripped_share: how often the brain is extracted.
        healthy: without lesions.
    """
    matrix, centre = _draw_view(rng, head, extents_mm, normal, at)
    warps = [(knot, deviation * draw_coefficients(rng, knot, extents_mm, (3,))) for knot, deviation in WARPS]
    scene = Scene(
        head=head,
        extents_mm=extents_mm,
        matrix=matrix,
        centre=centre,
        warps=warps,
        growth_mm=rng.uniform(*GROWTH_MM),
        shells=[],
        mass_mm=0.0,
        atrophy=(rng.uniform(0.0, 4.0), draw_coefficients(rng, ATROPHY_KNOT_MM, extents_mm)),
        soft=(rng.normal(0.0, 0.7), draw_coefficients(rng, SOFT_KNOT_MM, extents_mm)),
        edge=(rng.uniform(0.5, 6.0), draw_coefficients(rng, EDGE_KNOT_MM, extents_mm)),
        stripped=bool(rng.random() < stripped_share),
        textures=[(knot, draw_coefficients(rng, knot, extents_mm, (count,))) for knot, count in TEXTURES],
        texture=rng.uniform(*TEXTURE),
        table=_draw_table(rng),
    )
    return scene if healthy else _with_lesions(rng, scene)


def render(scene: Scene, rows_mm: Floats, columns_mm: Floats, normal_mm: Several[float]) -> Rendered:
    """The slice at these places of the block, averaged over its thickness `normal_mm`.

    Signals are magnitudes of what adds up in a voxel, 0 outside an extracted brain.
    """
    total = inside = None
    lesion = np.zeros((len(rows_mm), len(columns_mm)), np.float32)
    for place in normal_mm:
        axes = (rows_mm, columns_mm, np.array([place], np.float32))
        points = _points(scene, axes)
        tissue, there = _look_up(scene, points, axes)
        fields = _fields(scene, axes)
        signals = _signals(scene.table, tissue, fields)
        covered = _draw_shells(scene, points, tissue, fields, signals)
        lesion += covered.reshape(lesion.shape) / len(normal_mm)
        signals[~there] = 0
        total = signals if total is None else total + signals
        inside = there.astype(np.float32) if inside is None else inside + there
    shape = (len(rows_mm), len(columns_mm))
    mean = np.abs(total / len(normal_mm)).T.reshape(-1, *shape)
    kept = (inside / len(normal_mm)).reshape(shape) > 0.5
    return Rendered(mean * kept, kept, lesion)


def sample_signals(scene: Scene, rng: np.random.Generator) -> Floats:
    """Signals (N, 2 C) of voxels from all over the head, to take a volume's percentiles of."""
    flat = scene.head.voxels
    tissue = scene.head.tissue.ravel()[flat] & (SHRINKING - 1)  # 2 N
    if scene.stripped:
        kept = (scene.head.distance.ravel()[flat] <= scene.edge[0]) & ~_OF_HEAD[tissue]
        tissue = tissue[:, kept.all(axis=0)]
    share = rng.uniform(0, 0.03)
    for shells in scene.shells[:1]:
        where = (tissue[0] == NUMBER["white matter"]) & (rng.random(tissue.shape[1]) < share * 3)
        tissue[:, where] = shells.tissues[0]
    tissue = np.where(tissue == NUMBER["soft"], _soft(scene, rng.standard_normal(tissue.shape)), tissue)
    normals = rng.standard_normal((5, tissue.shape[1]), dtype=np.float32)
    fields = _combined(normals, scene.texture)
    pair = [_signals(scene.table, each, fields) for each in tissue]
    return np.abs((pair[0] + pair[1]) / 2)


def _draw_view(
    rng: np.random.Generator,
    head: Head,
    extents_mm: Several[float],
    normal: int,
    at: Several[float] | None,
) -> tuple[Floats, Floats]:
    order = [axis for axis in range(3) if axis != normal] + [normal]
    matrix = np.eye(3) + rng.uniform(-SHEAR, SHEAR, (3, 3))
    matrix = matrix @ rotation(np.radians(rng.normal(0, TURN_DEGREES / 2, 3)))
    matrix = matrix @ np.diag(rng.uniform(1 - STRETCH, 1 + STRETCH, 3)) / rng.uniform(*SIZE)
    if rng.random() < 0.5:
        matrix[:, 0] *= -1  # a person whose left and right are exchanged
    middle = (head.brain_low + head.brain_high) / 2
    centre = np.array(middle if at is None else at, np.float64)
    if at is None:
        size = head.brain_high - head.brain_low
        for axis, extent in zip(order, extents_mm, strict=True):
            slack = max((size[axis] - extent) / 2, 0.0) + OFF_CENTRE_MM
            if axis == normal:
                slack = max(0.47 * size[axis] - extent / 2, 0.0)
            centre[axis] += rng.uniform(-slack, slack)
    return matrix[:, order].astype(np.float32), centre.astype(np.float32)


def _draw_table(rng: np.random.Generator) -> Floats:
    """T 4 2C: signal of each tissue in each image, and its growth with the logarithms of T1, T2 and PD."""
    field_tesla = float(rng.choice(FIELDS_TESLA))
    tissues, uptake = draw_head_tissues(rng, field_tesla), draw_uptake(rng)
    protocols = draw_any_protocols(rng, field_tesla)
    jitter = np.exp(CONTRAST_JITTER * rng.standard_normal((len(NAMES), len(CONTRASTS))))
    fat = {contrast: _draw_fat(rng, suppressed) for contrast, suppressed in FAT_SUPPRESSED.items()}
    table = np.zeros((len(NAMES), 4, 2 * len(CONTRASTS)))
    for name, tissue in tissues.items():
        share = CSF_SHARE_OF_SPREAD if name in FLUIDS else 1.0
        enhanced = with_gadolinium(tissue, uptake.get(name, 0.0))
        for column, contrast in enumerate(CONTRASTS):
            of = enhanced if contrast == "t1c" else tissue
            number = NUMBER[name]
            own, canonical = jitter[number, column], 1.0
            if name in FATTY:
                own, canonical = own * fat[contrast], CANONICAL_FAT[contrast]
            table[number, :, column] = own * _with_slopes(of, protocols[contrast], share)
            table[number, :, column + len(CONTRASTS)] = canonical * _with_slopes(
                of, CANONICAL[contrast], share
            )
    return table.astype(np.float32)


def _draw_fat(rng: np.random.Generator, suppressed: float) -> float:
    """Factor on its signal: trains of echoes brighten it, saturation takes most of it away."""
    return float(rng.uniform(0.05, 0.4) if rng.random() < suppressed else rng.uniform(0.7, 1.5))


def _with_slopes(tissue: Tissue, sequence: Sequence, share: float) -> np.ndarray:
    value = signed_signal(tissue, sequence)
    slopes = [
        signed_signal(tissue._replace(**{part: getattr(tissue, part) * np.exp(DERIVATIVE_STEP)}), sequence)
        - value
        for part in tissue._fields
    ]
    return np.array([value, *(share * slope / DERIVATIVE_STEP for slope in slopes)])


def _with_lesions(rng: np.random.Generator, scene: Scene) -> Scene:
    kind = rng.choice(list(LESION_SHARES), p=list(LESION_SHARES.values()))
    if kind == "none":
        return scene
    places, tissue = _places(scene)
    white = tissue == NUMBER["white matter"]
    if white.sum() < 50:  # a slice beside the brain
        return scene
    flat = np.ravel_multi_index(np.rint(places[:, white]).astype(int), scene.head.tissue.shape)
    places = places[:, white]
    reach_mm = scene.extents_mm[2] / 2
    unit = scene.matrix[:, 2] / np.linalg.norm(scene.matrix[:, 2])
    if kind == "tumour":
        site = places[:, rng.integers(places.shape[1])] + unit * rng.uniform(-12, 12) * (reach_mm == 0)
        return scene._replace(
            shells=[draw_tumour_shells(rng, site, TUMOUR)],
            mass_mm=float(rng.uniform(0.0, 0.4)),
        )
    near = np.exp(-scene.head.from_ventricles.ravel()[flat] / 8.0) + 0.04
    limits = NUM_PLAQUES_A_HEAD if reach_mm else NUM_PLAQUES_A_SLICE
    chosen = rng.choice(len(near), int(rng.integers(*limits, endpoint=True)), p=near / near.sum())
    numbers = (NUMBER["plaque"], NUMBER["active plaque"])
    return scene._replace(
        shells=[
            draw_plaque_shells(rng, places[:, i] + unit * rng.uniform(-3, 3) * (reach_mm == 0), numbers)
            for i in chosen
        ]
    )


def _places(scene: Scene) -> tuple[Floats, Integers]:
    """Points (3, N) of the map that the block holds, and their tissue."""
    axes = [
        np.arange(-extent / 2, extent / 2 + 0.1, 2.0 if number < 2 else 4.0).astype(np.float32)
        for number, extent in enumerate(scene.extents_mm)
    ]
    points = _points(scene, axes)
    return points, scene.head.tissue.ravel()[_flat(scene.head, points)] & (SHRINKING - 1)


def _points(scene: Scene, axes: Several[Floats]) -> Floats:
    """Where in the map the points of the grid lie, (3, N)."""
    grid = np.stack([part.ravel() for part in np.meshgrid(*axes, indexing="ij")]).astype(np.float32)
    for knot_mm, coefficients in scene.warps:
        grid += expand(coefficients, knot_mm, axes, scene.extents_mm).reshape(3, -1)
    points = scene.matrix @ grid + scene.centre[:, None]
    if scene.growth_mm:
        points -= scene.growth_mm * _push(scene.head, points)
    if scene.mass_mm:
        site = scene.shells[0].centre
        points = pushed_aside(
            points.T, site, strength=scene.mass_mm, reach_mm=scene.shells[0].radii_mm[1] * 1.4
        ).T
    return points


def _push(head: Head, points: Floats) -> Floats:
    """Away from the ventricles, at the nearest place of the lattice."""
    places = np.rint(points / PUSH_MM).astype(np.int32)
    for axis, size in enumerate(head.push.shape[1:]):
        np.clip(places[axis], 0, size - 1, out=places[axis])
    return head.push[:, places[0], places[1], places[2]]


def _flat(head: Head, points: Floats) -> Integers:
    """Flat indices of the nearest voxels; beyond the map its rim, which is air."""
    shape = head.tissue.shape
    places = np.rint(points).astype(np.int32)
    for axis, size in enumerate(shape):
        np.clip(places[axis], 0, size - 1, out=places[axis])
    return (places[0] * shape[1] + places[1]) * shape[2] + places[2]


def _look_up(scene: Scene, points: Floats, axes: Several[Floats]) -> tuple[Integers, np.ndarray]:
    """Tissue at each point (N), and whether the scan shows it."""
    flat = _flat(scene.head, points)
    tissue = scene.head.tissue.ravel()[flat]
    threshold, coefficients = scene.atrophy
    field = expand(coefficients, ATROPHY_KNOT_MM, axes, scene.extents_mm).ravel()
    shrunk = (tissue >= SHRINKING) & (field > threshold)
    tissue = tissue & (SHRINKING - 1)
    tissue[shrunk] = NUMBER["csf"]
    if scene.stripped:
        limit, coefficients = scene.edge
        wavy = limit + expand(coefficients, EDGE_KNOT_MM, axes, scene.extents_mm).ravel()
        there = scene.head.distance.ravel()[flat] <= np.maximum(wavy, 0.5)
        return tissue, there & ~_OF_HEAD[tissue]
    soft = tissue == NUMBER["soft"]
    field = expand(scene.soft[1], SOFT_KNOT_MM, axes, scene.extents_mm).ravel()
    tissue[soft] = _soft(scene, field[soft])
    return tissue, np.ones(len(tissue), bool)


def _soft(scene: Scene, field: Floats) -> Integers:
    return np.where(field > scene.soft[0], NUMBER["muscle"], NUMBER["fat"]).astype(np.uint8)


def _fields(scene: Scene, axes: Several[Floats]) -> Floats:
    read = [
        expand(part, knot, axes, scene.extents_mm).reshape(len(part), -1) for knot, part in scene.textures
    ]
    return _combined(np.concatenate(read), scene.texture)


def _combined(fields: Floats, strength: float) -> Floats:
    """Five unit fields -> (N, 4): 1, and the logarithms of the factors on T1, T2, PD."""
    fields = np.float32(strength) * fields
    common = np.float32(np.sqrt(0.5)) * (fields[0] + fields[1])
    parts = [
        np.float32(both) * common + np.float32(own) * field
        for both, own, field in zip(COMMON_SPREAD, OWN_SPREAD, fields[2:], strict=True)
    ]
    return np.stack([np.ones_like(common), *parts], axis=1)


def _signals(table: Floats, tissue: Integers, fields: Floats) -> Floats:
    """(N, 2 C): one matrix product for each tissue that is there."""
    signals = np.zeros((len(tissue), table.shape[2]), np.float32)
    for number in np.unique(tissue):
        there = np.flatnonzero(tissue == number)
        signals[there] = fields[there] @ table[number]
    return signals


def _draw_shells(
    scene: Scene, points: Floats, tissue: Integers, fields: Floats, signals: Floats
) -> np.ndarray:
    """Blend the lesions into the signals, in place; CSF resists all but tumours. Returns their share (N)."""
    covered = np.zeros(len(tissue), np.float32)
    firm = (~_OF_HEAD if scene.mass_mm else _FIRM)[tissue]
    for shells in scene.shells:
        near, shares = shells.at(points)
        for number, share in zip(shells.tissues, shares, strict=True):
            share = share * firm[near]
            some = share > 0
            where = near[some]
            weight = share[some, None]
            signals[where] += weight * (fields[where] @ scene.table[number] - signals[where])
            covered[where] = np.maximum(covered[where], share[some])
    return covered
