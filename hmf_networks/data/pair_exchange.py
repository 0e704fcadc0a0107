"""Which names look wrong, by what `pair_appearance` measures: contrasts exchanged, or one unlike its name.

Silent where it cannot be told: T1 against T1 with gadolinium, and often PD against T1 where there is no T2.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
from hmf_networks.data.pair_alignment import MIN_VOXELS, Coarse, Floats, Mask
from hmf_networks.data.pair_appearance import (
    SHADING_MM,
    TISSUE_MM,
    deviations,
    find_core,
    greyness_by_depth,
    in_quartiles,
    likeness_to_t2,
    tail,
)

Pair = tuple[str, str]

# Comments: what 12 simulated subjects (seed 3) and 8 real ones showed; benchmarks/pair_check.py counts.
EXCHANGED_TAIL = 0.2  # tail of a difference, the wrong way round: T1 and PD > -0.01, other good pairs > 0.35
DARK_T2_TAIL, BRIGHT_T1_TAIL = -0.1, 0.15  # T2 has 0.2 and more; T1, with gadolinium or not, -0.24 and less
LIKENESS_GAP = 0.3  # of correlations with T2, the wrong way round: good subjects > 0.4
DEPTH_GAP = 0.08  # of correlations with the depth below fluid, the wrong way round: good subjects > -0.03

FLUID_RANK = {"t1": 0, "t1c": 0, "flair": 0, "pd": 1, "t2": 2}  # brightness of fluid beside that of brain
WHITE_BRIGHT, GREY_BRIGHT = ("t1", "t1c"), ("flair", "pd")  # which matter is the brighter one


class Suspicion(NamedTuple):
    """Two contrasts that look exchanged, or one unlike its name; names that are right give the other sign."""

    contrasts: tuple[str, ...]
    score: float
    why: str


def suspicions(coarse: Mapping[str, Coarse], in_place: Collection[str]) -> list[Suspicion]:
    """What speaks against the names of `coarse`; only those `in_place` are compared by their tissue."""
    known = {name: volume for name, volume in coarse.items() if name in FLUID_RANK}
    if not known:
        return []
    core = find_core(known)
    if core.sum() < MIN_VOXELS:
        return []
    scales = {name: in_quartiles(values) for name, values in deviations(known, core, SHADING_MM).items()}
    findings = _exchanged_by_fluid(scales) or _unlike_by_fluid(scales)
    comparable = {name: volume for name, volume in known.items() if name in in_place}
    return findings or _exchanged_by_tissue(comparable, scales, core)


def _exchanged_by_fluid(scales: Mapping[str, Floats]) -> list[Suspicion]:
    """The exchange of two names that puts fluid right, where a pair has it clearly the wrong way round."""
    tails = {
        (first, second): tail(scales[second] - scales[first]) for first, second in itertools.permutations(scales, 2)
    }
    as_named = dict(zip(scales, scales, strict=True))
    wrong = [pair for pair in tails if tails[pair] < 0 and _is_darker(*pair)]
    if not any(tails[pair] < -EXCHANGED_TAIL for pair in wrong):
        return []

    def agreement(pair: Pair) -> float:
        names = as_named | {pair[0]: pair[1], pair[1]: pair[0]}
        return sum(tails[one] for one in tails if _is_darker(*(names[name] for name in one)))

    pair = max(wrong, key=agreement)
    return [Suspicion(pair, tails[pair], "fluid is the brighter in the wrong one")]


def _is_darker(first: str, second: str) -> bool:
    return FLUID_RANK[first] < FLUID_RANK[second]


def _unlike_by_fluid(scales: Mapping[str, Floats]) -> list[Suspicion]:
    """T2 with dark fluid; T1 with fluid as bright as in T2 (FLAIR with oedema has a bright tail as well)."""
    tails = {name: tail(scale) for name, scale in scales.items()}
    darker_than_t2 = {name for name in scales if "t2" in scales and tail(scales["t2"] - scales[name]) > EXCHANGED_TAIL}
    dark = [name for name in ("t2",) if tails.get(name, 1.0) < DARK_T2_TAIL]
    whites = [name for name in WHITE_BRIGHT if name in scales and name not in darker_than_t2]
    bright = [name for name in whites if tails[name] > BRIGHT_T1_TAIL]
    return [
        *(Suspicion((name,), tails[name], "its fluid is not bright") for name in dark),
        *(Suspicion((name,), tails[name], "its fluid is bright") for name in bright),
    ]


def _exchanged_by_tissue(coarse: Mapping[str, Coarse], scales: Mapping[str, Floats], core: Mask) -> list[Suspicion]:
    """T1, with or without gadolinium, against FLAIR or PD, by grey and white matter: the clearest pair."""
    greys = GREY_BRIGHT if "t2" in coarse else ("flair",)  # PD is too flat for depth alone
    pairs = [(white, grey) for white in WHITE_BRIGHT for grey in greys if {white, grey} <= coarse.keys()]
    if not pairs:
        return []
    spacing_mm = coarse[pairs[0][0]].spacing_mm
    tissue = deviations(coarse, core, TISSUE_MM)
    if "t2" in coarse:
        greyness, limit = likeness_to_t2(tissue, scales["t2"], core, spacing_mm), LIKENESS_GAP
    else:
        fluid_sum = np.sum([scales[name] for name in coarse], axis=0)
        greyness, limit = greyness_by_depth(tissue, fluid_sum, core, spacing_mm), DEPTH_GAP
    scores = {(white, grey): greyness[grey] - greyness[white] for white, grey in pairs}
    wrong = min(pairs, key=lambda pair: scores[pair])
    if scores[wrong] > -limit:
        return []
    return [Suspicion(wrong, scores[wrong], "grey matter is the brighter in the wrong one")]
