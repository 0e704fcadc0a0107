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

# What a network is to make, whatever scanner its sources came from.
CANONICAL = {
    "t1": Sequence(tr=2.1, te=0.004, ti=0.95),
    "t1c": Sequence(tr=2.1, te=0.004, ti=0.95),
    "t2": Sequence(tr=5.0, te=0.10),
    "flair": Sequence(tr=9.0, te=0.11, ti=nulling_time(CSF_T1_SECONDS, tr=9.0)),
    "pd": Sequence(tr=3.5, te=0.018),
}

PREPARED_SHARE = 0.8  # of subjects whose T1 is a prepared gradient echo; the others have spin echo
TIME_SPREAD, INVERSION_SPREAD = 0.10, 0.03  # largest relative deviation of TR and TE, and of TI


def draw_protocols(rng: np.random.Generator, field_tesla: float) -> dict[str, Sequence]:
    """One subject's: {"t1": ..., "t1c": ..., "t2": ..., "flair": ..., "pd": ...}; t1c repeats t1."""
    t1 = _vary(rng, T1_PREPARED[field_tesla] if rng.random() < PREPARED_SHARE else T1_SPIN_ECHO)
    others = {name: _vary(rng, sequence) for name, sequence in NOMINAL.items()}
    flair = _vary(rng, Sequence(**FLAIR))
    null = nulling_time(CSF_T1_SECONDS, tr=flair.tr)
    return {"t1": t1, "t1c": t1, "flair": flair._replace(ti=null * _factor(rng, INVERSION_SPREAD))} | others


def draw_any_protocols(rng: np.random.Generator, field_tesla: float) -> dict[str, Sequence]:
    """Like `draw_protocols`, but of any clinic: sources that a trained network may meet."""
    tr = rng.uniform(5.0, 11.0)
    inversion = nulling_time(CSF_T1_SECONDS, tr=tr)
    t1 = _any_t1(rng, field_tesla)
    t1c = t1 if rng.random() < 0.7 else _any_t1(rng, field_tesla)
    return {
        "t1": t1,
        "t1c": t1c,
        "t2": Sequence(tr=rng.uniform(2.5, 8.0), te=rng.uniform(0.07, 0.13)),
        "flair": Sequence(tr=tr, te=rng.uniform(0.08, 0.16), ti=inversion * rng.uniform(0.92, 1.06)),
        "pd": Sequence(tr=rng.uniform(2.0, 5.0), te=rng.uniform(0.010, 0.035)),
    }


def _any_t1(rng: np.random.Generator, field_tesla: float) -> Sequence:
    kind = rng.choice(("prepared", "spin echo", "inverted", "gradient echo"), p=(0.4, 0.3, 0.15, 0.15))
    if kind == "prepared":
        return Sequence(
            tr=rng.uniform(1.7, 2.5), te=rng.uniform(0.003, 0.005), ti=rng.uniform(0.8, 0.95 + field_tesla / 15)
        )
    if kind == "inverted":  # "T1 FLAIR" of turbo readouts
        return Sequence(tr=rng.uniform(1.8, 2.6), te=rng.uniform(0.008, 0.025), ti=rng.uniform(0.70, 0.92))
    if kind == "gradient echo":
        return Sequence(tr=rng.uniform(0.008, 0.03), te=rng.uniform(0.002, 0.006), flip=rng.uniform(15, 30))
    return Sequence(tr=rng.uniform(0.40, 0.80), te=rng.uniform(0.008, 0.020))


def _vary(rng: np.random.Generator, sequence: Sequence) -> Sequence:
    ti = None if sequence.ti is None else sequence.ti * _factor(rng, INVERSION_SPREAD)
    return Sequence(sequence.tr * _factor(rng, TIME_SPREAD), sequence.te * _factor(rng, TIME_SPREAD), ti)


def _factor(rng: np.random.Generator, spread: float) -> float:
    return float(rng.uniform(1 - spread, 1 + spread))
