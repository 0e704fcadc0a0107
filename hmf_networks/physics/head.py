"""A head as a label map gives it, made ready to be cut by any plane: tissue, distances, places for lesions.

Axes are right, front, up (RAS), voxels of 1 mm; points are in voxels of the map.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hmf_networks.physics.fields import Floats
from hmf_networks.physics.head_tissues import AIR, NUMBER, OUTSIDE, tissue_of_label

PUSH_MM, PUSH_REACH_MM = 4, 12.0  # lattice of the growth of the ventricles, and how far it reaches
FAR = 12  # mm from brain tissue, beyond which no extraction leaves anything
SHRINKING = 32  # bit: cortex beside fluid, which atrophy turns into fluid
NUM_VOXELS = 8000  # that stand for all of a head when its percentiles are taken

Integers = NDArray[np.integer]


class Head(NamedTuple):
    """One person's map, cut to the box of the head."""

    tissue: NDArray[np.uint8]  # X Y Z, number in head_tissues.NAMES, and the bit SHRINKING
    distance: NDArray[np.uint8]  # X Y Z, mm from brain tissue; FAR and more as FAR
    from_ventricles: NDArray[np.uint8]  # X Y Z, mm
    push: Floats  # 3 x y z, on a lattice of PUSH_MM: away from the ventricles
    voxels: Integers  # (2, NUM_VOXELS) flat places of neighbours
    brain_low: Floats  # 3, the box around brain tissue
    brain_high: Floats


def make_head(labels: Integers) -> Head:
    """From the labels (X, Y, Z) of a whole head, RAS, 1 mm.

    Raises:
        ValueError: there is no brain in it.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    tissue = tissue_of_label(int(labels.max()))[labels]
    window = _box(tissue != NUMBER[AIR], margin=8)
    labels, tissue = labels[window], tissue[window]
    no_brain = [NUMBER[name] for name in (AIR, "csf", "artery", "vein", *OUTSIDE)]
    brain = ~np.isin(tissue, no_brain)
    if brain.sum() < 100_000:
        raise ValueError("no brain in the label map: it has fewer than 0.1 litres of brain tissue")
    distance = np.minimum(distance_transform_edt(~brain), FAR).round().astype(np.uint8)
    fluid = tissue == NUMBER["csf"]
    cortex = (tissue == NUMBER["cortex"]) | (tissue == NUMBER["cerebellar cortex"])
    shrinking = cortex & (distance_transform_edt(~fluid) <= 1.5)
    ventricles = np.isin(labels, (4, 5, 14, 43, 44, 72))
    from_ventricles = distance_transform_edt(~ventricles)
    signed = gaussian_filter((from_ventricles - distance_transform_edt(ventricles)).astype(np.float32), 2.0)
    thinned = (slice(None, None, PUSH_MM),) * 3
    reach = np.exp(-((signed / PUSH_REACH_MM) ** 2))
    push = np.stack([(slope * reach)[thinned] for slope in np.gradient(signed)]).astype(np.float32)
    rng = np.random.default_rng(0)
    first = rng.choice(np.flatnonzero(tissue != NUMBER[AIR]), NUM_VOXELS)
    steps = np.array([1, tissue.shape[2], tissue.shape[1] * tissue.shape[2]])
    second = np.minimum(first + rng.choice(steps, NUM_VOXELS), tissue.size - 1)
    low, high = (edge(np.nonzero(brain), axis=1) for edge in (np.min, np.max))
    return Head(
        tissue=tissue | (shrinking * np.uint8(SHRINKING)),
        distance=distance,
        from_ventricles=np.minimum(from_ventricles, 255).astype(np.uint8),
        push=push,
        voxels=np.stack([first, second]),
        brain_low=low.astype(np.float32),
        brain_high=high.astype(np.float32),
    )


def _box(inside: NDArray[np.bool_], *, margin: int) -> tuple[slice, ...]:
    occupied = np.nonzero(inside)
    return tuple(
        slice(max(int(where.min()) - margin, 0), int(where.max()) + margin + 1) for where in occupied
    )
