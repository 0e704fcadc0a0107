"""Do the contrasts of one subject fit together? One image twice, shifted, mirrored or exchanged volumes.

Judged here but for exchanges, `pair_exchange`; `pair_alignment` measures where volumes lie.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from hmf_networks.data.pair_alignment import (
    MIN_VOXELS,
    Coarse,
    Fit,
    Floats,
    best_fit,
    coarsen,
    mirrored,
    start_of_mirrored,
    to_levels,
)
from hmf_networks.data.pair_exchange import Suspicion, suspicions
from numpy.typing import NDArray

Pair = tuple[str, str]

# Comments: what 12 simulated subjects (seed 3) and 8 real ones showed; benchmarks/pair_check.py counts.
DUPLICATE_RESIDUAL = 0.05  # of the deviation of a volume; a hundred levels leave 0.03, T1 and T1c 0.3
SHIFT_MM = 1.5  # aligned pairs lie below 0.5; the BraTS pairs known to lie off, up to 1.9
SHIFT_GAIN = 1.1  # information at the best shift over that unmoved: pairs moved by 2.5 mm gain 1.36 and more
STRANGE_INFORMATION = 0.008  # at the best shift: two people 0.003, at most 0.01; one person > 0.01
MIRROR_RATIO = 1.6  # information of the mirror image over that as it is: good pairs < 0.4, two people < 1.4

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
    twice = {finding.contrasts[-1] for finding in duplicates}
    coarse = _cropped({name: volume for name, volume in coarse.items() if name not in twice})
    fits, mirror_fits = _fits(coarse)
    flips = list(_flips(list(coarse), fits, mirror_fits))
    shifts = list(_shifts([name for name in coarse if name not in _named(flips)], fits))
    in_place = [name for name in coarse if name not in _named([*flips, *shifts])]
    return [*duplicates, *flips, *shifts, *map(_swap, suspicions(coarse, in_place))]


def _duplicates(volumes: Mapping[str, Floats], coarse: Mapping[str, Coarse]) -> Iterator[Finding]:
    for first, second in itertools.combinations(volumes, 2):
        equal = np.array_equal(volumes[first], volumes[second])
        residual = 0.0 if equal else _residual(coarse[first], coarse[second])
        if residual < DUPLICATE_RESIDUAL:
            how = "voxel for voxel" if equal else f"up to scale and offset (residual {residual:.1e})"
            message = f"{first} and {second} are the same image {how}; give each contrast its own scan"
            yield Finding("E_DUPLICATE", (first, second), residual, message)


def _flips(names: Sequence[str], fits: Mapping[Pair, Fit], mirror_fits: Mapping[Pair, Fit]) -> Iterator[Finding]:
    ratios = {
        pair: mirror_fits[pair].information / max(fit.information, np.finfo(float).tiny) for pair, fit in fits.items()
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
        offset_mm = np.median(from_odd, axis=0)  # of the odd one from the others, or the first from the second
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
    groups = [set(group) for size in range(1, len(names) + 1) for group in itertools.combinations(names, size)]
    agreeing = [group for group in groups if not any(set(pair) <= group for pair in apart)]
    largest = [group for group in agreeing if len(group) == max(map(len, agreeing))]
    if len(largest) > 1:
        yield from ((pair, [pair]) for pair in sorted(apart))
        return
    for name in (name for name in names if name not in largest[0]):
        yield (name,), [pair for pair in sorted(apart) if name in pair and largest[0] & set(pair)]


def _swap(suspicion: Suspicion) -> Finding:
    names, score = suspicion.contrasts, suspicion.score
    if len(names) == 1:
        problem, cure = f"{names[0]} does not look {names[0].upper()}-weighted", "look at it and rename it"
    else:
        problem, cure = f"{' and '.join(names)} look exchanged", "look at both and exchange their names"
    return Finding("W_SWAP", names, score, f"{problem}: {suspicion.why} (score {score:.2f}); {cure}")


def _cropped(coarse: Mapping[str, Coarse]) -> dict[str, Coarse]:
    """Volumes with enough signal, cut to the box that holds every foreground."""
    seen = {name: volume for name, volume in coarse.items() if volume.foreground.sum() >= MIN_VOXELS}
    if not seen:
        return {}
    union = np.logical_or.reduce([volume.foreground for volume in seen.values()])
    held = [np.flatnonzero(union.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    box = tuple(slice(int(steps[0]), int(steps[-1]) + 1) for steps in held)
    return {
        name: Coarse(volume.values[box], volume.foreground[box], volume.spacing_mm) for name, volume in seen.items()
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


def _named(findings: Sequence[Finding]) -> set[str]:
    return {name for finding in findings for name in finding.contrasts}


def _in_words(offset_mm: NDArray[np.floating]) -> str:
    """E.g. "5.0 mm left, 1.2 mm up"; parts below half a millimetre are left out."""
    return ", ".join(
        f"{abs(part):.1f} mm {words[int(part > 0)]}"
        for part, words in zip(offset_mm, DIRECTIONS, strict=True)
        if abs(part) >= 0.5
    )
