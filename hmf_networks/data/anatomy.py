"""Brains of people who do not exist: the ICBM152 average, deformed, and made sharp and individual again.

Points are millimetres in MNI directions (right, front, up) from CENTRE_MNI_MM.
Shapes: V brain voxels, K knots along an axis.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from hmf_networks.physics.fields import Floats, expand, knots, rotation, smooth_field, voxel_centres
from hmf_networks.physics.lesions import Mass, pushed_aside

CENTRE_MNI_MM = (0.0, -17.0, 6.0)  # of the brain with its stem, so that it fills the field of view
FILE_TO_MNI = np.array((-1, -1, 1), np.float32)  # files are written left, back, up
WARP_KNOT_MM = 4.0
MARGIN = 6  # voxels of the template kept around its brain

SIZE = (0.89, 0.98)  # of the template, which is larger than the average brain
STRETCH, SHEAR, TURN_DEGREES, SHIFT_MM = 0.03, 0.02, 5.0, 3.0  # largest deviation on each axis
DEFORMATIONS = ((32.0, 3.0), (14.0, 1.2))  # knot distance and standard deviation, mm
VENTRICLE_GROWTH_MM, VENTRICLE_REACH_MM = (-0.5, 3.5), 12.0
ATROPHY = (-0.3, 0.9)  # log odds of CSF where the average is undecided: narrow or wide sulci

# The average is blurred: undecided voxels become one tissue or the other by a random field of log odds.
FOLD_DEPTH_MM = 6  # folds up to twice this wide keep their fluid when the skull is stripped
SHARPNESS, FOLD_LOG_ODDS, FOLD_KNOT_MM = 2.3, 1.3, 3.5


class Template(NamedTuple):
    """Maps on the 1 mm grid of the template; `first_mm` is the point of voxel (0, 0, 0)."""

    gm: Floats
    wm: Floats
    brain: Floats
    ventricle_distance_mm: Floats
    plaque_likelihood: Floats
    first_mm: Floats


class Anatomy(NamedTuple):
    """One person: brain mask on the grid; template points (3 V) and tissue fractions (V) of its voxels."""

    brain: np.ndarray
    points_mm: Floats
    fractions: dict[str, Floats]
    deep_grey: Floats


@cache
def load_template() -> Template:
    """The maps that the package nilearn carries; nothing is downloaded."""
    try:
        from nilearn import datasets
    except ImportError as error:
        raise RuntimeError("the simulator needs nilearn: pip install 'hmf-networks[demo]'") from error
    from scipy.ndimage import distance_transform_edt, gaussian_filter, label

    pieces, _ = label(np.asarray(datasets.load_mni152_brain_mask(resolution=1).dataobj) > 0)
    brain = pieces == np.argmax(np.bincount(pieces.ravel())[1:]) + 1  # drops islands at the nose
    low, high = (edge(np.nonzero(brain), axis=1) for edge in (np.min, np.max))
    low, high = np.maximum(low - MARGIN, 0), high + MARGIN + 1
    window = tuple(slice(first, last) for first, last in zip(low, high, strict=True))
    gm_image, wm_image = (
        datasets.load_mni152_gm_template(resolution=1),
        datasets.load_mni152_wm_template(resolution=1),
    )
    gm, wm = (np.asarray(image.dataobj, np.float32)[window] for image in (gm_image, wm_image))
    brain = brain[window]
    first_mm = (gm_image.affine[:3, 3] + low - CENTRE_MNI_MM).astype(np.float32)
    axes = [first + np.arange(size) for first, size in zip(first_mm, gm.shape, strict=True)]
    ventricles = brain & (gm + wm < 0.5) & (deep_region(np.meshgrid(*axes, indexing="ij", sparse=True)) > 0.3)
    distance = distance_transform_edt(~ventricles) - distance_transform_edt(ventricles)
    likelihood = brain * np.clip(wm - 0.6, 0, None) * (np.exp(-np.clip(distance, 0, None) / 8) + 0.04)
    likelihood[:, :, : int(-20 - CENTRE_MNI_MM[2] - first_mm[2])] = 0  # plaques of the cerebrum only
    soft_brain = gaussian_filter(brain.astype(np.float32), 1.5)
    smooth_distance = gaussian_filter(distance.astype(np.float32), 2)
    return Template(gm, wm, soft_brain, smooth_distance, likelihood.astype(np.float32), first_mm)


def deep_region(points_mm: Iterable[Floats]) -> Floats:
    """Soft weight 0..1 of the box around basal ganglia, thalamus, ventricles and brain stem."""
    x, y, z = (axis + centre for axis, centre in zip(points_mm, CENTRE_MNI_MM, strict=True))
    return _step(33 - abs(x)) * _step(24 - y) * _step(y + 42) * _step(24 - z)


def draw_anatomy(rng: np.random.Generator, spacing_mm: float, mass: Mass | None) -> Anatomy:
    """A person's brain on the grid of that voxel size; the same person for the same generator state."""
    template, axes = load_template(), voxel_centres(spacing_mm)
    warp = _draw_warp(rng, mass)  # K K K 3
    everywhere = np.stack([expand(warp[..., axis], WARP_KNOT_MM, axes).ravel() for axis in range(3)])
    shape = tuple(len(axis) for axis in axes)
    edge = 0.5 + 0.12 * smooth_field(rng, 9.0, axes)
    brain = sample(template.brain, everywhere).reshape(shape) > edge
    points = everywhere[:, brain.ravel()]
    fractions, deep = _draw_fractions(rng, points, axes, brain)
    deep = deep * _step(points[2] + CENTRE_MNI_MM[2] + 14)
    extracted = _along_the_cortex(brain, fractions["csf"], spacing_mm)
    kept = extracted[brain]
    fractions = {tissue: fraction[kept] for tissue, fraction in fractions.items()}
    return Anatomy(extracted, points[:, kept], fractions, deep[kept])


