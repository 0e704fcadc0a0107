"""Sequence parameters of the five contrasts, as clinics set them, and their spread between scanners."""

from __future__ import annotations

import numpy as np

from hmf_networks.physics.signal import Sequence, nulling_time

T1_SPIN_ECHO = Sequence(tr=0.5, te=0.012)
# Magnetisation-prepared gradient echo, read as one inversion recovery: longer TI at 3 T, where T1 is longer.
T1_PREPARED = {1.5: Sequence(tr=2.1, te=0.004, ti=0.95), 3.0: Sequence(tr=2.3, te=0.004, ti=1.1)}
NOMINAL = {"t2": Sequence(tr=4.5, te=0.095), "pd": Sequence(tr=3.5, te=0.018)}
FLAIR = {"tr": 9.0, "te": 0.10}  # effective TE of a turbo readout
CSF_T1_SECONDS = 4.2  # what the operator's TI is meant to null

PREPARED_SHARE = 0.8  # of subjects whose T1 is a prepared gradient echo; the others have spin echo
TIME_SPREAD, INVERSION_SPREAD = 0.10, 0.03  # largest relative deviation of TR and TE, and of TI


def draw_protocols(rng: np.random.Generator, field_tesla: float) -> dict[str, Sequence]:
    """One subject's: {"t1": ..., "t1c": ..., "t2": ..., "flair": ..., "pd": ...}; t1c repeats t1."""
    t1 = _vary(rng, T1_PREPARED[field_tesla] if rng.random() < PREPARED_SHARE else T1_SPIN_ECHO)
    others = {name: _vary(rng, sequence) for name, sequence in NOMINAL.items()}
    flair = _vary(rng, Sequence(**FLAIR))
    null = nulling_time(CSF_T1_SECONDS, tr=flair.tr)
    return {"t1": t1, "t1c": t1, "flair": flair._replace(ti=null * _factor(rng, INVERSION_SPREAD))} | others


def _vary(rng: np.random.Generator, sequence: Sequence) -> Sequence:
    ti = None if sequence.ti is None else sequence.ti * _factor(rng, INVERSION_SPREAD)
    return Sequence(sequence.tr * _factor(rng, TIME_SPREAD), sequence.te * _factor(rng, TIME_SPREAD), ti)


def _factor(rng: np.random.Generator, spread: float) -> float:
    return float(rng.uniform(1 - spread, 1 + spread))
