"""A rough brain mask, by thresholds and morphology alone. Shapes: volumes (C, X, Y, Z), slices perpendicular to Z."""

from collections.abc import Sequence

import numpy as np
from hmf_networks.ops.foreground import foreground
from scipy import ndimage
from torch import Tensor, from_numpy

DEEP_MM = 25.0  # from the air: brain and little else
TISSUE_SHARE = 0.6  # of what is usual that deep: bone, air and fluid are below
BRIDGE_MM = 3.5  # half the width of what is cut: vessels, nerves, muscle against the dura
RIM_MM = 3.0  # kept around: the fluid between the folds and the cortex that was dark
EXTRACTED_SHARE = 0.8  # of the foreground: with that much brain there is no skull


def brain_mask(volumes: Tensor, spacing_mm: Sequence[float]) -> Tensor | None:
    """(X, Y, Z) boolean, from (C, X, Y, Z) in which fluid is dark; None without signal, depth, or a skull.

    What is as bright as deep tissue in all of them is cut at narrow places, in the planes alone, since slices
    may be thick; of what hangs together the largest piece grows back, with a rim, its holes filled.
    """
    heads = [foreground(volume).numpy() for volume in volumes if volume.any()]
    if not heads:
        return None
    head = np.logical_and.reduce(heads)
    deep = _depth_mm(head, spacing_mm) > DEEP_MM
    if not deep.any():
        return None
    tissue = head
    for volume in volumes.numpy():
        if volume.any():
            tissue = tissue & (volume > TISSUE_SHARE * np.median(volume[deep]))
    pieces, _ = ndimage.label(_depth_mm(tissue, spacing_mm) > BRIDGE_MM)
    sizes = np.bincount(pieces.ravel())[1:]
    if not len(sizes):
        return None
    brain = _depth_mm(pieces != 1 + sizes.argmax(), spacing_mm) <= BRIDGE_MM + RIM_MM
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(brain, 2, 0)], axis=2)
    if (filled & head).sum() > EXTRACTED_SHARE * head.sum():
        return None
    return from_numpy(filled)


def _depth_mm(mask: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """How far voxels of a mask (X, Y, Z) are from the nearest of their plane outside; inf without any."""
    depth = np.full(mask.shape, np.inf)
    for number in np.flatnonzero(~mask.all(axis=(0, 1))):
        depth[..., number] = ndimage.distance_transform_edt(mask[..., number], sampling=spacing_mm[:2])
    return depth
