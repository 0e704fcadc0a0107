"""Volumes on disk turned to RAS+: axes end right, in front and on top, the last runs over axial slices."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.nifti.geometry import grid_difference, upright
from hmf_networks.nifti.read import examine
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray


class Upright(NamedTuple):
    """A volume (X, Y, Z) in RAS+ with its affine (4, 4) in mm, and the file that it is from."""

    values: NDArray[np.float32]
    affine: NDArray[np.float64]
    path: str

    @property
    def spacing_mm(self) -> list[float]:
        return [float(size) for size in voxel_sizes(self.affine)]


def read_upright(path: str | Path, *, all_finite: bool = False) -> Upright:
    """Axes are swapped and flipped, nothing is interpolated.

    Raises:
        VolumeError: it cannot be used; with `all_finite` E_NONFINITE for values that others take as 0.
    """
    volume = examine(path)
    if all_finite and any(warned.code == "W_NONFINITE" for warned in volume.warnings):
        raise VolumeError("E_NONFINITE", path, "some values are NaN or infinite", "synthesise it again")
    values, affine = upright(volume.values, volume.header.affine)
    return Upright(np.ascontiguousarray(values), affine, str(path))


def check_same_grid(volume: Upright, first: Upright) -> None:
    """Raise VolumeError E_GRID unless both lie on one grid."""
    grids = (volume.values.shape, volume.affine, first.values.shape, first.affine)
    difference = grid_difference(*grids, first.path)
    if difference is not None:
        raise VolumeError("E_GRID", volume.path, difference.text, "resample it onto that grid")
