"""Signal equations of magnetic resonance: what a tissue gives under a sequence.

All times are seconds, concentrations mmol/l. `pd` is the proton density relative to water, 0..1; the signal
has the same unit. Scalars and arrays mix freely.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Quantity = float | NDArray[np.floating[Any]]  # one number, or one per voxel

# Relaxivity of gadolinium chelates in blood plasma at 37 degrees, 1/(mmol/l)/s: 3.6-5.2 (Rohrer 2005).
RELAXIVITY_T1, RELAXIVITY_T2 = 4.5, 5.5
T2_STAR_SHARE = 0.6  # of T2: what an echo without refocusing decays with, in tissue far from air


class Tissue(NamedTuple):
    """Relaxation times in seconds and relative proton density; each one number or one per voxel."""

    t1: Quantity
    t2: Quantity
    pd: Quantity


class Sequence(NamedTuple):
    """Repetition, echo and inversion time in seconds, flip angle in degrees.

    With an inversion time it is an inversion recovery, with a flip angle a spoiled gradient echo, else a spin
    echo.
    """

    tr: float
    te: float
    ti: float | None = None
    flip: float | None = None


def spin_echo(tissue: Tissue, *, tr: float, te: float) -> Quantity:
    return tissue.pd * (1 - np.exp(-tr / tissue.t1)) * np.exp(-te / tissue.t2)


def gradient_echo(tissue: Tissue, *, tr: float, te: float, flip: float) -> Quantity:
    """Spoiled, in its steady state (Ernst 1966); `flip` in degrees."""
    turned, kept = np.sin(np.radians(flip)), np.cos(np.radians(flip))
    left = np.exp(-tr / tissue.t1)
    echo = np.exp(-te / (T2_STAR_SHARE * tissue.t2))
    return tissue.pd * turned * (1 - left) / (1 - kept * left) * echo


def inversion_recovery(tissue: Tissue, *, tr: float, te: float, ti: float) -> Quantity:
    """Magnitude image, as scanners store it: a tissue past its null point turns bright again."""
    return np.abs(_recovered(tissue, tr=tr, te=te, ti=ti))


def signal(tissue: Tissue, sequence: Sequence) -> Quantity:
    """Magnitude of a voxel that holds one tissue."""
    return np.abs(signed_signal(tissue, sequence))


def signed_signal(tissue: Tissue, sequence: Sequence) -> Quantity:
    """Below 0 where an inverted tissue has not come back yet: what adds up in a voxel of several tissues."""
    if sequence.ti is not None:
        return _recovered(tissue, tr=sequence.tr, te=sequence.te, ti=sequence.ti)
    if sequence.flip is not None:
        return gradient_echo(tissue, tr=sequence.tr, te=sequence.te, flip=sequence.flip)
    return spin_echo(tissue, tr=sequence.tr, te=sequence.te)


def _recovered(tissue: Tissue, *, tr: float, te: float, ti: float) -> Quantity:
    recovered = 1 - 2 * np.exp(-ti / tissue.t1) + np.exp(-tr / tissue.t1)
    return tissue.pd * recovered * np.exp(-te / tissue.t2)


def nulling_time(t1: float, *, tr: float) -> float:
    """Inversion time at which a tissue gives no signal: T1 ln 2 when TR is long, less when it is not."""
    return t1 * float(np.log(2) - np.log1p(np.exp(-tr / t1)))


def with_gadolinium(tissue: Tissue, concentration: Quantity) -> Tissue:
    """The tissue when it holds that much contrast agent: both rates grow in proportion to it."""
    return tissue._replace(
        t1=1 / (1 / tissue.t1 + RELAXIVITY_T1 * concentration), t2=1 / (1 / tissue.t2 + RELAXIVITY_T2 * concentration)
    )