def _along_the_cortex(brain: np.ndarray, csf: Floats, spacing_mm: float) -> np.ndarray:
    """The mask as brain extraction leaves it: fluid in folds and ventricles stays, that outside goes."""
    from scipy.ndimage import binary_closing, binary_fill_holes

    tissue = np.zeros_like(brain)
    tissue[brain] = csf < 0.5
    steps = max(1, round(FOLD_DEPTH_MM / spacing_mm))
    closed = binary_closing(np.pad(tissue, steps), iterations=steps)[(slice(steps, -steps),) * 3]
    return brain & binary_fill_holes(closed)


def sample(image: Floats, points_mm: Floats) -> Floats:
    """Values of a template map at points (3 V), linear between its voxels, 0 beyond it."""
    from scipy.ndimage import map_coordinates

    return map_coordinates(image, points_mm - load_template().first_mm[:, None], order=1, output=np.float32)


def _draw_warp(rng: np.random.Generator, mass: Mass | None) -> Floats:
    """Template point of each knot: affine, then bends, then the ventricles and the tumour."""
    axes = knots(WARP_KNOT_MM)
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1) * FILE_TO_MNI
    matrix = np.eye(3) / rng.uniform(*SIZE) + rng.uniform(-SHEAR, SHEAR, (3, 3))
    matrix = matrix @ rotation(np.radians(rng.uniform(-TURN_DEGREES, TURN_DEGREES, 3)))
    matrix = matrix * rng.uniform(1 - STRETCH, 1 + STRETCH, 3)
    points = (points @ matrix.T + rng.uniform(-SHIFT_MM, SHIFT_MM, 3)).astype(np.float32)
    for knot_mm, deviation_mm in DEFORMATIONS:
        points += deviation_mm * np.stack([smooth_field(rng, knot_mm, axes) for _ in range(3)], -1)
    points = _grow_ventricles(points, growth_mm=rng.uniform(*VENTRICLE_GROWTH_MM))
    return (
        points if mass is None else pushed_aside(points, mass.centre_mm, strength=mass.strength, reach_mm=mass.reach_mm)
    )


def _grow_ventricles(points: Floats, *, growth_mm: float) -> Floats:
    distance_map = load_template().ventricle_distance_mm
    flat = np.ascontiguousarray(np.moveaxis(points, -1, 0).reshape(3, -1))
    distance = sample(distance_map, flat)
    steps = np.eye(3, dtype=np.float32)[:, :, None]
    outwards = np.stack([sample(distance_map, flat + step) - sample(distance_map, flat - step) for step in steps]) / 2
    moved = flat - growth_mm * np.exp(-((distance / VENTRICLE_REACH_MM) ** 2)) * outwards
    return np.moveaxis(moved.reshape(3, *points.shape[:3]), 0, -1).astype(np.float32)


def _draw_fractions(
    rng: np.random.Generator, points: Floats, axes: Sequence[Floats], brain: np.ndarray
) -> tuple[dict[str, Floats], Floats]:
    """CSF, grey and white matter at each brain voxel, adding up to 1; and the weight of the deep region."""
    template, deep = load_template(), deep_region(points)
    gm, wm = (np.clip(sample(image, points), 0.004, 1) for image in (template.gm, template.wm))
    csf = np.clip(1 - gm - wm, 0.004, 1)
    sharpness = SHARPNESS + (1.2 - SHARPNESS) * deep  # thalamus and brain stem are mixtures and stay so
    folds = FOLD_LOG_ODDS * (1 - 0.8 * deep)
    odds_csf = sharpness * np.log(csf / gm) + folds * smooth_field(rng, FOLD_KNOT_MM, axes)[brain]
    odds_wm = sharpness * np.log(wm / gm) + folds * smooth_field(rng, FOLD_KNOT_MM, axes)[brain]
    odds_csf += rng.uniform(*ATROPHY) * (1 - deep)
    exp_csf, exp_wm = np.exp(odds_csf), np.exp(odds_wm)
    grey = 1 / (1 + exp_csf + exp_wm)
    return {"csf": exp_csf * grey, "gm": grey, "wm": exp_wm * grey}, deep


def _step(distance_mm: Floats) -> Floats:
    """0 outside, 1 inside, soft over some 6 mm."""
    return (0.5 + 0.5 * np.tanh(distance_mm / 3)).astype(np.float32)
