"""A true scan brought onto the grid and the head of a source: rigid registration by ITK (extra `prepare`).

For contrasts of one patient that lie a few millimetres off each other. The source is fixed; sought is where
each of its points lies in the truth: where the mutual information (Mattes) within both heads is largest. Only
the inside of the heads counts. The rim of a skull strip may have been cut once for all contrasts, and then it
rests where it is, however the brain in it moved.

Shapes: volumes (X, Y, Z); matrices (4, 4), of voxels or between points in mm, RAS+.
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hmf_networks.nifti.read import read_volume
from hmf_networks.nifti.write import write_volume_like
from hmf_networks.ops.foreground import foreground
from hmf_networks.preparation.regrid import regridded
from hmf_networks.preparation.scan import LPS, Affine, Scan, spacing_mm, to_itk
from numpy.typing import NDArray
from scipy import ndimage

RIM_MM = 4.0  # of the heads, does not count
LEVELS = ((4, 2.0), (2, 1.0), (1, 0.5))  # coarse to fine: shrunk by, smoothed by mm
NUM_SAMPLES = 100_000  # points of a level
NUM_BINS = 32
FIRST_STEP_MM, LAST_STEP_MM, NUM_STEPS = 1.0, 0.002, 150  # of a level
LEVER_MM = 60.0  # from the middle of a head to its cortex: a turn moves that by its angle times this
FARTHEST_MM = 12.0  # that contrasts of one session lie apart; beyond it the search has run away
SEED = 1


class Motion(NamedTuple):
    """From points of the source to those of the truth: the matrix; mm at the middle of the head; the turn."""

    matrix: Affine
    shift_mm: list[float]
    degrees: float


def can_register() -> bool:
    """Whether ITK is there, which takes long to load."""
    return find_spec("itk") is not None


def register_truth(truth_path: str | Path, source_path: str | Path, output_path: str | Path) -> Motion:
    """Write the truth as it looks on the grid of the source, once it is brought onto the head there.

    Raises:
        VolumeError: one of the files cannot be used.
        ValueError: no place was found within FARTHEST_MM.
    """
    source, truth = Scan(*read_volume(source_path)), Scan(*read_volume(truth_path))
    motion = find_motion(source, truth)
    write_volume_like(source_path, regridded(truth, source, motion.matrix).values, output_path)
    return motion


def find_motion(fixed: Scan, moving: Scan) -> Motion:
    """Rigid; the search begins where the headers say."""
    insides = [_inside(volume) for volume in (fixed, moving)]
    middle = fixed.affine @ [*ndimage.center_of_mass(insides[0]), 1.0]
    matrix = _search(fixed, moving, insides, middle)
    shift_mm = (matrix @ middle - middle)[:3]
    angle = float(np.arccos(np.clip((np.trace(matrix[:3, :3]) - 1) / 2, -1, 1)))
    distance_mm = float(np.linalg.norm(shift_mm)) + angle * LEVER_MM
    if not distance_mm < FARTHEST_MM:
        raise ValueError(f"registration went {distance_mm:.1f} mm away: the scans do not look like one head")
    return Motion(matrix, shift_mm.round(3).tolist(), round(float(np.degrees(angle)), 3))


def _search(fixed: Scan, moving: Scan, insides: list[NDArray[np.bool_]], middle: Affine) -> Affine:
    """The matrix of the best place near the identity; the same on every run: one thread, seeded points."""
    import itk

    volume_type = itk.Image[itk.F, 3]
    transform = itk.Euler3DTransform[itk.D].New()
    transform.SetCenter((LPS @ middle)[:3].tolist())
    metric = itk.MattesMutualInformationImageToImageMetricv4[volume_type, volume_type].New()
    metric.SetNumberOfHistogramBins(NUM_BINS)
    metric.SetFixedImageMask(_mask(insides[0], fixed.affine))
    metric.SetMovingImageMask(_mask(insides[1], moving.affine))
    metric.SetUseFixedImageGradientFilter(False)
    metric.SetUseMovingImageGradientFilter(False)
    metric.SetMaximumNumberOfWorkUnits(1)
    optimizer = itk.RegularStepGradientDescentOptimizerv4[itk.D].New(
        learning_rate=FIRST_STEP_MM, minimum_step_length=LAST_STEP_MM, number_of_iterations=NUM_STEPS
    )
    scales = itk.OptimizerParameters[itk.D](6)
    for number, scale in enumerate([LEVER_MM**2] * 3 + [1.0] * 3):
        scales.SetElement(number, scale)
    optimizer.SetScales(scales)
    shares = [min(1.0, NUM_SAMPLES * shrink**3 / insides[0].sum()) for shrink, _ in LEVELS]
    method = itk.ImageRegistrationMethodv4[volume_type, volume_type].New(
        fixed_image=to_itk(fixed),
        moving_image=to_itk(moving),
        metric=metric,
        optimizer=optimizer,
        number_of_work_units=1,
    )
    method.SetInitialTransform(transform)
    method.InPlaceOn()
    method.SetNumberOfLevels(len(LEVELS))
    method.SetShrinkFactorsPerLevel([shrink for shrink, _ in LEVELS])
    method.SetSmoothingSigmasPerLevel([sigma_mm for _, sigma_mm in LEVELS])
    method.SetSmoothingSigmasAreSpecifiedInPhysicalUnits(True)
    method.SetMetricSamplingStrategy(itk.ImageRegistrationMethodv4Enums.MetricSamplingStrategy_REGULAR)
    method.SetMetricSamplingPercentagePerLevel(shares)
    method.MetricSamplingReinitializeSeed(SEED)
    try:
        method.Update()
    except RuntimeError as error:
        raise ValueError(f"registration failed: {str(error).strip().splitlines()[-1]}") from error
    matrix = np.eye(4)
    matrix[:3, :3] = itk.array_from_matrix(transform.GetMatrix())
    matrix[:3, 3] = [transform.GetOffset()[axis] for axis in range(3)]
    return LPS @ matrix @ LPS


def _inside(volume: Scan) -> NDArray[np.bool_]:
    """The head without its rim."""
    head = ndimage.binary_fill_holes(foreground(torch.from_numpy(volume.values)).numpy())
    depth_mm = ndimage.distance_transform_edt(np.pad(head, 1), spacing_mm(volume.affine))
    return np.asarray(depth_mm[1:-1, 1:-1, 1:-1] > RIM_MM)


def _mask(inside: NDArray[np.bool_], affine: Affine) -> Any:
    import itk

    mask = itk.ImageMaskSpatialObject[3].New()
    mask.SetImage(to_itk(Scan(inside.astype(np.uint8), affine)))
    mask.Update()
    return mask
