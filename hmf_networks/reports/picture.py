"""Volumes on disk side by side in three planes."""

from collections.abc import Mapping
from pathlib import Path

import torch
from hmf_networks.atomic import write_whole
from hmf_networks.reports.upright import check_same_grid, read_upright
from hmf_networks.transforms.intensity import scale_by_foreground
from hmf_networks.transforms.preview import three_planes_png


def draw_files(paths: Mapping[str, str], output_path: str | Path) -> None:
    """Draw caption -> NIfTI file, each scaled by its own foreground, as a PNG.

    Raises:
        VolumeError: a file that cannot be used, or E_GRID: the volumes lie on different grids.
    """
    volumes = {name: read_upright(path) for name, path in paths.items()}
    first = next(iter(volumes.values()))
    for volume in volumes.values():
        check_same_grid(volume, first)
    scaled = {name: scale_by_foreground(torch.from_numpy(volume.values)).numpy() for name, volume in volumes.items()}
    write_whole(output_path, three_planes_png(scaled, first.spacing_mm))
