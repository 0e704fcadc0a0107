"""Where in one scan lies what another shows: rigid, by mutual information (Mattes), of a patient's contrasts.

Coarse copies of both scans are fitted from several starts: as the headers say, middle on middle, and turned
about each axis. The best goes on at finer levels. Then the same the other way round: where both ways agree, the
answer can be trusted, and how far apart they are, on average over the head, is its quality.

Shapes: matrices (4, 4) between points in mm, RAS+.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from hmf_networks.ops.foreground import background_value, foreground
from hmf_networks.preparation.scan import LPS, Affine, Scan, spacing_mm, to_itk
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

RIM_MM = 4.0  # of the head, does not count: a skull strip may have cut all contrasts alike, wherever the brain lay
START_DEGREES = 14.0  # either way about each axis
LEVELS = ((4.0, 60_000), (2.0, 60_000), (1.0, 100_000))  # mm of a voxel, points that are looked at
NUM_BINS = 32
SEED = 1
NUM_POINTS = 5000  # of a head, that distances are averaged over
LEVER_MM = 60.0  # from the middle of a head to its cortex: a turn moves that by its angle times this
STEPS_MM = ((2.0, 0.1), (1.0, 0.02), (0.5, 0.005))  # of the search at each level, first and last
NUM_STEPS = 120
REFUSED_MM = 1.0  # ways that disagree by more have not found one head


class Registration(NamedTuple):
    """What was found.

    Attributes:
        matrix: (4, 4), from points of the fixed scan to those of the moving one.
        quality_mm: how far forward and backward registration lie apart, on average over the fixed head.
        information: mutual information in the end, in nats.
    """

    matrix: Affine
    quality_mm: float
    information: float

    @property
    def is_trusted(self) -> bool:
        return self.quality_mm <= REFUSED_MM


class _Pyramid(NamedTuple):
    """A scan at each of LEVELS, as ITK has them; points of its inside (N, 3) in mm; which voxels count."""

    images: list[Any]
    points: NDArray[np.float64]
    masks: list[Any]


def register(fixed: Scan, moving: Scan) -> Registration:
    """The same on every run: one thread, regular points.

    Raises:
        ValueError: there is no head in one of them, or they never overlap.
    """
    one, other = _pyramid(fixed), _pyramid(moving)
    forward, information = _find(one, other)
    backward, _ = _find(other, one)
    return Registration(forward, distance_mm(backward @ forward, np.eye(4), one.points), information)


def distance_mm(matrix: Affine, other: Affine, points: NDArray[np.float64]) -> float:
    """How far apart two matrices take points (N, 3), on average."""
    difference = (matrix - other)[:3]
    return float(np.linalg.norm(points @ difference[:, :3].T + difference[:, 3], axis=1).mean())


def inside_head(scan: Scan) -> NDArray[np.bool_]:
    """The head (X, Y, Z) without its rim, holes filled."""
    head = ndimage.binary_fill_holes(foreground(torch.from_numpy(scan.values)).numpy())
    depth_mm = ndimage.distance_transform_edt(np.pad(head, 1), spacing_mm(scan.affine))
    return np.asarray(depth_mm[1:-1, 1:-1, 1:-1] > RIM_MM)


def points_of(scan: Scan, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Some NUM_POINTS of a mask, in mm (N, 3)."""
    some = np.argwhere(inside)[:: max(1, int(inside.sum()) // NUM_POINTS)]
    return some @ scan.affine[:3, :3].T + scan.affine[:3, 3]


def _pyramid(scan: Scan) -> _Pyramid:
    inside = inside_head(scan)
    if not inside.any():
        raise ValueError("there is no head to register")
    points = points_of(scan, inside)
    background = background_value(torch.from_numpy(scan.values))
    levels = [coarser(Scan(scan.values - np.float32(background), scan.affine), size_mm) for size_mm, _ in LEVELS]
    shares = [coarser(Scan(inside.astype(np.float32), scan.affine), size_mm) for size_mm, _ in LEVELS]
    return _Pyramid([to_itk(level) for level in levels], points, [_mask(share) for share in shares])


def coarser(scan: Scan, size_mm: float) -> Scan:
    """Blurred and sampled to voxels of about this size along the axes that are finer; others stay."""
    spacing = spacing_mm(scan.affine)
    sigmas = np.where(spacing < size_mm, 0.5 * np.sqrt(np.maximum(0, (size_mm / spacing) ** 2 - 1)), 0)
    values = ndimage.gaussian_filter(scan.values, sigmas, mode="nearest") if sigmas.any() else scan.values
    steps = np.maximum(1, np.floor(size_mm / spacing + 0.1)).astype(int)
    affine = scan.affine @ np.diag([*steps, 1.0])
    return Scan(np.ascontiguousarray(values[:: steps[0], :: steps[1], :: steps[2]]), affine)


def _mask(share: Scan) -> Any:
    import itk

    image = to_itk(Scan((share.values > 0.5).astype(np.uint8), share.affine))
    mask = itk.ImageMaskSpatialObject[3].New()
    mask.SetImage(image)
    mask.Update()
    return mask


def _find(fixed: _Pyramid, moving: _Pyramid) -> tuple[Affine, float]:
    centre = fixed.points.mean(axis=0)
    best, information = max(
        (_improve(fixed, moving, 0, start, centre) for start in _starts(fixed, moving)), key=lambda found: found[1]
    )
    for level in range(1, len(LEVELS)):
        best, information = _improve(fixed, moving, level, best, centre)
    return best, information


def _starts(fixed: _Pyramid, moving: _Pyramid) -> Iterator[Affine]:
    centre = fixed.points.mean(axis=0)
    onto = np.eye(4)
    onto[:3, 3] = moving.points.mean(axis=0) - centre
    yield np.eye(4)
    yield onto
    for axis in "xyz":
        for degrees in (-START_DEGREES, START_DEGREES):
            yield onto @ about(centre, Rotation.from_euler(axis, degrees, degrees=True).as_matrix())


def about(centre: NDArray[np.float64], rotation: NDArray[np.float64]) -> Affine:
    """A turn that leaves `centre` where it is."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, centre - rotation @ centre
    return matrix


def _improve(
    fixed: _Pyramid, moving: _Pyramid, level: int, start: Affine, centre: NDArray[np.float64]
) -> tuple[Affine, float]:
    """From a start to the nearest best place, and the mutual information there; -inf where nothing overlaps."""
    import itk

    volume_type = itk.Image[itk.F, 3]
    transform = itk.Euler3DTransform[itk.D].New()
    transform.SetCenter((LPS[:3, :3] @ centre).tolist())
    in_lps = LPS @ start @ LPS
    transform.SetMatrix(itk.matrix_from_array(np.ascontiguousarray(in_lps[:3, :3])), 1e-6)
    transform.SetOffset(in_lps[:3, 3].tolist())
    metric = itk.MattesMutualInformationImageToImageMetricv4[volume_type, volume_type].New()
    metric.SetNumberOfHistogramBins(NUM_BINS)
    metric.SetFixedImageMask(fixed.masks[level])
    metric.SetUseFixedImageGradientFilter(False)
    metric.SetUseMovingImageGradientFilter(False)
    metric.SetMaximumNumberOfWorkUnits(1)
    first_mm, last_mm = STEPS_MM[level]
    optimizer = itk.RegularStepGradientDescentOptimizerv4[itk.D].New(
        learning_rate=first_mm, minimum_step_length=last_mm, number_of_iterations=NUM_STEPS
    )
    optimizer.SetReturnBestParametersAndValue(True)
    scales = itk.OptimizerParameters[itk.D](6)
    for number, scale in enumerate([LEVER_MM**2] * 3 + [1.0] * 3):
        scales.SetElement(number, scale)
    optimizer.SetScales(scales)
    method = itk.ImageRegistrationMethodv4[volume_type, volume_type].New(
        fixed_image=fixed.images[level],
        moving_image=moving.images[level],
        metric=metric,
        optimizer=optimizer,
        number_of_work_units=1,
    )
    method.SetInitialTransform(transform)
    method.InPlaceOn()
    method.SetNumberOfLevels(1)
    method.SetShrinkFactorsPerLevel([1])
    method.SetSmoothingSigmasPerLevel([0])
    num_voxels = int(np.prod(itk.size(fixed.images[level])))
    method.SetMetricSamplingStrategy(itk.ImageRegistrationMethodv4Enums.MetricSamplingStrategy_REGULAR)
    method.MetricSamplingReinitializeSeed(SEED)  # points are jittered, which spares the search the traps of a grid
    method.SetMetricSamplingPercentage(min(1.0, LEVELS[level][1] / num_voxels))
    try:
        method.Update()
    except RuntimeError:
        return start, -np.inf
    matrix = np.eye(4)
    matrix[:3, :3] = itk.array_from_matrix(transform.GetMatrix())
    matrix[:3, 3] = [transform.GetOffset()[axis] for axis in range(3)]
    return LPS @ matrix @ LPS, -float(optimizer.GetCurrentMetricValue())
