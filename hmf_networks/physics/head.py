"""A head as a label map gives it, made ready to be cut by any plane: tissue, distances, places for lesions.

Axes are right, front, up (RAS), voxels of 1 mm; points are in voxels of the map.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hmf_networks.physics.fields import Floats
from hmf_networks.physics.head_tissues import AIR, NUMBER, OUTSIDE, tissue_of_label
from numpy.typing import NDArray

LATTICE_MM, PUSH_REACH_MM = 3, 12.0  # of what changes slowly; how far the growth of ventricles reaches
FAR = 12  # mm from the brain, beyond which no extraction leaves anything
SULCUS_MM = 5.0  # half the width of the widest gap between brain tissue that an extraction keeps: sulci, fissures
SHRINKING = 32  # bit: cortex beside fluid, which atrophy turns into fluid
NUM_VOXELS = 6000  # that stand for all of a head when its percentiles are taken
REACH = 4  # voxels about each of them that are there too

VENTRICLES = (4, 5, 14, 15, 43, 44, 72)  # labels: lateral, third, fourth and fifth
Integers = NDArray[np.integer]


class Head(NamedTuple):
    """One person's map, cut to the box of the head."""

    tissue: NDArray[np.uint8]  # X Y Z, number in head_tissues.NAMES, and the bit SHRINKING
    distance: NDArray[np.uint8]  # X Y Z, mm from the closed brain; FAR and more as FAR
    from_ventricles: NDArray[np.uint8]  # x y z on a lattice of LATTICE_MM: mm
    push: Floats  # 3 x y z on that lattice: away from the ventricles
    voxels: Integers  # (NUM_VOXELS, 3), at least REACH from the map's border
    brain_low: Floats  # 3, the box around brain tissue
    brain_high: Floats


def make_head(labels: Integers) -> Head:
    """From the labels (X, Y, Z) of a whole head, RAS, 1 mm.

    Raises:
        ValueError: there is no brain in it.
    """
    from scipy.ndimage import binary_dilation

    tissue = tissue_of_label(int(labels.max()))[labels]
    window = _box(tissue != NUMBER[AIR], margin=8)
    labels, tissue = labels[window], tissue[window]
    no_brain = [NUMBER[name] for name in (AIR, "csf", "artery", "vein", *OUTSIDE)]
    brain = ~np.isin(tissue, no_brain)
    if brain.sum() < 100_000:
        raise ValueError("no brain in the label map: it has fewer than 0.1 litres of brain tissue")
    ventricles = np.isin(labels, VENTRICLES)
    distance = np.minimum(_from_closed(brain | ventricles), FAR).round().astype(np.uint8)
    fluid = tissue == NUMBER["csf"]
    cortex = (tissue == NUMBER["cortex"]) | (tissue == NUMBER["cerebellar cortex"])
    shrinking = cortex & binary_dilation(fluid, np.ones((3, 3, 3)))
    from_ventricles, push = _around_ventricles(ventricles)
    inner = (slice(REACH, -REACH),) * 3
    places = REACH + np.argwhere(tissue[inner] != NUMBER[AIR])
    voxels = np.random.default_rng(0).choice(places, NUM_VOXELS)
    low, high = (edge(np.nonzero(brain), axis=1) for edge in (np.min, np.max))
    return Head(
        tissue=tissue | (shrinking * np.uint8(SHRINKING)),
        distance=distance,
        from_ventricles=from_ventricles,
        push=push,
        voxels=voxels,
        brain_low=low.astype(np.float32),
        brain_high=high.astype(np.float32),
    )


def _from_closed(brain: NDArray[np.bool_]) -> Floats:
    """Mm (X, Y, Z) from the brain as an extraction takes it: whole, with the fluid between its folds."""
    from scipy.ndimage import distance_transform_edt

    around = distance_transform_edt(~brain) <= SULCUS_MM
    closed = distance_transform_edt(around) > SULCUS_MM
    return np.asarray(distance_transform_edt(~(brain | closed)), np.float32)


def _around_ventricles(ventricles: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], Floats]:
    """How far away they are, and the direction away from them, weaker with the distance; on the lattice."""
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    thin = ventricles[(slice(None, None, LATTICE_MM),) * 3]
    distance_mm = LATTICE_MM * distance_transform_edt(~thin)
    signed_mm = gaussian_filter(distance_mm - LATTICE_MM * distance_transform_edt(thin), 2.0 / LATTICE_MM)
    reach = np.exp(-((signed_mm / PUSH_REACH_MM) ** 2))
    push = np.stack([slope * reach for slope in np.gradient(signed_mm, LATTICE_MM)])
    return np.minimum(distance_mm, 255).astype(np.uint8), push.astype(np.float32)


def _box(inside: NDArray[np.bool_], *, margin: int) -> tuple[slice, ...]:
    occupied = np.nonzero(inside)
    return tuple(slice(max(int(where.min()) - margin, 0), int(where.max()) + margin + 1) for where in occupied)
