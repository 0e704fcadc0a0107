"""A scan in hand, whatever file it came from, and the same for ITK.

Shapes: volumes (X, Y, Z); matrices (4, 4), of voxels or between points in mm, RAS+.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # ITK's and DICOM's axes, and back


class Scan(NamedTuple):
    """A volume and where it lies.

    Attributes:
        values: (X, Y, Z), finite; float32, but for masks.
        affine: (4, 4), from voxels to mm, RAS+.
    """

    values: NDArray[Any]
    affine: Affine


def spacing_mm(affine: Affine) -> NDArray[np.float64]:
    """Size of a voxel along its three axes."""
    return np.linalg.norm(affine[:3, :3], axis=0)


def to_itk(scan: Scan) -> Any:
    """As ITK has it: axes the other way round, LPS. The axes of the scan must be at right angles."""
    import itk

    image = itk.image_from_array(np.ascontiguousarray(scan.values.T))
    to_mm, spacing = LPS @ scan.affine, spacing_mm(scan.affine)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(to_mm[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(to_mm[:3, :3] / spacing)))
    return image


def from_itk(image: Any) -> Scan:
    """The inverse of `to_itk`."""
    import itk

    affine = np.eye(4)
    direction = itk.array_from_matrix(image.GetDirection())
    affine[:3, :3] = direction * np.asarray(image.GetSpacing())
    affine[:3, 3] = np.asarray(image.GetOrigin())
    return Scan(np.ascontiguousarray(itk.array_from_image(image).T, dtype=np.float32), LPS @ affine)
