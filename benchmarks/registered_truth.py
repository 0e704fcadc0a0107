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
from hmf_networks.ops.foreground import background_value, foreground
from numpy.typing import NDArray
from scipy import ndimage

RIM_MM = 4.0  # of the heads, does not count
LEVELS = ((4, 2.0), (2, 1.0), (1, 0.5))  # coarse to fine: shrunk by, smoothed by mm
NUM_SAMPLES = 100_000  # points of a level
NUM_BINS = 32
FIRST_STEP_MM, LAST_STEP_MM, NUM_STEPS = 1.0, 0.002, 150  # of a level
LEVER_MM = 60.0  # from the middle of a head to its cortex: a turn moves that by its angle times this
SINC_VOXELS = 3  # how far the interpolation reaches
FARTHEST_MM = 12.0  # that contrasts of one session lie apart; beyond it the search has run away
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's axes, and back
SEED = 1

Affine = NDArray[np.float64]


class Placed(NamedTuple):
    """A volume and its matrix from voxels to mm."""

    values: NDArray[np.float32]
    affine: Affine


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
    source, truth = Placed(*read_volume(source_path)), Placed(*read_volume(truth_path))
    motion = find_motion(source, truth)
    write_volume_like(source_path, resampled(truth, source, motion.matrix), output_path)
    return motion


def find_motion(fixed: Placed, moving: Placed) -> Motion:
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


def resampled(moving: Placed, fixed: Placed, matrix: Affine) -> NDArray[np.float32]:
    """`moving` at the voxels of `fixed` by windowed sinc; around the head its background, exactly.

    Which voxels are head is interpolated apart. A sinc swings over at edges: values stay in the head's range.
    """
    import itk

    background = np.float32(background_value(torch.from_numpy(moving.values)))
    signal = moving.values - background
    head = signal != 0
    transform = itk.AffineTransform[itk.D, 3].New()
    to_moving = LPS @ matrix @ LPS
    transform.SetMatrix(itk.matrix_from_array(np.ascontiguousarray(to_moving[:3, :3])))
    transform.SetTranslation(to_moving[:3, 3].tolist())
    volume_type = itk.Image[itk.F, 3]
    window = itk.HammingWindowFunction[SINC_VOXELS]
    sinc = itk.WindowedSincInterpolateImageFunction[volume_type, SINC_VOXELS, window]
    interpolators = (sinc.New(), itk.LinearInterpolateImageFunction[volume_type, itk.D].New())
    values, share = (
        itk.array_from_image(
            itk.resample_image_filter(
                _image(values, moving.affine),
                transform=transform,
                interpolator=interpolator,
                reference_image=_image(fixed.values, fixed.affine),
                use_reference_image=True,
                number_of_work_units=1,
            )
        ).T
        for values, interpolator in zip((signal, head), interpolators, strict=True)
    )
    values = np.clip(values, signal[head].min(), signal[head].max())
    return np.where(share > 0.5, values, np.float32(0)) + background


def _search(fixed: Placed, moving: Placed, insides: list[NDArray[np.bool_]], middle: Affine) -> Affine:
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
        fixed_image=_image(fixed.values, fixed.affine),
        moving_image=_image(moving.values, moving.affine),
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


def _inside(volume: Placed) -> NDArray[np.bool_]:
    """The head without its rim."""
    head = ndimage.binary_fill_holes(foreground(torch.from_numpy(volume.values)).numpy())
    spacing_mm = np.linalg.norm(volume.affine[:3, :3], axis=0)
    return np.asarray(ndimage.distance_transform_edt(np.pad(head, 1), spacing_mm)[1:-1, 1:-1, 1:-1] > RIM_MM)


def _image(values: NDArray[Any], affine: Affine) -> Any:
    """As ITK has it: axes the other way round, LPS."""
    import itk

    image = itk.image_from_array(np.ascontiguousarray(values.T, dtype=np.float32))
    _place(image, affine)
    return image


def _mask(inside: NDArray[np.bool_], affine: Affine) -> Any:
    import itk

    image = itk.image_from_array(np.ascontiguousarray(inside.T, dtype=np.uint8))
    _place(image, affine)
    mask = itk.ImageMaskSpatialObject[3].New()
    mask.SetImage(image)
    mask.Update()
    return mask


def _place(image: Any, affine: Affine) -> None:
    import itk

    to_mm = LPS @ affine
    spacing_mm = np.linalg.norm(to_mm[:3, :3], axis=0)
    image.SetSpacing(spacing_mm.tolist())
    image.SetOrigin(to_mm[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(to_mm[:3, :3] / spacing_mm)))
