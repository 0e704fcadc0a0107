"""Volumes on disk side by side in three planes."""

from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import torch
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from hmf_networks.atomic import write_whole
from hmf_networks.nifti.geometry import GRID_TOLERANCE_MM
from hmf_networks.nifti.read import read_volume
from hmf_networks.transforms.intensity import scale_by_foreground
from hmf_networks.transforms.preview import three_planes_png


def draw_files(paths: Mapping[str, str], output_path: str | Path) -> None:
    """Draw caption -> NIfTI file, each scaled by its own foreground, as a PNG.

    Raises:
        ValueError: the volumes lie on different grids.
    """
    volumes: dict[str, NDArray[np.float32]] = {}
    affines: list[NDArray[np.float64]] = []
    for name, path in paths.items():
        values, affine = read_volume(path)
        orientation = nibabel.io_orientation(affine)
        scaled = scale_by_foreground(torch.from_numpy(values)).numpy()
        volumes[name] = nibabel.apply_orientation(scaled, orientation)
        affines.append(affine @ nibabel.orientations.inv_ornt_aff(orientation, values.shape))
        if volumes[name].shape != next(iter(volumes.values())).shape:
            raise ValueError(f"{path}: grid {volumes[name].shape} is not that of the first volume")
        if not np.allclose(affines[-1], affines[0], atol=GRID_TOLERANCE_MM):
            raise ValueError(f"{path} does not lie where the first volume does; resample it first")
    zooms = voxel_sizes(affine)
    spacing_mm = [float(zooms[int(axis)]) for axis in np.argsort(orientation[:, 0])]
    write_whole(output_path, three_planes_png(volumes, spacing_mm))
