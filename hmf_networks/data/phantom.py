"""Simulated subjects: a random brain, MR physics and scanner artefacts, written as NIfTI in a known layout.

For demonstrations and tests that need no data. Subject i of a seed is always the same person, however many
are asked for, in whichever layout or contrasts; with another `spacing_mm` only its voxels and noise differ.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hmf_networks.data.anatomy import Anatomy, draw_anatomy, load_template, sample
from hmf_networks.data.phantom_files import LAYOUTS, offered_contrasts, refuse_existing, write_subject
from hmf_networks.naming import CONTRASTS, check_contrasts, unknown_word
from hmf_networks.physics import artefacts, lesions, tissues
from hmf_networks.physics.fields import Floats, smooth_field, voxel_centres
from hmf_networks.physics.protocols import draw_protocols
from hmf_networks.physics.signal import Sequence, Tissue, signal, with_gadolinium

VESSEL_WIDTH = 0.11  # in standard deviations of the two fields whose common zero line a vessel follows
COMMON_KNOTS_MM, OWN_KNOT_MM = (14.0, 2.5), 2.5  # of the fields by which one tissue varies


class Subject(NamedTuple):
    """One simulated person: images and the two label maps on one grid, int16, 0 outside the brain."""

    images: dict[str, np.ndarray]
    tissue_labels: np.ndarray  # 1 CSF, 2 grey, 3 white, 4 lesion
    lesion_labels: np.ndarray  # as BraTS: 1 tumour core, 2 oedema or plaque, 3 enhancing
    kind: str  # "healthy", "plaques" or "tumour"
    field_tesla: float


def simulate_subjects(
    output_dir: Path,
    *,
    num_subjects: int,
    seed: int,
    layout: str = "brats",
    spacing_mm: float = 1.0,
    contrasts: Several[str] = CONTRASTS,
    lesion_share: float = 0.5,
) -> list[dict[str, Any]]:
    """Write subjects 1..num_subjects below `output_dir`, without contrasts that the layout has no name for.

    Returns one summary each: subject, kind, field_tesla, lesion_ml and files {contrast or label: path}.
    """
    if layout not in LAYOUTS:
        raise ValueError(unknown_word("layout", layout, LAYOUTS))
    if num_subjects < 1:
        raise ValueError(f"num_subjects is {num_subjects}; ask for at least 1")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it is a whole number from 0 up")
    if not 0.5 <= spacing_mm <= 8:
        raise ValueError(f"spacing_mm is {spacing_mm}; a brain can be drawn with voxels of 0.5 to 8 mm")
    if not 0 <= lesion_share <= 1:
        raise ValueError(f"lesion_share is {lesion_share}; it is a share of the subjects, 0 to 1")
    check_contrasts(contrasts)
    wanted = offered_contrasts(layout, contrasts)
    numbers = range(1, num_subjects + 1)
    refuse_existing(output_dir, layout, numbers)
    summaries = []
    for number in numbers:
        subject = simulate_subject(seed, number, spacing_mm=spacing_mm, contrasts=wanted, lesion_share=lesion_share)
        files = write_subject(subject, output_dir, layout=layout, number=number, spacing_mm=spacing_mm)
        summaries.append(
            {
                "subject": files.pop("subject"),
                "kind": subject.kind,
                "field_tesla": subject.field_tesla,
                "lesion_ml": round(float((subject.lesion_labels > 0).sum()) * spacing_mm**3 / 1000, 2),
                "files": files,
            }
        )
    return summaries


def simulate_subject(
    seed: int, number: int, *, spacing_mm: float = 1.0, contrasts: Several[str] = CONTRASTS, lesion_share: float = 0.5
) -> Subject:
    """One person in memory; every part has its own random stream, so leaving one out changes no other."""
    streams = np.random.default_rng([seed, number]).spawn(4 + len(CONTRASTS))
    for_lesions, for_anatomy, for_tissues, for_scanner, *for_images = streams
    axes = voxel_centres(spacing_mm)
    kind, maps, mass = _draw_lesions(for_lesions, lesion_share)
    anatomy = draw_anatomy(for_anatomy, spacing_mm, mass)
    fractions = anatomy.fractions | {"blood": _vessels(for_anatomy, axes, anatomy)}
    fractions = _insert(fractions, {name: sample(image, anatomy.points_mm) for name, image in maps.items()})

    field_tesla = float(for_tissues.choice(tissues.FIELDS_TESLA))
    head = _tissue_maps(for_tissues, tissues.draw_tissues(for_tissues, field_tesla), axes, anatomy)
    uptake = tissues.draw_gadolinium(for_tissues)
    enhanced = {name: with_gadolinium(tissue, uptake.get(name, 0.0)) for name, tissue in head.items()}
    protocols = draw_protocols(for_scanner, field_tesla)

    images = {}
    for name, rng in zip(CONTRASTS, for_images, strict=True):
        if name in contrasts:
            clean = _mixed_signal(enhanced if name == "t1c" else head, fractions, protocols[name])
            images[name] = _scan(rng, clean, fractions["wm"], anatomy.brain, axes, spacing_mm)
    labels = _labels(fractions, anatomy.brain)
    return Subject(images, *labels, kind=kind, field_tesla=field_tesla)


def _draw_lesions(rng: np.random.Generator, share: float) -> tuple[str, dict[str, Floats], lesions.Mass | None]:
    ill, tumour = rng.random() < share, rng.random() < lesions.TUMOUR_SHARE
    if not ill:
        return "healthy", {}, None
    template = load_template()
    if not tumour:
        return "plaques", lesions.draw_plaques(rng, template.plaque_likelihood), None
    side = rng.choice((-1, 1))
    centre_mm = np.array((side * rng.uniform(22, 42), rng.uniform(-40, 55), rng.uniform(-5, 40)))
    maps = lesions.draw_tumour(rng, template.gm.shape, np.rint(centre_mm - template.first_mm).astype(int))
    return "tumour", maps, lesions.Mass(centre_mm, rng.uniform(0.1, 0.4), rng.uniform(20, 28))


def _vessels(rng: np.random.Generator, axes: list[Floats], anatomy: Anatomy) -> Floats:
    """Thin random tubes through CSF and cortex: where two smooth fields vanish together."""
    first, second = (smooth_field(rng, 14.0, axes)[anatomy.brain] for _ in range(2))
    tubes = np.exp(-(first**2 + second**2) / (2 * VESSEL_WIDTH**2))
    return tubes * np.clip(anatomy.fractions["csf"] + 0.5 * anatomy.fractions["gm"], 0, 1)


def _insert(fractions: dict[str, Floats], inserts: dict[str, Floats]) -> dict[str, Floats]:
    """Tissues first, then vessels and lesions in their place; CSF resists plaques and oedema, not tumours."""
    solid = 1 - fractions["csf"]
    for name in {"plaque", "active", "oedema"} & inserts.keys():
        inserts[name] = inserts[name] * solid
    for name in {"plaque", "active"} & inserts.keys():  # plaques of white matter thin out in the cortex
        inserts[name] = inserts[name] * np.clip(0.25 + 1.2 * fractions["wm"], 0, 1)
    inserts = {"blood": fractions["blood"]} | inserts
    room = np.clip(1 - sum(inserts.values()), 0, 1)
    replaced = {name: fractions[name] * room for name in ("csf", "gm", "wm")} | inserts
    total = sum(replaced.values())
    return {name: fraction / total for name, fraction in replaced.items()}


def _tissue_maps(
    rng: np.random.Generator, means: dict[str, Tissue], axes: list[Floats], anatomy: Anatomy
) -> dict[str, Tissue]:
    """T1, T2 and PD of each tissue at each brain voxel."""
    coarse, fine = (smooth_field(rng, knot, axes)[anatomy.brain] for knot in COMMON_KNOTS_MM)
    own = Tissue(*(smooth_field(rng, OWN_KNOT_MM, axes)[anatomy.brain] for _ in range(3)))
    factors = tissues.variation(np.sqrt(0.5) * (coarse + fine), own)
    deep = anatomy.deep_grey
    head = {}
    for name, mean in means.items():
        share = tissues.CSF_SHARE_OF_SPREAD if name in ("csf", "blood") else 1.0
        head[name] = tissues.varied(mean, factors, share=share)
    grey = head["gm"]
    head["gm"] = grey._replace(
        t1=grey.t1 * (1 - (1 - tissues.DEEP_GREY_T1) * deep), t2=grey.t2 * (1 - (1 - tissues.DEEP_GREY_T2) * deep)
    )
    return head


def _mixed_signal(head: dict[str, Tissue], fractions: dict[str, Floats], sequence: Sequence) -> Floats:
    """Partial volume: the signals of the tissues in a voxel add up, their relaxation times do not."""
    total = np.zeros_like(fractions["gm"])
    for name, fraction in fractions.items():
        there = np.flatnonzero(fraction > 1e-3)
        local = Tissue(*(np.asarray(values)[there] for values in head[name]))
        total[there] += fraction[there] * signal(local, sequence)
    return total


def _scan(
    rng: np.random.Generator, clean: Floats, white: Floats, brain: np.ndarray, axes: list[Floats], spacing_mm: float
) -> np.ndarray:
    """The stored int16 volume of a clean signal (V brain voxels)."""
    volume = np.zeros(brain.shape, np.float32)
    volume[brain] = clean
    volume = artefacts.blur(volume, sigma_voxels=rng.uniform(*artefacts.BLUR_SIGMA_MM) / spacing_mm)
    white_level = float(np.average(clean, weights=white))
    shaded = volume[brain] * artefacts.bias_field(rng, axes, brain)
    low, high = np.log(artefacts.STORED_RANGE)
    level = np.exp(rng.uniform(low, high))
    noisy = artefacts.rician_noise(rng, shaded, sigma=white_level / rng.uniform(*artefacts.SNR_RANGE))
    image = np.zeros(brain.shape, np.int16)
    image[brain] = artefacts.stored(noisy, level=float(level))
    return image


def _labels(fractions: dict[str, Floats], brain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tissue_labels, lesion_labels = np.zeros(brain.shape, np.int16), np.zeros(brain.shape, np.int16)
    tissue = np.argmax([fractions[name] for name in ("csf", "gm", "wm")], axis=0) + 1
    of_label = {1: ("core",), 2: ("plaque", "oedema"), 3: ("active", "rim")}
    nothing = np.zeros_like(fractions["gm"])
    share = [sum((fractions.get(name, nothing) for name in names), nothing) for names in of_label.values()]
    lesion = np.where(np.sum(share, axis=0) > 0.5, np.argmax(share, axis=0) + 1, 0)
    tissue_labels[brain], lesion_labels[brain] = np.where(lesion > 0, 4, tissue), lesion
    return tissue_labels, lesion_labels
