"""Slices of a volume as DICOM places them: cut like those of a template, positions and directions in LPS.

Shapes: volumes (X, Y, Z); in a slice X runs along its rows, to the next column, and Y along its columns.
"""

from itertools import permutations
from typing import Any

import numpy as np
from hmf_networks.preparation.dicom_write_source import Plane
from hmf_networks.preparation.scan import LPS, Scan, spacing_mm
from numpy.typing import NDArray

SHEAR = 1e-4  # cosine of two axes; more cannot be written


def check_grid(scan: Scan) -> None:
    """Raise ValueError for what no series of slices can hold."""
    if scan.values.ndim != 3 or 0 in scan.values.shape or max(scan.values.shape) >= 2**16:
        raise ValueError(f"a volume of shape {scan.values.shape}; a series holds three axes of 1 to 65535 voxels")
    sizes = spacing_mm(scan.affine)
    if not np.isfinite(scan.affine).all() or not (sizes > 0).all():
        raise ValueError("the affine of the volume has no directions; give it the affine of its sources")
    directions = scan.affine[:3, :3] / sizes
    shear = float(np.abs(directions.T @ directions - np.eye(3)).max())
    if shear > SHEAR:
        raise ValueError(f"the axes of the volume are sheared (cosine {shear:.2g}); resample it to a right-angled grid")


def cut_like(scan: Scan, plane: Plane) -> Scan:
    """The same volume, axes exchanged and turned round until they run as nearly as can be like those of `plane`."""
    wanted = np.stack([plane.row, plane.column, np.cross(plane.row, plane.column)])
    likeness = wanted @ (LPS @ scan.affine)[:3, :3] / spacing_mm(scan.affine)
    order = max(map(list, permutations(range(3))), key=lambda axes: np.abs(likeness[range(3), axes]).sum())
    signs = np.where(likeness[range(3), order] < 0, -1, 1)
    values = scan.values.transpose(order)
    turn = np.diag([*signs, 1]).astype(np.float64)
    turn[:3, 3] = np.where(signs < 0, np.array(values.shape) - 1, 0)
    turned = values[:: signs[0], :: signs[1], :: signs[2]]
    return Scan(turned, scan.affine[:, [*order, 3]] @ turn)


def corners(scan: Scan, index: int) -> NDArray[np.float64]:
    """Centres of three corner pixels (3, 3) of a slice: its first, the end of its first row and of its first column."""
    columns, rows, _ = scan.values.shape
    voxels = np.array([[0, 0, index, 1], [columns - 1, 0, index, 1], [0, rows - 1, index, 1]])
    return (voxels @ (LPS @ scan.affine).T)[:, :3]


def of_all_slices(scan: Scan, *, thickness_mm: float | None) -> dict[str, Any]:
    """Size, direction and spacing; without a thickness slices touch."""
    columns, rows, _ = scan.values.shape
    x_mm, y_mm, z_mm = spacing_mm(scan.affine)
    directions = (LPS @ scan.affine)[:3, :2] / (x_mm, y_mm)
    return {
        "Rows": rows,
        "Columns": columns,
        "ImageOrientationPatient": _decimals(directions.T.ravel()),
        "PixelSpacing": _decimals([y_mm, x_mm]),  # from row to row first
        "SpacingBetweenSlices": _decimals([z_mm])[0],
        "SliceThickness": _decimals([z_mm if thickness_mm is None else thickness_mm])[0],
    }


def of_one_slice(scan: Scan, index: int) -> dict[str, Any]:
    return {"InstanceNumber": index + 1, "ImagePositionPatient": _decimals(corners(scan, index)[0])}


def _decimals(numbers: Any) -> list[Any]:
    """As many digits as fit in DICOM's 16 characters."""
    from pydicom.valuerep import DSfloat

    return [DSfloat(float(number), auto_format=True) for number in numbers]
