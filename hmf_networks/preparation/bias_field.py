"""N4: the smooth gain of the coil, divided out (Tustison et al., IEEE TMI 2010), by ITK.

The field is so smooth that a coarse copy of the scan tells it; it is then evaluated at every voxel.
"""

import numpy as np
import torch
from hmf_networks.ops.foreground import foreground
from hmf_networks.preparation.scan import Scan, from_itk, spacing_mm, to_itk
from numpy.typing import NDArray
from scipy import ndimage

SHRUNK_MM = 6.0  # voxels the field is sought on
SPACING_MM = 200.0  # of its control points, at the first of the levels; halved at each
NUM_ITERATIONS = (30, 30, 20)  # of a level
CONVERGED = 1e-3
SPLINE_ORDER = 3
WHOLLY = 0.99  # of a block in the head


def correct_bias(scan: Scan) -> tuple[Scan, NDArray[np.float32]]:
    """The scan without its bias field, and the field (X, Y, Z), of mean 1 over the head.

    Raises:
        ValueError: there is no head in it.
    """
    head = foreground(torch.from_numpy(scan.values)).numpy()
    if not head.any():
        raise ValueError("there is no head whose bias field could be found")
    field = np.exp(_log_field(scan, head)).astype(np.float32)
    field /= field[head].mean()
    return Scan(scan.values / field, scan.affine), field


def _log_field(scan: Scan, head: NDArray[np.bool_]) -> NDArray[np.float32]:
    import itk

    steps = [max(1, round(SHRUNK_MM / size_mm)) for size_mm in spacing_mm(scan.affine)]
    coarse = _blocks(Scan(np.where(head, scan.values, np.float32(0)), scan.affine), steps)
    shares = _blocks(Scan(head.astype(np.float32), scan.affine), steps)
    image, mask = to_itk(coarse), to_itk(Scan((shares.values > WHOLLY).astype(np.uint8), shares.affine))
    corrector = itk.N4BiasFieldCorrectionImageFilter[type(image), type(mask), type(image)].New(image, mask_image=mask)
    extent_mm = np.array(coarse.values.shape) * spacing_mm(coarse.affine)
    corrector.SetNumberOfControlPoints([int(np.ceil(size / SPACING_MM)) + SPLINE_ORDER for size in extent_mm])
    corrector.SetNumberOfFittingLevels([len(NUM_ITERATIONS)] * 3)
    corrector.SetMaximumNumberOfIterations(NUM_ITERATIONS)
    corrector.SetConvergenceThreshold(CONVERGED)
    corrector.SetNumberOfWorkUnits(1)
    corrector.Update()
    field = from_itk(corrector.ReconstructBiasField(corrector.GetLogBiasFieldControlPointLattice()))
    middle = (np.array(steps) - 1) / 2
    return ndimage.affine_transform(
        field.values, 1 / np.array(steps), -middle / steps, scan.values.shape, order=3, mode="nearest"
    )


def _blocks(scan: Scan, steps: list[int]) -> Scan:
    """Means of blocks of voxels; what is left over at the far ends is dropped."""
    counts = [size // step for size, step in zip(scan.values.shape, steps, strict=True)]
    kept = scan.values[tuple(slice(count * step) for count, step in zip(counts, steps, strict=True))]
    blocks = kept.reshape(*(n for pair in zip(counts, steps, strict=True) for n in pair))
    affine = scan.affine.copy()
    affine[:3, 3] += scan.affine[:3, :3] @ ((np.array(steps) - 1) / 2)
    affine[:3, :3] *= steps
    return Scan(np.ascontiguousarray(blocks.mean(axis=(1, 3, 5))), affine)
