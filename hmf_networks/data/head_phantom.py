"""Simulated subjects from label maps of whole heads: scans as clinics take them, and what they should give.

`OUT/scans` holds every contrast by some random protocol, with all that a scanner adds; `OUT/truth` the same
people by the canonical protocols, without noise, blur or shading: what a network is to make of the scans.
Subject i of a seed is always the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hmf_networks.data.phantom import Subject
from hmf_networks.data.phantom_files import LAYOUTS, offered_contrasts, refuse_existing, write_subject
from hmf_networks.naming import CONTRASTS, unknown_word
from hmf_networks.physics.artefacts import STORED_RANGE, stored
from hmf_networks.physics.fields import Floats
from hmf_networks.physics.head import Head
from hmf_networks.physics.head_tissues import AIR, KINDS, NAMES, OUTSIDE
from hmf_networks.physics.pixels import FINE, pixel_places, places_through, places_within, to_pixels
from hmf_networks.physics.scanner import draw_scan, receive
from hmf_networks.physics.scene import Scene, draw_scene, render

MARGIN_MM = 12.0
TRUTH_LEVEL = 4000.0
LESION = 4
OF_BRAIN = {"csf": 1, "gm": 2, "wm": 3, "plaque": LESION}  # those that the maps have of their own
TISSUE_LABELS = np.array(
    [0 if name in (AIR, *OUTSIDE) else OF_BRAIN.get(KINDS[name].like, 0) for name in NAMES], np.int16
)
SCANS, TRUTH = "scans", "truth"


def simulate_heads(
    output_dir: Path,
    heads: Sequence[Head],
    *,
    num_subjects: int,
    seed: int,
    layout: str = "brats",
    spacing_mm: float = 1.0,
    thickness_mm: float | None = None,
    stripped_share: float = 0.6,
    healthy: bool = False,
    num_slices: int | None = None,
) -> list[dict[str, Any]]:
    """Write subjects 1..num_subjects, subject i with head i modulo their number.

    Args:
        output_dir: where `scans` and `truth` go.
        heads: label maps, ready (`physics/head.py`).
        num_subjects: how many.
        seed: of all draws.
        layout: brats, ixi or bids.
        spacing_mm: of the pixels of axial slices.
        thickness_mm: of the slices; as the pixels by default.
        stripped_share: how often the brain is extracted.
        healthy: nobody has lesions.
        num_slices: of a slab, cheaper than a head: of the same person, through a lesion or, where there is
            none, through the middle of the brain. None for all slices.

    Returns:
        One summary each: subject, stripped, lesion_ml and files {contrast or label: path}.
    """
    if layout not in LAYOUTS:
        raise ValueError(unknown_word("layout", layout, LAYOUTS))
    if num_subjects < 1:
        raise ValueError(f"num_subjects is {num_subjects}; ask for at least 1")
    if num_slices is not None and num_slices < 1:
        raise ValueError(f"num_slices is {num_slices}; ask for at least 1, or None for all")
    spacing = (spacing_mm, spacing_mm, thickness_mm or spacing_mm)
    if not all(0.3 <= mm <= 8 for mm in spacing):
        raise ValueError(f"voxels of {spacing} mm; a head can be drawn with voxels of 0.3 to 8 mm")
    wanted = offered_contrasts(layout, CONTRASTS)
    numbers = range(1, num_subjects + 1)
    folders = {part: output_dir / part for part in (SCANS, TRUTH)}
    for folder in folders.values():
        refuse_existing(folder, layout, numbers)
    summaries = []
    for number in numbers:
        rng = np.random.default_rng([seed, number])
        head = heads[(number - 1) % len(heads)]
        scene = draw_scene(
            rng,
            head,
            _extents_mm(head),
            at=(head.brain_low + head.brain_high) / 2,
            stripped_share=stripped_share,
            healthy=healthy,
        )
        parts, tissues, lesion = _volumes(rng, scene, spacing, num_slices)
        for part, volumes in parts.items():
            images = {name: volumes[name] for name in wanted}
            subject = Subject(images, tissues, lesion, kind="", field_tesla=0.0)
            files = write_subject(subject, folders[part], layout=layout, number=number, spacing_mm=spacing)
            if part == SCANS:
                summaries.append(
                    {
                        "subject": files.pop("subject"),
                        "stripped": scene.stripped,
                        "lesion_ml": round(float((lesion > 0).sum() * np.prod(spacing) / 1000), 2),
                        "files": files,
                    }
                )
    return summaries


def _extents_mm(head: Head) -> tuple[float, float, float]:
    """A field of view around the brain and the skull beside it."""
    width, depth, height = (float(size) + 2 * MARGIN_MM for size in head.brain_high - head.brain_low)
    return width + 16, depth + 16, height


def _volumes(
    rng: np.random.Generator, scene: Scene, spacing: tuple[float, float, float], num_slices: int | None
) -> tuple[dict[str, dict[str, np.ndarray]], np.ndarray, np.ndarray]:
    """Scans and truth, contrast -> int16 volume; tissues, lesions. Axes left, back, up as files have them."""
    rows, columns, places = (
        pixel_places(extent, mm) for extent, mm in zip(scene.view.extents_mm, spacing, strict=True)
    )
    places = _slab(scene, places, num_slices)
    fine_rows, fine_columns = (places_within(axis) for axis in (rows, columns))
    within = places_through(spacing[2])
    shape = (2 * len(CONTRASTS), len(rows), len(columns), len(places))
    signals, inside = np.zeros(shape, np.float32), np.zeros(shape[1:], bool)
    tissue, lesion = (np.zeros(shape[1:], np.int16) for _ in range(2))
    for number, place in enumerate(places):
        slice_ = render(scene, fine_rows, fine_columns, place + within)
        signals[..., number] = np.abs(to_pixels(slice_.signals))
        inside[..., number] = to_pixels(slice_.inside.astype(np.float32)) > 0.5
        lesion[..., number] = to_pixels(slice_.lesion) > 0.5
        tissue[..., number] = TISSUE_LABELS[slice_.tissue[::FINE, ::FINE]]
    scan = draw_scan(rng, stripped=scene.stripped)
    parts: dict[str, dict[str, np.ndarray]] = {SCANS: {}, TRUTH: {}}
    for number, name in enumerate(CONTRASTS):
        signal, truth = signals[number], signals[number + len(CONTRASTS)]
        level = float(np.median(signal[inside & (signal > 0)]))
        received = receive(rng, scan, signal, inside, level, spacing)
        bright = float(np.exp(rng.uniform(*np.log(STORED_RANGE))))
        parts[SCANS][name] = _file(received.image, received.shown, bright)
        parts[TRUTH][name] = _file(truth, inside & (truth > 0), TRUTH_LEVEL)
    lesion *= inside
    tissue = np.where(lesion > 0, LESION, tissue * inside)
    return parts, tissue[::-1, ::-1], lesion[::-1, ::-1]


def _file(image: Floats, shown: np.ndarray, level: float) -> np.ndarray:
    volume = np.zeros(image.shape, np.int16)
    volume[shown] = stored(image[shown], level=level)
    return volume[::-1, ::-1]


def _slab(scene: Scene, places: Floats, num_slices: int | None) -> Floats:
    """So many neighbouring slices, about the first lesion or the middle; bends are left out of account."""
    if num_slices is None or num_slices >= len(places):
        return places
    middle = 0.0
    for shells in scene.shells[:1]:
        middle = np.linalg.solve(scene.view.matrix, shells.centre - scene.view.centre)[2]
    first = int(np.searchsorted(places, middle)) - num_slices // 2
    first = min(max(first, 0), len(places) - num_slices)
    return places[first : first + num_slices]
