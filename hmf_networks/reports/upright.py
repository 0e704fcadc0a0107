"""Volumes on disk turned to RAS+: axes end right, in front and on top, the last runs over axial slices."""

from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from hmf_networks.nifti.codes import VolumeError
from hmf_networks.nifti.geometry import GRID_TOLERANCE_MM, farthest_corner_mm
from hmf_networks.nifti.read import read_volume


class Upright(NamedTuple):
    """A volume (X, Y, Z) in RAS+ with its affine (4, 4) in mm, and the file that it is from."""

    values: NDArray[np.float32]
    affine: NDArray[np.float64]
    path: str

    @property
    def spacing_mm(self) -> list[float]:
        return [float(size) for size in voxel_sizes(self.affine)]


def read_upright(path: str | Path) -> Upright:
    """Axes are swapped and flipped, nothing is interpolated. Raises VolumeError."""
    values, affine = read_volume(path)
    orientation = nibabel.io_orientation(affine)
    turned = affine @ nibabel.orientations.inv_ornt_aff(orientation, values.shape)
    return Upright(np.ascontiguousarray(nibabel.apply_orientation(values, orientation)), turned, str(path))


def check_same_grid(volume: Upright, first: Upright) -> None:
    """Raise VolumeError E_GRID unless `volume` has the shape of `first` and its corners within 0.1 mm."""
    shape, cure = first.values.shape, "resample it onto that grid"
    if volume.values.shape != shape:
        problem = f"grid {volume.values.shape} in RAS order is not {shape}, that of {first.path}"
        raise VolumeError("E_GRID", volume.path, problem, cure)
    distance_mm = farthest_corner_mm(shape, volume.affine, first.affine)
    if distance_mm > GRID_TOLERANCE_MM:
        problem = f"its corners lie up to {distance_mm:.2f} mm from those of {first.path}"
        raise VolumeError("E_GRID", volume.path, problem, cure)
