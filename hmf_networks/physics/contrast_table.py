"""What each tissue of one person gives in each contrast, as some clinic takes it and by canonical protocols.

Shapes: T tissues (`head_tissues.NAMES`), C contrasts (`protocols.CANONICAL`, in this order).
"""

from __future__ import annotations

import numpy as np
from hmf_networks.physics.fields import Floats
from hmf_networks.physics.head_tissues import FLUIDS, NAMES, NUMBER, draw_head_tissues, draw_uptake
from hmf_networks.physics.protocols import CANONICAL, draw_any_protocols
from hmf_networks.physics.signal import Sequence, Tissue, signed_signal, with_gadolinium
from hmf_networks.physics.tissues import CSF_SHARE_OF_SPREAD, FIELDS_TESLA

FATTY = ("fat", "scalp", "marrow")
FAT_SUPPRESSED = {"t1": 0.1, "t1c": 0.3, "t2": 0.15, "flair": 0.5, "pd": 0.1}  # how often
CANONICAL_FAT = {"t1": 0.9, "t1c": 0.9, "t2": 1.3, "flair": 0.3, "pd": 1.0}  # times its signal equation
CONTRAST_JITTER = 0.04  # of each tissue in each source, as a logarithm: what three numbers do not tell of it
STEP = 0.02  # of the logarithms, for the slopes


def draw_table(rng: np.random.Generator) -> Floats:
    """(T, 4, 2 C): signed signal, and its growth with the logarithms of T1, T2 and PD.

    The first C columns are of random protocols, the others of the canonical ones.
    """
    field_tesla = float(rng.choice(FIELDS_TESLA))
    tissues, uptake = draw_head_tissues(rng, field_tesla), draw_uptake(rng)
    protocols = draw_any_protocols(rng, field_tesla)
    jitter = np.exp(CONTRAST_JITTER * rng.standard_normal((len(NAMES), len(CANONICAL))))
    fat = {contrast: _draw_fat(rng, suppressed) for contrast, suppressed in FAT_SUPPRESSED.items()}
    table = np.zeros((len(NAMES), 4, 2 * len(CANONICAL)))
    for name, tissue in tissues.items():
        share = CSF_SHARE_OF_SPREAD if name in FLUIDS else 1.0
        enhanced = with_gadolinium(tissue, uptake.get(name, 0.0))
        rows = table[NUMBER[name]]
        for column, contrast in enumerate(CANONICAL):
            of = enhanced if contrast == "t1c" else tissue
            own, canonical = (fat[contrast], CANONICAL_FAT[contrast]) if name in FATTY else (1.0, 1.0)
            own *= jitter[NUMBER[name], column]
            rows[:, column] = own * _with_slopes(of, protocols[contrast], share)
            rows[:, column + len(CANONICAL)] = canonical * _with_slopes(of, CANONICAL[contrast], share)
    return table.astype(np.float32)


def _draw_fat(rng: np.random.Generator, suppressed: float) -> float:
    """Factor on its signal: trains of echoes brighten it, saturation takes most of it away."""
    return float(rng.uniform(0.05, 0.4) if rng.random() < suppressed else rng.uniform(0.7, 1.5))


def _with_slopes(tissue: Tissue, sequence: Sequence, share: float) -> np.ndarray:
    value = signed_signal(tissue, sequence)
    slopes = [
        signed_signal(tissue._replace(**{part: getattr(tissue, part) * np.exp(STEP)}), sequence) - value
        for part in tissue._fields
    ]
    return np.array([value, *(share * slope / STEP for slope in slopes)])
