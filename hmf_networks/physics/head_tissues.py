"""The tissues of a whole head: which label of a segmentation is which, and their T1, T2 and water.

Labels are FreeSurfer's, and those above 500 of the maps that SynthSeg was trained on. These come without a
legend; the reading below is ours, from where they lie and how large they are (docs/data.md).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hmf_networks.physics.signal import Tissue
from hmf_networks.physics.tissues import GADOLINIUM, draw_tissues

AIR = "air"


class Kind(NamedTuple):
    """One tissue: factors on T1, T2 and water of a row of `tissues.RANGES`; the labels that mean it."""

    like: str
    t1: float
    t2: float
    pd: float
    labels: tuple[int, ...] = ()


# Where no source is named in tissues.py, factors are our choice: iron shortens T1 and T2 in the deep nuclei,
# fat and marrow have a short T1, cortical bone gives next to no signal.
KINDS = {
    "csf": Kind("csf", 1.0, 1.0, 1.0, (4, 5, 14, 15, 24, 43, 44, 72)),
    "cortex": Kind("gm", 1.0, 1.0, 1.0, (3, 42)),
    "cerebellar cortex": Kind("gm", 0.97, 0.96, 1.0, (8, 47)),
    "hippocampus": Kind("gm", 1.03, 1.06, 1.01, (17, 18, 53, 54)),
    "striatum": Kind("gm", 0.92, 0.86, 0.99, (11, 12, 26, 50, 51, 58)),
    "pallidum": Kind("gm", 0.70, 0.66, 0.95, (13, 52)),
    "thalamus": Kind("gm", 0.80, 0.84, 0.97, (10, 49)),
    "white matter": Kind("wm", 1.0, 1.0, 1.0, (2, 7, 41, 46, 85)),
    "brain stem": Kind("wm", 1.10, 1.04, 1.03, (16, 28, 60)),
    "choroid plexus": Kind("csf", 0.45, 0.16, 0.95, (31, 63, 136, 137, 163, 164)),
    "old lesion": Kind("plaque", 0.92, 0.85, 0.98, (25, 57, 77, 78, 79, 80)),
    "artery": Kind("blood", 1.0, 0.7, 0.5, (30, 62, 502)),
    "vein": Kind("blood", 1.0, 0.35, 0.9, (514,)),
    "eye": Kind("csf", 0.95, 0.6, 1.0, (506,)),
    "muscle": Kind("gm", 0.95, 0.38, 0.95, (508,)),
    "fat": Kind("wm", 0.34, 1.25, 1.25, ()),
    "soft": Kind("gm", 0.60, 0.60, 1.0, (507,)),  # fat and muscle, told apart by a random field
    "mucosa": Kind("gm", 0.95, 1.1, 0.95, (509,)),
    "scalp": Kind("wm", 0.45, 0.95, 1.1, (511,)),
    "cord": Kind("wm", 1.05, 1.05, 1.02, (512, 530)),
    "bone": Kind("wm", 0.60, 0.12, 0.20, (515,)),
    "marrow": Kind("wm", 0.42, 0.95, 0.80, (516,)),
    "plaque": Kind("plaque", 1.0, 1.0, 1.0),
    "active plaque": Kind("active", 1.0, 1.0, 1.0),
    "oedema": Kind("oedema", 1.0, 1.0, 1.0),
    "tumour rim": Kind("rim", 1.0, 1.0, 1.0),
    "tumour core": Kind("core", 1.0, 1.0, 1.0),
}
NAMES = (AIR, *KINDS)
NUMBER = {name: number for number, name in enumerate(NAMES)}
OUTSIDE = ("muscle", "fat", "soft", "mucosa", "scalp", "bone", "marrow", "eye")  # of the brain's box
FLUIDS = ("csf", "artery", "vein", "eye")
GREY, WHITE = ("cortex",), ("white matter",)

UPTAKE = {  # gadolinium, beside that of `tissues.GADOLINIUM`, mmol/l
    "choroid plexus": (0.5, 1.5),
    "mucosa": (0.4, 1.2),
    "muscle": (0.05, 0.15),
    "scalp": (0.02, 0.08),
}

JITTER = 0.04  # standard deviation of the logarithm, of each tissue's T1 and T2 for itself


def tissue_of_label(largest: int) -> np.ndarray:
    """Look-up table, label 0..largest -> number in NAMES; unknown labels are soft tissue."""
    table = np.full(largest + 1, NUMBER["soft"], np.uint8)
    table[0] = NUMBER[AIR]
    for name, kind in KINDS.items():
        for label in kind.labels:
            if label <= largest:
                table[label] = NUMBER[name]
    return table


def draw_head_tissues(rng: np.random.Generator, field_tesla: float) -> dict[str, Tissue]:
    """Mean T1, T2 and PD of every tissue but air, of one person at that field."""
    base = draw_tissues(rng, field_tesla)
    drawn = {}
    for name, kind in KINDS.items():
        of, own = base[kind.like], np.exp(JITTER * rng.standard_normal(2))
        drawn[name] = Tissue(
            t1=float(of.t1 * kind.t1 * own[0]), t2=float(of.t2 * kind.t2 * own[1]), pd=float(min(of.pd * kind.pd, 1.0))
        )
    return drawn


def draw_uptake(rng: np.random.Generator) -> dict[str, float]:
    """Concentration of contrast agent per tissue, mmol/l; tissues not named take up none."""
    drawn = {name: float(rng.uniform(*limits)) for name, limits in GADOLINIUM.items()}
    uptake = {name: drawn[kind.like] for name, kind in KINDS.items() if kind.like in drawn}
    for name, limits in UPTAKE.items():
        uptake[name] = float(rng.uniform(*limits))
    return uptake | dict.fromkeys(("fat", "bone", "marrow", "cord"), 0.02)
