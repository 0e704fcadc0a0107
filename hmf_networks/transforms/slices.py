"""Volumes to planes of a fixed pixel size, and the coordinates that lead back.

The planes are perpendicular to the last axis (axial after orientation to RAS). Shapes: volumes (C, X, Y, Z),
planes (B, C, H, W).
"""

import logging
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hmf_networks.naming import check_switch
from hmf_networks.ops.coordinates import pixel_centres
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

logger = logging.getLogger(__name__)

PLANES = ("axial", "acquisition")
THICK_SLICE = 1.8  # voxels longer than this many times their shortest side are thick slices
MIN_FOREGROUND_SHARE = 0.15  # of the fullest slice: a slice with less holds no brain worth learning from


def voxel_spacing_mm(volume: Tensor) -> list[float]:
    """Voxel size of a MetaTensor (C, X, Y, Z); 1 mm where nothing is known."""
    if not isinstance(volume, MetaTensor):
        return [1.0, 1.0, 1.0]
    return torch.linalg.vector_norm(volume.affine[:3, :3].double(), dim=0).tolist()


def slice_axis(spacing_mm: Sequence[float], plane: str = "axial") -> int:
    """Spatial axis (0, 1, 2) that the planes are perpendicular to, in RAS order.

    "axial" is always 2, with a warning where it cuts across thick slices; "acquisition" is the coarsest axis.
    """
    if plane not in PLANES:
        raise ValueError(f"plane must be one of {PLANES}, got {plane!r}")
    coarsest = int(np.argmax(spacing_mm))
    if spacing_mm[coarsest] < THICK_SLICE * min(spacing_mm):
        coarsest = 2
    if plane == "acquisition" or coarsest == 2:
        return coarsest
    logger.warning(
        "axial planes cut across slices that are %.1f mm thick; plane 'acquisition' would follow them", max(spacing_mm)
    )
    return 2


def resampled_size(size: int, spacing_mm: float, pixel_mm: float) -> int:
    """Pixels of about `pixel_mm` that cover `size` voxels of `spacing_mm`; unchanged when near enough."""
    return max(1, round(size * spacing_mm / pixel_mm))


def resample_planes(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cover the same field with `size` equal pixels (B, C, *size): linear, averaging where they grow.

    Background, -1, stays exactly that: the weights sum to one but for rounding, and of zero nothing is left.
    """
    if tuple(planes.shape[2:]) == tuple(size):
        return planes
    return F.interpolate(planes + 1, size=size, mode="bilinear", align_corners=False, antialias=True) - 1


def pad_planes(planes: Tensor, size: tuple[int, int], value: float = -1.0) -> tuple[Tensor, tuple[int, int]]:
    """Pad evenly to at least `size`; also returns how many rows and columns came before the first pixel."""
    missing = [max(0, wanted - have) for wanted, have in zip(size, planes.shape[2:], strict=True)]
    before = (missing[0] // 2, missing[1] // 2)
    padding = (before[1], missing[1] - before[1], before[0], missing[0] - before[0])
    return F.pad(planes, padding, value=value), before


def foreground_box(planes: Tensor) -> tuple[slice, slice]:
    """Fewest rows and columns of (B, C, H, W) in [-1, 1] that hold all signal; all where there is none."""
    signal = (planes > -1).flatten(0, 1).any(dim=0)
    if not signal.any():
        return slice(None), slice(None)
    occupied = (torch.nonzero(signal.any(dim=across)).flatten() for across in (1, 0))
    rows, columns = (slice(int(where[0]), int(where[-1]) + 1) for where in occupied)
    return rows, columns


def crop_planes(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """Cut out at most `size` around the centre."""
    start = [max(0, (have - wanted) // 2) for wanted, have in zip(size, planes.shape[2:], strict=True)]
    return planes[:, :, start[0] : start[0] + size[0], start[1] : start[1] + size[1]]


def source_pixel_centres(size: int, resampled: int, before: int, device: torch.device | None = None) -> Tensor:
    """Where the centres of `size` source pixels lie in a resampled and padded plane; in its pixels."""
    return pixel_centres(resampled, size, device) + before


class PlanesToGridd(MapTransform):
    """Bring the in-plane pixels of (C, X, Y, Z) to `pixel_mm`, then pad or crop the plane to `size`.

    Args:
        keys: volumes in [-1, 1], on one grid.
        pixel_mm: pixel size; a volume within half a pixel of it over the whole plane is not interpolated.
        size: plane size, e.g. [256, 256].
        plane: see `slice_axis`; the slice axis becomes the last.
        box: first cut out the box around the signal of the first key.
        finer: so many pixels in the place of one, along both axes, over the same field.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        pixel_mm: float = 1.0,
        size: Sequence[int] = (256, 256),
        plane: str = "axial",
        box: bool = False,
        finer: int = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.pixel_mm, self.plane = pixel_mm / finer, plane
        self.size = (int(size[0]) * finer, int(size[1]) * finer)
        self.box = check_switch("foreground_box", box)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        rows, columns = slice(None), slice(None)
        for number, key in enumerate(self.key_iterator(sample)):
            spacing = voxel_spacing_mm(sample[key])
            axis = slice_axis(spacing, self.plane)
            planes = sample[key].as_subclass(Tensor).movedim(1 + axis, 0)  # Z C H W
            if self.box and number == 0:
                rows, columns = foreground_box(planes)
            planes = planes[:, :, rows, columns]
            in_plane = [spacing[a] for a in range(3) if a != axis]
            height, width = (
                resampled_size(n, mm, self.pixel_mm) for n, mm in zip(planes.shape[2:], in_plane, strict=True)
            )
            planes = resample_planes(planes, (height, width))
            planes = crop_planes(pad_planes(planes, self.size)[0], self.size)
            sample[key] = planes.movedim(0, -1).contiguous()  # C H W Z
        return sample


class KeepBrainSlicesd(MapTransform):
    """Keep `num_slices` slices, evenly spread over those with brain in the first key; fewer are repeated.

    Every subject then has the same number of slices, and thick-slice scans weigh as much as thin ones.

    Args:
        keys: volumes (C, X, Y, Z) in [-1, 1], on one grid.
        num_slices: how many.
        plane: see `slice_axis`; None where the slice axis is the last already, after `PlanesToGridd`.
    """

    def __init__(
        self, keys: KeysCollection, *, num_slices: int = 60, plane: str | None = None, allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.num_slices, self.plane = num_slices, plane

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        first = sample[self.keys[0]]
        axis = 2 if self.plane is None else slice_axis(voxel_spacing_mm(first), self.plane)
        kept = brain_slices(first, axis)
        chosen = kept[torch.linspace(0, len(kept) - 1, self.num_slices).round().long()]
        for key in self.key_iterator(sample):
            sample[key] = sample[key].index_select(1 + axis, chosen)
        return sample


def brain_slices(volume: Tensor, axis: int = 2) -> Tensor:
    """Indices along a spatial axis of (C, X, Y, Z), in [-1, 1], of slices with a fair share of foreground.

    Every contrast that is there must have it: one may reach less far than the others.
    """
    across = [1 + a for a in range(3) if a != axis]
    areas = (volume.as_subclass(Tensor) > -1).sum(dim=across)  # C slices
    areas = areas[areas.any(dim=1)]
    fair = areas >= (MIN_FOREGROUND_SHARE * areas.amax(dim=1, keepdim=True)).clamp(min=1)
    return torch.nonzero(fair.all(dim=0)).flatten()
