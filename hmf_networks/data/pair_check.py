"""Do the contrasts of one subject fit together? The same image twice, shifts, mirror images, exchanged names.

Everything is judged on a coarse grid and told with its number; `benchmarks/pair_check.py` counts what is
found and how often it is wrong. T1 and FLAIR exchanged are only told where the skull is stripped. Shapes:
volumes (X, Y, Z) in RAS+ order, all on one grid.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# Measured on 6 simulated subjects (seed 3) and the 8 real ones of docs/reliability.md.
COARSE_MM = 2.0
BINS = 32  # of the joint histogram
FARTHEST_MM = 30.0  # a shift is sought within this distance
SHIFT_MM = 1.5  # registered pairs lie below 0.4; the real ones known to be off, above 1.6
FLIP_GAIN = 1.15  # information mirrored over unmirrored; good pairs lie below 0.7, so flipped ones above 1.4
LEAST_INFORMATION = 0.12  # in nats; less is two people, or noise. Good pairs lie above 0.17
DEPTH_MM = 10.0  # below the surface there is brain, with skull and without
TAIL_MARGIN = 0.1  # good pairs lie at -0.15 and below, exchanged ones therefore above 0.15
LEAST_T2_TAIL = 0.05  # T2 lies above 0.3
RIM_MM = (3.0, 7.0)  # of a brain without skull: cortex
RIM_MARGIN = 0.05  # good pairs lie at -0.06 and below
LARGEST_BRAIN_MM3 = 2.0e6  # with its fluid; a head with skull has 3 litres and more
FEWEST_VOXELS = 300  # of the coarse grid; fewer tell nothing
FLUID_BRIGHTER = (("t1", "t2"), ("t1c", "t2"), ("flair", "t2"))  # in the second than in the first
ORDER = ("t1", "t1c", "t2", "flair", "pd")

Volume = NDArray[np.float32]
Shift = tuple[int, int, int]


class Finding(NamedTuple):
    """What does not fit: E_DUPLICATE, W_SHIFT, W_FLIP or W_SWAP, between these contrasts, with its number."""

    code: str
    contrasts: tuple[str, ...]
    number: float
    message: str


def compare_contrasts(volumes: Mapping[str, Volume], spacing_mm: Sequence[float]) -> list[Finding]:
    """All that does not fit in one subject.

    Args:
        volumes: contrast -> (X, Y, Z), in any scale, finite.
        spacing_mm: voxel size along X, Y, Z.
    """
    found = [
        Finding("E_DUPLICATE", (one, other), 1.0, f"{one} and {other} are one and the same image")
        for one, other in itertools.combinations(volumes, 2)
        if _is_same(volumes[one], volumes[other])
    ]
    doubled = {finding.contrasts[1] for finding in found}
    coarse, coarse_mm = _coarse({n: v for n, v in volumes.items() if n not in doubled}, spacing_mm)
    usable = {name: volume for name, volume in coarse.items() if (volume > 0).sum() >= FEWEST_VOXELS}
    pairs = {
        (one, other): _fit(usable[one], usable[other], coarse_mm)
        for one, other in itertools.combinations(usable, 2)
    }
    flips = _flips(pairs)
    flipped = {name for finding in flips for name in finding.contrasts}
    return found + flips + _shifts(pairs, flipped) + _swaps(usable, coarse_mm)


def _is_same(one: Volume, other: Volume) -> bool:
    """Equal up to a scale and an offset, apart from rounding to stored numbers."""
    if one.shape != other.shape:
        return False
    a, b = (x.ravel()[:: max(1, x.size // 200_000)].astype(np.float64) for x in (one, other))
    a, b = a - a.mean(), b - b.mean()
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return bool(norm > 0 and (a @ b) / norm > 0.99999)


def _coarse(
    volumes: Mapping[str, Volume], spacing_mm: Sequence[float]
) -> tuple[dict[str, Volume], list[float]]:
    """On a coarse grid, cropped to the head; background 0, foreground from 1 / BINS to 1."""
    factors = [max(1, round(COARSE_MM / mm)) for mm in spacing_mm]
    coarse_mm = [float(mm * factor) for mm, factor in zip(spacing_mm, factors, strict=True)]
    scaled = {name: _scaled(_block_means(volume, factors)) for name, volume in volumes.items()}
    if not scaled:
        return {}, coarse_mm
    inside = np.argwhere(np.any([volume > 0 for volume in scaled.values()], axis=0))
    if len(inside) == 0:
        return {}, coarse_mm
    box = tuple(slice(low, high + 1) for low, high in zip(inside.min(0), inside.max(0), strict=True))
    return {name: volume[box] for name, volume in scaled.items()}, coarse_mm


def _block_means(volume: Volume, factors: Sequence[int]) -> Volume:
    sizes = [size // factor * factor for size, factor in zip(volume.shape, factors, strict=True)]
    if 0 in sizes:
        return np.zeros((1, 1, 1), np.float32)
    x, y, z = (size // factor for size, factor in zip(sizes, factors, strict=True))
    blocks = volume[: sizes[0], : sizes[1], : sizes[2]].reshape(x, factors[0], y, factors[1], z, factors[2])
    return blocks.mean(axis=(1, 3, 5), dtype=np.float32)


def _scaled(volume: Volume) -> Volume:
    corners = volume[
        :: max(volume.shape[0] - 1, 1), :: max(volume.shape[1] - 1, 1), :: max(volume.shape[2] - 1, 1)
    ]
    signal = np.abs(volume - np.median(corners))
    if not (signal > 0).any():
        return np.zeros_like(volume)
    inside = signal > 0.05 * np.percentile(signal[signal > 0], 99)
    low, high = np.percentile(volume[inside], [1, 99])
    scaled = np.clip((volume - low) / max(high - low, 1e-20), 0, 1) * (1 - 1 / BINS) + 1 / BINS
    return np.where(inside, scaled, 0).astype(np.float32)


class _Fit(NamedTuple):
    """How well two contrasts fit: the best shift of the second, its information, and that mirrored."""

    shift_mm: float
    information: float
    mirrored: float


def _fit(one: Volume, other: Volume, spacing_mm: Sequence[float]) -> _Fit:
    shift, information = _best_shift(one, other, spacing_mm)
    _, mirrored = _best_shift(one, other[::-1], spacing_mm)
    return _Fit(float(np.linalg.norm(np.multiply(shift, spacing_mm))), information, mirrored)


def _best_shift(one: Volume, other: Volume, spacing_mm: Sequence[float]) -> tuple[NDArray[np.float64], float]:
    """In voxels, with the information there: uphill from no shift and from equal centres, then in between."""
    centres = [np.array(ndimage.center_of_mass(volume > 0)) for volume in (one, other)]
    x, y, z = np.round(centres[0] - centres[1])
    starts: set[Shift] = {(0, 0, 0), (int(x), int(y), int(z))}
    known: dict[Shift, float] = {}

    def value(shift: Shift) -> float:
        if shift not in known:
            known[shift] = _information(one, other, shift)
        return known[shift]

    best = max((_uphill(start, value, spacing_mm) for start in starts), key=value)
    fine = np.array(best, dtype=np.float64)
    for axis in range(3):
        below, above = (value(_step(best, axis, by)) for by in (-1, 1))
        bend = below - 2 * value(best) + above
        if bend < 0:
            fine[axis] += np.clip((below - above) / (2 * bend), -0.5, 0.5)
    return fine, value(best)


def _uphill(start: Shift, value: Callable[[Shift], float], spacing_mm: Sequence[float]) -> Shift:
    here = start
    while True:
        around = [_step(here, axis, by) for axis in range(3) for by in (-1, 1)]
        around = [s for s in around if np.linalg.norm(np.multiply(s, spacing_mm)) <= FARTHEST_MM]
        best = max([here, *around], key=value)
        if best == here:
            return here
        here = best


def _step(shift: Shift, axis: int, by: int) -> Shift:
    moved = list(shift)
    moved[axis] += by
    return (moved[0], moved[1], moved[2])


def _information(one: Volume, other: Volume, shift: Shift) -> float:
    """Mutual information, in nats, where both have signal, after `other` was moved by whole voxels."""
    mine, theirs = [], []
    for size, by in zip(one.shape, shift, strict=True):
        mine.append(slice(max(by, 0), size + min(by, 0)))
        theirs.append(slice(max(-by, 0), size - max(by, 0)))
    a, b = one[tuple(mine)], other[tuple(theirs)]
    both = (a > 0) & (b > 0)
    if both.sum() < FEWEST_VOXELS:
        return 0.0
    rows, columns = ((x[both] * (BINS - 1)).astype(np.intp) for x in (a, b))
    joint = np.bincount(rows * BINS + columns, minlength=BINS * BINS).reshape(BINS, BINS) / len(rows)
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    some = joint > 0
    return float((joint[some] * np.log(joint[some] / independent[some])).sum())


def _flips(fits: Mapping[tuple[str, str], _Fit]) -> list[Finding]:
    """Pairs that fit better mirrored; of three and more contrasts the one that all of these pairs have."""
    worse = {pair: fit.mirrored / max(fit.information, 1e-9) for pair, fit in fits.items()}
    mirrored = [
        pair for pair, ratio in worse.items() if ratio > FLIP_GAIN and fits[pair].mirrored > LEAST_INFORMATION
    ]
    if not mirrored:
        return []
    culprits = set(mirrored[0]).intersection(*mirrored) if len(mirrored) > 1 else set(mirrored[0])
    names = tuple(name for name in ORDER if name in culprits) or mirrored[0]
    ratio = max(worse[pair] for pair in mirrored)
    text = (
        f"{' or '.join(names)} is mirrored, left for right: fits {ratio:.1f} times better so; convert it anew"
    )
    return [Finding("W_FLIP", names, ratio, text)]


def _shifts(fits: Mapping[tuple[str, str], _Fit], flipped: set[str]) -> list[Finding]:
    return [
        Finding(
            "W_SHIFT",
            pair,
            fit.shift_mm,
            f"{pair[1]} lies {fit.shift_mm:.1f} mm off {pair[0]}; register them",
        )
        for pair, fit in fits.items()
        if fit.shift_mm > SHIFT_MM and fit.information > LEAST_INFORMATION and not flipped & set(pair)
    ]


def _swaps(volumes: Mapping[str, Volume], spacing_mm: Sequence[float]) -> list[Finding]:
    """Contrasts that look like another, by fluid (bright or dark) and by white matter against cortex."""
    if not volumes:
        return []
    head = np.all([volume > 0 for volume in volumes.values()], axis=0)
    depth = ndimage.distance_transform_edt(np.pad(head, 1), spacing_mm)[1:-1, 1:-1, 1:-1]
    if (depth > DEPTH_MM).sum() < FEWEST_VOXELS:
        return []
    tails = {name: _tail(volume[depth > DEPTH_MM]) for name, volume in volumes.items()}
    found = []
    for darker, brighter in FLUID_BRIGHTER:
        if darker in tails and brighter in tails and tails[darker] - tails[brighter] > TAIL_MARGIN:
            found.append(_swap(darker, brighter, tails[darker] - tails[brighter], "fluid is brighter"))
    if found:
        return found
    if "t2" in tails and tails["t2"] < LEAST_T2_TAIL:
        text = "t2 looks like another contrast: its fluid is not bright; check the file"
        return [Finding("W_SWAP", ("t2",), tails["t2"], text)]
    is_stripped = head.sum() * np.prod(spacing_mm) < LARGEST_BRAIN_MM3
    if is_stripped and {"t1", "flair"} <= volumes.keys() and tails["t1"] > tails["flair"]:
        rim = (depth > RIM_MM[0]) & (depth < RIM_MM[1])
        white = {
            n: np.median(volumes[n][depth > DEPTH_MM]) / np.median(volumes[n][rim]) for n in ("t1", "flair")
        }
        if white["flair"] - white["t1"] > RIM_MARGIN:
            return [_swap("t1", "flair", float(white["flair"] - white["t1"]), "white matter is darker")]
    return []


def _swap(one: str, other: str, number: float, reason: str) -> Finding:
    text = f"{one} and {other} look exchanged: in the file called {one} {reason} ({number:.2f}); check both"
    return Finding("W_SWAP", (one, other), number, text)


def _tail(values: Volume) -> float:
    """Where the longer tail is: from -1, dark, to 1, bright. Fluid is a tail on T1 and on T2."""
    low, middle, high = np.percentile(values, [2, 50, 98])
    return float((high + low - 2 * middle) / (high - low)) if high > low else 0.0
