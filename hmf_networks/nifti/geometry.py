"""Where a volume lies: the matrix from voxels to millimetres, RAS+, and what speaks against it."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import nibabel
import numpy as np
from hmf_networks.nifti.codes import Complaint, Warned
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

GRID_TOLERANCE_MM = 0.1  # headers written by different tools differ by rounding, not by more
PIXDIM_TOLERANCE = 0.01  # of the voxel size
SHEAR_TOLERANCE = 1e-3  # cosine of the angle between two axes
QUATERNION_TOLERANCE = 1e-3  # of the length, above 1
LARGEST_MM = 1e5  # of an axis
FARTHEST_MM = 1e9
SMALLEST_VOXEL_MM = 1e-3
SINGULAR = 1e-6  # determinant over the product of the voxel sizes
MILLIMETRES = {1: 1000.0, 3: 0.001}  # of metres and micrometres, codes of nifti1.h
PLAUSIBLE_MM = (0.01, 50.0)  # voxel sizes that a wrong unit is told by

Affine = NDArray[np.float64]


@np.errstate(all="ignore")  # numbers out of a broken header may overflow; the checks tell
def geometry(raw: nibabel.Nifti1Header, shape: Sequence[int]) -> tuple[Affine, list[Warned]]:
    """The matrix (4, 4) in force: sform, else qform, else voxel sizes alone as nibabel lays them.

    Raises:
        Complaint: E_AFFINE.
    """
    raw = raw.copy()
    sizes = raw["pixdim"][1:4].astype(np.float64)
    has_sform, has_qform = int(raw["sform_code"]) > 0, int(raw["qform_code"]) > 0
    warnings = []
    if not has_sform and not (np.isfinite(sizes).all() and (sizes != 0).all()):
        raise Complaint("E_AFFINE", f"voxels of {_mm(sizes)}: its size is unknown")
    if (~np.isfinite(sizes) | (sizes <= 0)).any():
        warnings.append(Warned("W_PIXDIM", f"voxel sizes of {_mm(sizes)}; {_remedy(has_sform)}"))
    qform = _qform(raw)
    if has_sform:
        affine = raw.get_sform()
    elif has_qform:
        if qform is None:
            raise Complaint("E_AFFINE", "its qform is no rotation; where the volume lies is unknown")
        affine = qform
    else:
        raw["pixdim"][1:4] = np.abs(sizes)
        affine = raw.get_base_affine()
        warnings.append(Warned("W_NO_ORIENT", "neither qform nor sform is set: left and right are a guess"))
    affine = np.asarray(affine, dtype=np.float64)
    _check_usable(affine)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not _has(warnings, "W_PIXDIM") and (np.abs(lengths - sizes) > PIXDIM_TOLERANCE * lengths).any():
        problem = f"voxel sizes of {_mm(sizes)}, but its matrix says {_mm(lengths)}; the matrix counts"
        warnings.append(Warned("W_PIXDIM", problem))
    cosines = (affine[:3, :3] / lengths).T @ (affine[:3, :3] / lengths) - np.eye(3)
    if np.abs(cosines).max() > SHEAR_TOLERANCE:
        degrees = np.degrees(np.arcsin(min(1.0, np.abs(cosines).max())))
        warnings.append(Warned("W_SHEAR", f"its axes are {degrees:.1f} degrees off the right angle"))
    factor, more = _unit(int(raw["xyzt_units"]) & 7, lengths)
    affine[:3] *= factor
    _check_size(lengths * factor, shape)
    if has_sform and has_qform:
        warnings += _compare(affine, None if qform is None else np.diag([factor] * 3 + [1]) @ qform, shape)
    return affine, warnings + more


def farthest_corner_mm(shape: Sequence[int], affine: Affine, other: Affine) -> float:
    """The largest distance between the places that two matrices give the corners of a volume."""
    corners = np.array([(*corner, 1.0) for corner in itertools.product(*((0, size - 1) for size in shape))])
    return float(np.linalg.norm((corners @ (affine - other).T)[:, :3], axis=1).max())


class GridDifference(NamedTuple):
    """In words, and in mm at the farthest corner: inf where not even the shapes agree."""

    text: str
    mm: float


def grid_difference(
    shape: Sequence[int], affine: Affine, first_shape: Sequence[int], first_affine: Affine, first_name: str
) -> GridDifference | None:
    """How a grid differs from the first one; None where they are one, but for rounding."""
    if tuple(shape) != tuple(first_shape):
        text = f"grid {tuple(shape)} is not {tuple(first_shape)}, that of {first_name}"
        return GridDifference(text, math.inf)
    mm = farthest_corner_mm(shape, affine, first_affine)
    if mm <= GRID_TOLERANCE_MM:
        return None
    return GridDifference(f"its corners lie up to {mm:.2f} mm from those of {first_name}", mm)


def upright(values: NDArray[np.float32], affine: Affine) -> tuple[NDArray[np.float32], Affine]:
    """Axes swapped and flipped so that they run right, to the front and up; nothing is interpolated."""
    orientation = nibabel.io_orientation(affine)
    place = affine @ nibabel.orientations.inv_ornt_aff(orientation, values.shape)
    return nibabel.apply_orientation(values, orientation), place


def _has(warnings: Sequence[Warned], code: str) -> bool:
    return any(warned.code == code for warned in warnings)


def _qform(raw: nibabel.Nifti1Header) -> Affine | None:
    """As nifti1.h defines it, or None where it cannot be; pixdim[0] < 0 turns the third axis, 0 does not."""
    raw = raw.copy()
    raw["pixdim"][:4] = [-1 if raw["pixdim"][0] < 0 else 1, *np.abs(raw["pixdim"][1:4])]
    names = ("quatern_b", "quatern_c", "quatern_d")
    vector = np.array([raw[name] for name in names], dtype=np.float64)
    length = float(np.linalg.norm(vector))
    if not length <= 1 + QUATERNION_TOLERANCE:  # NaN is not, either
        return None
    if length > 1:
        for name, value in zip(names, vector / length, strict=True):
            raw[name] = value
    try:
        affine = np.asarray(raw.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError):
        return None
    return affine if np.isfinite(affine).all() else None


def _check_usable(affine: Affine) -> None:
    if not (np.abs(affine) < FARTHEST_MM).all():  # NaN is not, either
        raise Complaint("E_AFFINE", "its matrix holds numbers that are not finite or beyond all scanners")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not (lengths > 0).all() or abs(np.linalg.det(affine[:3, :3] / lengths)) < SINGULAR:
        raise Complaint("E_AFFINE", "its matrix is singular: two axes run the same way, or one has no length")


def _check_size(voxel_mm: Affine, shape: Sequence[int]) -> None:
    extent = voxel_mm * np.asarray(shape)
    if voxel_mm.min() < SMALLEST_VOXEL_MM or extent.max() > LARGEST_MM:
        raise Complaint("E_AFFINE", f"voxels of {_mm(voxel_mm)}: no scan is {_mm(extent)} large")


def _compare(affine: Affine, qform: Affine | None, shape: Sequence[int]) -> list[Warned]:
    if qform is None:
        return [Warned("W_QS_MISMATCH", "its qform is no rotation; the sform counts")]
    distance = farthest_corner_mm(shape, affine, qform)
    if distance <= GRID_TOLERANCE_MM:
        return []
    return [Warned("W_QS_MISMATCH", f"qform and sform lie up to {distance:.2f} mm apart; the sform counts")]


def _unit(code: int, lengths: Affine) -> tuple[float, list[Warned]]:
    """What to multiply lengths with to have millimetres; an unset unit means them."""
    if code in (0, 2):
        return 1.0, []
    factor = MILLIMETRES.get(code, 1.0)
    scaled = lengths * factor
    if not (PLAUSIBLE_MM[0] <= scaled.min() and scaled.max() <= PLAUSIBLE_MM[1]):
        factor = 1.0
    unit = {1: "metres", 3: "micrometres"}.get(code, f"an undefined unit ({code})")
    taken = "converted" if factor != 1.0 else "taken as millimetres, as they look"
    return factor, [Warned("W_UNITS", f"lengths in {unit}, {taken}")]


def _remedy(has_sform: bool) -> str:
    return "its matrix counts" if has_sform else "their absolute values are taken"


def _mm(values: Affine) -> str:
    return " x ".join(f"{value:g}" for value in values) + " mm"
