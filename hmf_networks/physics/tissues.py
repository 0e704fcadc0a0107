"""Relaxation times and water content of brain tissue, and how they vary between people and inside one tissue.

Seconds and fractions of water. Sources of the ranges (docs/data.md has the full names):
T1 at 1.5 T: white 0.66 (Rooney 2007) to 0.88 (Stanisz 2005), grey 1.12 (Stanisz) to 1.19 (Rooney);
T1 at 3 T: white 0.83 (Wansapura 1999) to 1.08 (Stanisz), grey 1.33 (Wansapura) to 1.82 (Stanisz), cut: 1.65;
T2: white 0.069 to 0.080, grey 0.095 to 0.110 (Stanisz, Wansapura); T1 of CSF 4.3 at any field (Rooney).
Blood: T1 1.44 and 1.93, T2 0.28 (Stanisz).
T2 of CSF is shortened by flow. Lesion rows are our choice of plausible values: the literature scatters.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hmf_networks.physics.fields import Floats
from hmf_networks.physics.signal import Tissue

FIELDS_TESLA = (1.5, 3.0)


class Ranges(NamedTuple):
    """Lowest and highest mean of a tissue over people."""

    t1_at_1_5_tesla: tuple[float, float]
    t1_at_3_tesla: tuple[float, float]
    t2: tuple[float, float]
    pd: tuple[float, float]


RANGES = {
    "csf": Ranges((4.0, 4.4), (4.0, 4.4), (1.00, 2.00), (0.97, 1.00)),
    "gm": Ranges((1.10, 1.20), (1.33, 1.65), (0.095, 0.110), (0.79, 0.84)),
    "wm": Ranges((0.66, 0.88), (0.83, 1.08), (0.069, 0.080), (0.68, 0.72)),
    "plaque": Ranges((1.00, 1.50), (1.25, 1.85), (0.130, 0.190), (0.81, 0.87)),
    "active": Ranges((1.10, 1.40), (1.35, 1.70), (0.130, 0.180), (0.81, 0.87)),
    "oedema": Ranges((1.20, 1.60), (1.40, 1.90), (0.125, 0.170), (0.82, 0.88)),
    "rim": Ranges((1.10, 1.40), (1.35, 1.75), (0.100, 0.135), (0.81, 0.86)),
    "core": Ranges((1.90, 2.80), (2.10, 3.00), (0.200, 0.450), (0.88, 0.95)),
    "blood": Ranges((1.35, 1.55), (1.80, 2.00), (0.240, 0.320), (0.40, 0.60)),  # little signal: it flows away
}
LESION_TISSUES = ("plaque", "active", "oedema", "rim", "core")

# Iron shortens both times in the basal ganglia and the thalamus: factors on the cortex, our choice.
DEEP_GREY_T1, DEEP_GREY_T2 = 0.86, 0.82

# Gadolinium minutes after the injection, mmol/l: lowest and highest mean over people; our choice.
GADOLINIUM = {"gm": (0.01, 0.03), "wm": (0.0, 0.01), "active": (0.1, 0.4), "rim": (0.12, 0.5), "blood": (1.5, 4.0)}

# Spread inside one tissue, as a standard deviation of the logarithm: of what T1, T2 and water have in common
# (more free water, less myelin: all three grow) and of what each has for itself.
COMMON_SPREAD = Tissue(t1=0.045, t2=0.045, pd=0.020)
OWN_SPREAD = Tissue(t1=0.030, t2=0.060, pd=0.015)
CSF_SHARE_OF_SPREAD = 0.3  # a fluid has no myelin to lose


def draw_tissues(rng: np.random.Generator, field_tesla: float) -> dict[str, Tissue]:
    """Mean T1, T2 and PD of every tissue of one subject at that field."""
    if field_tesla not in FIELDS_TESLA:
        raise ValueError(f"no tissue table for {field_tesla} T; there is one for {FIELDS_TESLA}")
    shared = rng.random()  # who has long T1 in grey matter has it in white matter as well
    tissues = {}
    for name, ranges in RANGES.items():
        t1_range = ranges.t1_at_1_5_tesla if field_tesla == 1.5 else ranges.t1_at_3_tesla
        t1_quantile = 0.7 * shared + 0.3 * rng.random()
        tissues[name] = Tissue(
            t1=float(np.interp(t1_quantile, (0, 1), t1_range)),
            t2=float(rng.uniform(*ranges.t2)),
            pd=float(rng.uniform(*ranges.pd)),
        )
    return tissues


def draw_gadolinium(rng: np.random.Generator) -> dict[str, float]:
    """Concentration of contrast agent per tissue, mmol/l; tissues not named take up none."""
    return {name: float(rng.uniform(*limits)) for name, limits in GADOLINIUM.items()}


def variation(common: Floats, own: Tissue) -> Tissue:
    """Factors on T1, T2 and PD at every voxel, from unit fields: one in common and one for each."""
    pairs = zip(COMMON_SPREAD, OWN_SPREAD, own, strict=True)
    return Tissue(*(np.exp(both * common + alone * field) for both, alone, field in pairs))


def varied(tissue: Tissue, factors: Tissue, *, share: float = 1.0) -> Tissue:
    """The tissue at every voxel; `share` weakens the variation."""
    return Tissue(*(mean * (1 + share * (factor - 1)) for mean, factor in zip(tissue, factors, strict=True)))
