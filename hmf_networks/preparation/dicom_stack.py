"""Images of one series made stacks: parallel, in order, without gaps, or the reason why they are none.

Order is where the images lie, never their numbers or the names of their files. Lengths in mm, LPS until the affine.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from hmf_networks.nifti.codes import Complaint, Warned
from hmf_networks.preparation.dicom_headers import Image, words_in
from hmf_networks.preparation.scan import LPS, Affine
from numpy.typing import NDArray

SAME_DIRECTION_DEGREES = 1.0  # beyond it, another stack: localisers and two planes in one series
PARALLEL_DEGREES = 0.1  # within a stack; what rounding of the tags does is far below
TILT_DEGREES = 0.1  # 0.35 mm at the far end of 200 mm
SAME_PLACE_MM = 0.01
SHIFT_MM = 0.1  # of a slice from the line through the stack
UNEVEN = 0.05  # of the distance between slices
ECHO_MS = 0.2  # echo times nearer than that are one echo
COMPONENTS = frozenset("PRI")  # phase, real, imaginary: of a complex image, after its type


class Stack(NamedTuple):
    """Images in order, from the first to the last along the normal, and their affine (RAS+)."""

    images: tuple[Image, ...]
    affine: Affine
    warnings: tuple[Warned, ...]


def split(images: Sequence[Image]) -> list[list[Image]]:
    """By shape, echo, component and direction; a series of one plain scan stays whole."""
    alike: dict[Any, list[Image]] = defaultdict(list)
    echoes = _clustered(images, _echo, ECHO_MS)
    for image, echo in zip(images, echoes, strict=True):
        shape = (image.number("Rows"), image.number("Columns"))
        component = COMPONENTS & set(words_in(image.values, "ImageType")[2:])
        alike[(echo, image.text("EchoNumbers"), shape, tuple(sorted(component)))].append(image)
    return [stack for _, group in sorted(alike.items(), key=lambda item: str(item[0])) for stack in _directions(group)]


def stacked(images: Sequence[Image], same_pixels: Callable[[Image, Image], bool]) -> Stack:
    """Those images as one volume.

    Raises:
        Complaint: E_DICOM_TAGS, E_DICOM_SINGLE, E_DICOM_PARALLEL, E_DICOM_TWICE, E_DICOM_GAP, E_DICOM_TILT.
    """
    for image in images:
        _check_tags(image)
    _check_parallel(images)
    normal = images[0].normal
    ordered = sorted(images, key=lambda image: (float(_position(image) @ normal), image.name, image.frame or 0))
    kept = _once(ordered, normal, same_pixels)
    if len(kept) < 2:
        raise Complaint("E_DICOM_SINGLE", "it has one slice only")
    _check_gaps(kept, normal)
    warnings: tuple[Warned, ...] = ()
    if dropped := len(images) - len(kept):
        warnings = (Warned("W_DICOM_TWICE", f"{dropped} of {len(images)} images are there twice; one of each is used"),)
    return Stack(tuple(kept), _affine(kept, normal), warnings)


def _clustered(images: Sequence[Image], value: Callable[[Image], float], width: float) -> list[float]:
    """For each image the smallest value that its own is within `width` of."""
    starts: list[float] = []
    for number in sorted({value(image) for image in images}):
        if not starts or number - starts[-1] > width:
            starts.append(number)
    return [max(start for start in starts if start <= value(image)) for image in images]


def _echo(image: Image) -> float:
    return image.number("EchoTime") or 0.0


def _directions(images: Sequence[Image]) -> list[list[Image]]:
    stacks: list[list[Image]] = []
    for image in images:
        near = [stack for stack in stacks if _degrees_apart(stack[0], image) <= SAME_DIRECTION_DEGREES]
        if near:
            near[0].append(image)
        else:
            stacks.append([image])
    return stacks


def _degrees_apart(one: Image, other: Image) -> float:
    """The larger angle between their rows and between their columns; images without direction go together."""
    here, there = one.numbers("ImageOrientationPatient"), other.numbers("ImageOrientationPatient")
    if len(here) != 6 or len(there) != 6:
        return 0.0
    half_chords = (np.linalg.norm((here - there).reshape(2, 3), axis=1) / 2).clip(max=1.0)  # exact for small angles
    return float(np.degrees(2 * np.arcsin(half_chords)).max())


def _check_tags(image: Image) -> None:
    wanted = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2, "Rows": 1, "Columns": 1}
    for keyword, count in wanted.items():
        if len(image.numbers(keyword)) != count:
            frame = "" if image.frame is None else f" for its image {image.frame + 1}"
            raise Complaint("E_DICOM_TAGS", f"{image.name} has no usable {keyword}{frame}")
    if image.frame is None and (image.number("NumberOfFrames") or 1) > 1:
        raise Complaint("E_DICOM_TAGS", f"{image.name} has several images, but not where each of them lies")
    along, down = image.numbers("ImageOrientationPatient").reshape(2, 3)
    if abs(np.linalg.norm(along) - 1) > 1e-3 or abs(np.linalg.norm(down) - 1) > 1e-3 or abs(along @ down) > 1e-3:
        raise Complaint("E_DICOM_TAGS", f"{image.name}: its ImageOrientationPatient are no two directions")
    if (image.numbers("PixelSpacing") <= 0).any():
        raise Complaint("E_DICOM_TAGS", f"{image.name}: its PixelSpacing is not above 0")


def _check_parallel(images: Sequence[Image]) -> None:
    first = images[0]
    for image in images:
        degrees = _degrees_apart(first, image)
        if degrees > PARALLEL_DEGREES:
            problem = f"{image.name} is turned by {degrees:.2f} degrees against {first.name}"
            raise Complaint("E_DICOM_PARALLEL", problem)
        if not np.allclose(image.numbers("PixelSpacing"), first.numbers("PixelSpacing"), rtol=1e-3):
            raise Complaint("E_DICOM_TAGS", f"{image.name} has pixels of another size than {first.name}")


def _position(image: Image) -> NDArray[np.float64]:
    return image.numbers("ImagePositionPatient")


def _once(
    ordered: Sequence[Image], normal: NDArray[np.float64], same_pixels: Callable[[Image, Image], bool]
) -> list[Image]:
    """Each image once. Two at one place must be the same image, in name or in every pixel."""
    kept = [ordered[0]]
    for image in ordered[1:]:
        last = kept[-1]
        if (_position(image) - _position(last)) @ normal >= SAME_PLACE_MM:
            kept.append(image)
        elif not (_same_name(image, last) or (_same_place(image, last) and same_pixels(image, last))):
            raise Complaint("E_DICOM_TWICE", f"{last.name} and {image.name} are different images of one place")
    return kept


def _same_name(one: Image, other: Image) -> bool:
    return (one.text("SOPInstanceUID"), one.frame) == (other.text("SOPInstanceUID"), other.frame)


def _same_place(one: Image, other: Image) -> bool:
    return bool(np.abs(_position(one) - _position(other)).max() < SAME_PLACE_MM)


def _check_gaps(images: Sequence[Image], normal: NDArray[np.float64]) -> None:
    heights = np.array([_position(image) @ normal for image in images])
    gaps = np.diff(heights)
    smallest = float(np.min(gaps))
    steps = np.maximum(np.round(gaps / smallest), 1)
    if np.abs(gaps - steps * smallest).max() > UNEVEN * smallest:
        problem = f"its slices lie {smallest:.2f} to {gaps.max():.2f} mm apart, which no number of lost slices explains"
        raise Complaint("E_DICOM_GAP", problem)
    holes = np.flatnonzero(steps > 1)
    if len(holes):
        places = ", ".join(f"{steps[k] - 1:.0f} between {images[k].name} and {images[k + 1].name}" for k in holes[:3])
        more = f", and in {len(holes) - 3} more places" if len(holes) > 3 else ""
        raise Complaint("E_DICOM_GAP", f"{steps.sum() - len(steps):.0f} slices are missing: {places}{more}")
    _check_every_other(images[0], smallest)


def _check_every_other(image: Image, step_mm: float) -> None:
    """Slices may be missing at even distances; the tags know how far apart they were measured.

    SpacingBetweenSlices should be from centre to centre, but some scanners give the gap alone: that is told by a
    thickness above it, and then nothing is.
    """
    spacing, thickness = image.number("SpacingBetweenSlices"), image.number("SliceThickness")
    if not spacing or not thickness or spacing < 0.99 * thickness:
        return
    steps = step_mm / spacing
    if round(steps) > 1 and abs(steps - round(steps)) < UNEVEN:
        problem = f"slices were measured {spacing:g} mm apart, and these are {step_mm:g} mm: most are missing"
        raise Complaint("E_DICOM_GAP", problem)


def _affine(images: Sequence[Image], normal: NDArray[np.float64]) -> Affine:
    positions = np.array([_position(image) for image in images])
    step = (positions[-1] - positions[0]) / (len(images) - 1)
    height = float(step @ normal)
    degrees = float(np.degrees(np.arctan2(np.linalg.norm(step - height * normal), height)))
    if degrees > TILT_DEGREES:
        raise Complaint("E_DICOM_TILT", f"its slices are shifted along their plane, by {degrees:.1f} degrees in all")
    shifts = np.linalg.norm(positions - positions[0] - np.outer(np.arange(len(images)), step), axis=1)
    sideways = float(shifts.max())
    if sideways > max(SHIFT_MM, UNEVEN * height):
        raise Complaint("E_DICOM_TILT", f"{images[int(shifts.argmax())].name} lies {sideways:.2f} mm off its place")
    along, down = images[0].numbers("ImageOrientationPatient").reshape(2, 3)
    row_mm, column_mm = images[0].numbers("PixelSpacing")  # between rows, then between columns
    affine = np.eye(4)
    affine[:3] = np.column_stack([along * column_mm, down * row_mm, normal * height, positions[0]])
    return LPS @ affine
