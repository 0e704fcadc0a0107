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


class Tissue(NamedTuple):
    """Relaxation times in seconds and relative proton density; each one number or one per voxel."""

    t1: Quantity
    t2: Quantity
    pd: Quantity


class Sequence(NamedTuple):
    """Repetition, echo and inversion time in seconds; without inversion time it is a spin echo."""

    tr: float
    te: float
    ti: float | None = None


def spin_echo(tissue: Tissue, *, tr: float, te: float) -> Quantity:
    return tissue.pd * (1 - np.exp(-tr / tissue.t1)) * np.exp(-te / tissue.t2)


def inversion_recovery(tissue: Tissue, *, tr: float, te: float, ti: float) -> Quantity:
    """Magnitude image, as scanners store it: a tissue past its null point turns bright again."""
    recovered = 1 - 2 * np.exp(-ti / tissue.t1) + np.exp(-tr / tissue.t1)
    return np.abs(tissue.pd * recovered) * np.exp(-te / tissue.t2)


def signal(tissue: Tissue, sequence: Sequence) -> Quantity:
    if sequence.ti is None:
        return spin_echo(tissue, tr=sequence.tr, te=sequence.te)
    return inversion_recovery(tissue, tr=sequence.tr, te=sequence.te, ti=sequence.ti)


def nulling_time(t1: float, *, tr: float) -> float:
    """Inversion time at which a tissue gives no signal: T1 ln 2 when TR is long, less when it is not."""
    return t1 * float(np.log(2) - np.log1p(np.exp(-tr / t1)))


def with_gadolinium(tissue: Tissue, concentration: Quantity) -> Tissue:
    """The tissue when it holds that much contrast agent: both rates grow in proportion to it."""
    return tissue._replace(
        t1=1 / (1 / tissue.t1 + RELAXIVITY_T1 * concentration),
        t2=1 / (1 / tissue.t2 + RELAXIVITY_T2 * concentration),
    )
