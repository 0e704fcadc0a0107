"""Read one volume from disk: finite float32 values and an affine that can be trusted, or one clear error.

Voxel values are scaled by slope and intercept. Shapes: (X, Y, Z).
"""

import logging
import zlib
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

logger = logging.getLogger(__name__)


class VolumeError(ValueError):
    """A volume that cannot be used; the message begins with a code and names the file and the cure."""

    def __init__(self, code: str, path: str | Path, problem: str) -> None:
        super().__init__(f"{code} {path}: {problem}")
        self.code = code


def read_volume(path: str | Path) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Values (X, Y, Z) and affine (4, 4) in mm, RAS+. A 4-D file with one volume counts as 3-D.

    Raises:
        VolumeError: E_MISSING, E_NOT_NIFTI, E_4D, E_DIM, E_TRUNCATED or E_NO_SIGNAL.
    """
    header = read_header(path)
    if header.get_data_dtype().kind not in "iuf":
        raise VolumeError(
            "E_DIM", path, f"its voxels are {header.get_data_dtype()}; a volume has plain numbers"
        )
    try:
        values = np.asarray(header.dataobj, dtype=np.float32)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise VolumeError(
            "E_TRUNCATED", path, f"its voxels cannot be read ({error}); fetch the file again"
        ) from error
    if values.ndim == 4 and values.shape[3] == 1:
        values = values[..., 0]
    if values.ndim == 4:
        raise VolumeError(
            "E_4D", path, f"{values.shape[3]} volumes in one file; write the one you mean to its own file"
        )
    if values.ndim != 3 or 0 in values.shape:
        raise VolumeError("E_DIM", path, f"shape {values.shape}; a volume has three axes")
    num_nonfinite = values.size - int(np.isfinite(values).sum())
    if num_nonfinite:
        logger.warning("W_NONFINITE %s: %d voxels that are not finite are taken as 0", path, num_nonfinite)
        values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    if values.min() == values.max():
        raise VolumeError(
            "E_NO_SIGNAL", path, f"every voxel is {values.flat[0]:g}; give a scan that holds an image"
        )
    return values, header.affine


def read_header(path: str | Path) -> nibabel.Nifti1Image:
    """The image with its header, voxels not yet read.

    Raises:
        VolumeError: E_MISSING or E_NOT_NIFTI.
    """
    if not Path(path).is_file():
        raise VolumeError("E_MISSING", path, "no such file; check the name in the folder or the datalist")
    try:
        image = nibabel.load(path)
    except (ImageFileError, HeaderDataError, OSError, EOFError, ValueError) as error:
        raise VolumeError("E_NOT_NIFTI", path, f"not a NIfTI volume ({error})") from error
    if not isinstance(image, nibabel.Nifti1Pair):
        raise VolumeError("E_NOT_NIFTI", path, f"{type(image).__name__} is not NIfTI; convert it first")
    return image
