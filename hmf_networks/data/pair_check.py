"""Do the contrasts of one subject fit together? One image twice, shifted, mirrored or exchanged volumes.

Judged here; `pair_alignment` measures where volumes lie, `pair_appearance` what they look like.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hmf_networks.data.pair_alignment import (
    MIN_VOXELS,
    Coarse,
    Fit,
    Floats,
    Mask,
    best_fit,
    coarsen,
    mirrored,
    start_of_mirrored,
    to_levels,
)
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
DUPLICATE_RESIDUAL = 0.05  # of the deviation of a volume; a hundred levels leave 0.03, T1 and T1c 0.3
SHIFT_MM = 2.0  # aligned pairs lie below 0.5, BraTS up to 1.9; of pairs moved by 2.5 mm 97 % lie above
SHIFT_GAIN = 1.1  # information at the best shift over that unmoved: pairs moved by 2.5 mm gain 1.36 and more
STRANGE_INFORMATION = 0.008  # at the best shift: two people 0.003, at most 0.01; one person > 0.01
MIRROR_RATIO = 1.6  # information of the mirror image over that as it is: good pairs < 0.4, two people < 1.4
EXCHANGED_TAIL = 0.2  # tail of a difference, the wrong way round: T1 and PD > -0.01, other good pairs > 0.35
DARK_T2_TAIL, BRIGHT_T1_TAIL = -0.1, 0.15  # T2 has 0.2 and more; T1, with gadolinium or not, -0.24 and less
LIKENESS_GAP = 0.3  # of correlations with T2, the wrong way round: good subjects > 0.4
DEPTH_GAP = 0.08  # of correlations with the depth below fluid, the wrong way round: good subjects > -0.03

FLUID_RANK = {"t1": 0, "t1c": 0, "flair": 0, "pd": 1, "t2": 2}  # brightness of fluid beside that of brain
WHITE_BRIGHT, GREY_BRIGHT = ("t1", "t1c"), ("flair", "pd")  # which matter is the brighter one
DIRECTIONS = (("left", "right"), ("back", "front"), ("down", "up"))


class Finding(NamedTuple):
    """What does not fit: code W_SHIFT, W_FLIP, W_SWAP or E_DUPLICATE.

    `contrasts` is the odd one out where that can be told, or all that are in question. `number` is mm for a
    shift, a ratio or score for the others; `message` is one line with the cure.
    """

    code: str
    contrasts: tuple[str, ...]
    number: float
    message: str


def compare_contrasts(volumes: Mapping[str, Floats], spacing_mm: Sequence[float]) -> list[Finding]:
    """What is wrong between the volumes (X, Y, Z), RAS+, of one head on one grid; [] when they fit.

    Finite values of any scale, brain extracted or with skull. Volumes with too little in common are passed
    over. Grey and white matter are compared between volumes in place only: cure a shift and check again.
    """
    filled = {name: volume for name, volume in volumes.items() if volume.size and np.ptp(volume) > 0}
    coarse = {name: coarsen(volume, spacing_mm) for name, volume in filled.items()}
    duplicates = list(_duplicates(filled, coarse))
    twice = _named(duplicates, part=slice(-1, None))
    coarse = _cropped({name: volume for name, volume in coarse.items() if name not in twice})
    fits, mirror_fits = _fits(coarse)
    flips = list(_flips(list(coarse), fits, mirror_fits))
    shifts = list(_shifts([name for name in coarse if name not in _named(flips)], fits))
    in_place = [name for name in coarse if name not in _named([*flips, *shifts])]
    return [*duplicates, *flips, *shifts, *_exchanges(coarse, in_place)]


def _duplicates(volumes: Mapping[str, Floats], coarse: Mapping[str, Coarse]) -> Iterator[Finding]:
    for first, second in itertools.combinations(volumes, 2):
        equal = np.array_equal(volumes[first], volumes[second])
        residual = 0.0 if equal else _residual(coarse[first], coarse[second])
        if residual < DUPLICATE_RESIDUAL:
            how = "voxel for voxel" if equal else f"up to scale and offset (residual {residual:.1e})"
            message = f"{first} and {second} are the same image {how}; give each contrast its own scan"
            yield Finding("E_DUPLICATE", (first, second), residual, message)


def _flips(
    names: Sequence[str], fits: Mapping[Pair, Fit], mirror_fits: Mapping[Pair, Fit]
) -> Iterator[Finding]:
    ratios = {
        pair: mirror_fits[pair].information / max(fit.information, np.finfo(float).tiny)
        for pair, fit in fits.items()
    }
    apart = {pair for pair, ratio in ratios.items() if ratio > MIRROR_RATIO}
    for odd, pairs in _odd_ones(names, apart):
        ratio = float(np.exp(np.mean([np.log(ratios[pair]) for pair in pairs])))
        who = f"{odd[0]} is" if len(odd) == 1 else f"one of {' and '.join(odd)} is"
        message = (
            f"{who} mirrored left to right: its mirror image fits {ratio:.1f} times better; "
            "restore the sign of x in its header, or convert it again from the scanner's files"
        )
        yield Finding("W_FLIP", odd, ratio, message)


def _shifts(names: Sequence[str], fits: Mapping[Pair, Fit]) -> Iterator[Finding]:
    apart = {pair for pair, fit in fits.items() if set(pair) <= set(names) and _is_off(fit)}
    for odd, pairs in _odd_ones(names, apart):
        from_odd = [fits[pair].shift_mm * (1 if pair[0] == odd[0] else -1) for pair in pairs]
        offset_mm = np.median(
            from_odd, axis=0
        )  # of the odd one from the others, or the first from the second
        number = float(np.linalg.norm(offset_mm))
        where = "the others" if len(odd) == 1 else odd[1]
        strange = all(fits[pair].information < STRANGE_INFORMATION for pair in pairs)
        message = (
            f"{odd[0]} lies {number:.1f} mm from {where} ({_in_words(offset_mm)}); "
            + ("even there it hardly fits: is it another person's? " if strange else "")
            + "register it first"
        )
        yield Finding("W_SHIFT", odd, number, message)


def _is_off(fit: Fit) -> bool:
    gained = fit.information > SHIFT_GAIN * max(fit.information_unmoved, 0.0)
    return gained and float(np.linalg.norm(fit.shift_mm)) > SHIFT_MM


def _odd_ones(names: Sequence[str], apart: Collection[Pair]) -> Iterator[tuple[tuple[str, ...], list[Pair]]]:
    """Who is at fault, and the pairs that tell: all outside the largest group that agrees, or a pair."""
    if not apart:
        return
    groups = [
        set(group) for size in range(1, len(names) + 1) for group in itertools.combinations(names, size)
    ]
    agreeing = [group for group in groups if not any(set(pair) <= group for pair in apart)]
    largest = [group for group in agreeing if len(group) == max(map(len, agreeing))]
    if len(largest) > 1:
        yield from ((pair, [pair]) for pair in sorted(apart))
        return
    for name in (name for name in names if name not in largest[0]):
        yield (name,), [pair for pair in sorted(apart) if name in pair and largest[0] & set(pair)]


def _exchanges(coarse: Mapping[str, Coarse], in_place: Sequence[str]) -> list[Finding]:
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


def _exchanged_by_fluid(scales: Mapping[str, Floats]) -> list[Finding]:
    """The exchange of two names that puts fluid right, where a pair has it clearly the wrong way round."""
    tails = {
        (first, second): tail(scales[second] - scales[first])
        for first, second in itertools.permutations(scales, 2)
    }
    as_named = dict(zip(scales, scales, strict=True))
    wrong = [pair for pair in tails if tails[pair] < 0 and _is_darker(*pair)]
    if not any(tails[pair] < -EXCHANGED_TAIL for pair in wrong):
        return []

    def agreement(pair: Pair) -> float:
        names = as_named | {pair[0]: pair[1], pair[1]: pair[0]}
        return sum(tails[one] for one in tails if _is_darker(*(names[name] for name in one)))

    pair = max(wrong, key=agreement)
    return [_exchange(pair, tails[pair], "fluid is the brighter in the wrong one")]


def _is_darker(first: str, second: str) -> bool:
    return FLUID_RANK[first] < FLUID_RANK[second]


def _unlike_by_fluid(scales: Mapping[str, Floats]) -> list[Finding]:
    """T2 with dark fluid; T1 with fluid as bright as in T2 (FLAIR with oedema has a bright tail as well)."""
    tails = {name: tail(scale) for name, scale in scales.items()}
    darker_than_t2 = {
        name for name in scales if "t2" in scales and tail(scales["t2"] - scales[name]) > EXCHANGED_TAIL
    }
    dark = [name for name in ("t2",) if tails.get(name, 1.0) < DARK_T2_TAIL]
    whites = [name for name in WHITE_BRIGHT if name in scales and name not in darker_than_t2]
    bright = [name for name in whites if tails[name] > BRIGHT_T1_TAIL]
    return [
        *(_unlike(name, tails[name], "its fluid is not bright") for name in dark),
        *(_unlike(name, tails[name], "its fluid is bright") for name in bright),
    ]


def _exchanged_by_tissue(
    coarse: Mapping[str, Coarse], scales: Mapping[str, Floats], core: Mask
) -> list[Finding]:
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
    return [_exchange(wrong, scores[wrong], "grey matter is the brighter in the wrong one")]


def _exchange(pair: Pair, score: float, why: str) -> Finding:
    first, second = pair
    message = (
        f"{first} and {second} look exchanged: {why} (score {score:.2f}, expected above 0); "
        "look at both and exchange their names"
    )
    return Finding("W_SWAP", pair, score, message)


def _unlike(name: str, score: float, why: str) -> Finding:
    message = (
        f"{name} does not look {name.upper()}-weighted: {why} (tail {score:.2f}); look at it and rename it"
    )
    return Finding("W_SWAP", (name,), score, message)


def _cropped(coarse: Mapping[str, Coarse]) -> dict[str, Coarse]:
    """Volumes with enough signal, cut to the box that holds every foreground."""
    seen = {name: volume for name, volume in coarse.items() if volume.foreground.sum() >= MIN_VOXELS}
    if not seen:
        return {}
    union = np.logical_or.reduce([volume.foreground for volume in seen.values()])
    held = [np.flatnonzero(union.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    box = tuple(slice(int(steps[0]), int(steps[-1]) + 1) for steps in held)
    return {
        name: Coarse(volume.values[box], volume.foreground[box], volume.spacing_mm)
        for name, volume in seen.items()
    }


def _fits(coarse: Mapping[str, Coarse]) -> tuple[dict[Pair, Fit], dict[Pair, Fit]]:
    """How the second contrast of each pair lies best on the first, as it is and mirrored."""
    levels = {name: to_levels(volume) for name, volume in coarse.items()}
    as_is, turned = {}, {}
    for first, second in itertools.combinations(coarse, 2):
        fixed, moving, spacing_mm = levels[first], levels[second], coarse[first].spacing_mm
        mirror = mirrored(moving)
        start = start_of_mirrored(fixed.foreground, mirror.foreground)
        fit = best_fit(fixed, moving, spacing_mm, start=(0, 0, 0))
        mirror_fit = best_fit(fixed, mirror, spacing_mm, start=start)
        if fit is not None and mirror_fit is not None:
            as_is[first, second], turned[first, second] = fit, mirror_fit
    return as_is, turned


def _residual(first: Coarse, second: Coarse) -> float:
    """Distance of the second volume from a straight line through the first, in its own deviations."""
    common = first.foreground & second.foreground
    if common.sum() < MIN_VOXELS:
        return 1.0
    one, other = (_standardised(volume.values[common]) for volume in (first, second))
    return float(np.sqrt(max(1 - float(np.mean(one * other)) ** 2, 0.0)))


def _standardised(volume: Floats) -> NDArray[np.float64]:
    centred = volume.astype(np.float64) - volume.mean(dtype=np.float64)
    return np.asarray(centred / max(float(np.sqrt(np.mean(centred**2))), np.finfo(np.float64).tiny))


def _named(findings: Sequence[Finding], part: slice = slice(None)) -> set[str]:
    return {name for finding in findings for name in finding.contrasts[part]}


def _in_words(offset_mm: NDArray[np.floating]) -> str:
    """E.g. "5.0 mm left, 1.2 mm up"; parts below half a millimetre are left out."""
    return ", ".join(
        f"{abs(part):.1f} mm {words[int(part > 0)]}"
        for part, words in zip(offset_mm, DIRECTIONS, strict=True)
        if abs(part) >= 0.5
    )
