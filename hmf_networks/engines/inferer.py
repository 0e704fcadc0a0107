"""Volumes through a network of slices: planes of the trained pixel size in, the source's own pixels out.

Shapes: B batch, S sources, volumes (B, S, X, Y, Z), Z' slices with signal, planes (Z', S, H, W).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from hmf_networks.engines.memory import PlanesAtATime
from hmf_networks.engines.precision import check_precision, is_mixed
from hmf_networks.engines.ready import Ready
from hmf_networks.naming import check_switch
from hmf_networks.ops.availability import append_masks, available
from hmf_networks.ops.coordinates import sample_plane
from hmf_networks.transforms.slices import (
    foreground_box,
    pad_planes,
    resample_planes,
    resampled_size,
    slice_axis,
    source_pixel_centres,
    voxel_spacing_mm,
)
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor
from tqdm import tqdm

DECODE = ("coordinates", "resample")


class SliceSynthesisInferer(Inferer):
    """Resample every plane to `pixel_mm`, pad it, run the network, and decode at the source's pixel centres.

    Nothing is cropped: a plane larger than `size` stays larger. Slices without signal are not run: all -1.

    Args:
        pixel_mm: pixel size the network was trained at.
        size: smallest plane, the one it was trained on.
        multiple: planes are padded to a multiple of it.
        batch_size: planes at a time; None for as many as memory holds (`engines/memory.py`). Halved when it
            runs out all the same; one warning says so.
        plane: "axial", or "acquisition" (`transforms/slices.py`).
        decode: "coordinates" asks the network at the source's pixel centres; "resample" interpolates its
            output at the trained pixel size, for networks that know no coordinates.
        box: give the network the box around the signal instead of the whole plane. Only for networks that
            were trained so: means over the plane are a part of them.
        precision: "fp32", "bf16", or "auto" (`engines/precision.py`); float32 comes out in any case.
        masks: tell the network which sources there are in the whole volume, by a constant channel more for
            each (`ops/availability.py`).
        compile: compile the network at the first plane (`engines/ready.py`).
        progress: show a progress bar over the slices, on a terminal.

    When the input is a MetaTensor, the spacing is read from its affine and the output has its meta data.
    """

    def __init__(
        self,
        *,
        pixel_mm: float = 1.0,
        size: tuple[int, int] = (256, 256),
        multiple: int = 16,
        batch_size: int | None = None,
        plane: str = "axial",
        decode: str = "coordinates",
        box: bool = False,
        precision: str = "fp32",
        masks: bool = False,
        compile: bool = False,
        progress: bool = False,
    ) -> None:
        super().__init__()
        if decode not in DECODE:
            raise ValueError(f"decode must be one of {DECODE}, got {decode!r}")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, or null for what memory holds; got {batch_size}")
        self.pixel_mm, self.size, self.multiple = pixel_mm, (int(size[0]), int(size[1])), multiple
        self.plane, self.decode, self.progress = plane, decode, progress
        self._together = PlanesAtATime(batch_size)
        self.box = check_switch("foreground_box", box)
        self.precision = check_precision(precision)
        self.masks = check_switch("masks", masks)
        self._ready = Ready(compile=check_switch("compile", compile))

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *_args: Any, **_kwargs: Any) -> Tensor:
        """(B, S, X, Y, Z) in [-1, 1] -> (B, out_channels, X, Y, Z)."""
        if inputs.dim() != 5:
            raise ValueError(f"inputs must be volumes (B, S, X, Y, Z), got {tuple(inputs.shape)}")
        ready = self._ready(network)
        prediction = torch.stack([self._volume(volume, ready) for volume in inputs])
        if isinstance(inputs, MetaTensor):  # Invertd passes over plain tensors: sides would be swapped
            return MetaTensor(prediction).copy_meta_from(inputs)
        return prediction

    def _volume(self, volume: Tensor, network: Callable[..., Tensor]) -> Tensor:
        spacing = voxel_spacing_mm(volume)
        axis = slice_axis(spacing, self.plane)
        in_plane_mm = [spacing[a] for a in range(3) if a != axis]
        planes = volume.as_subclass(Tensor).movedim(1 + axis, 0)  # Z S X Y
        masks = available(volume.as_subclass(Tensor)[None]) if self.masks else None  # 1 S
        with_signal = torch.nonzero((planes > -1).flatten(1).any(dim=1)).flatten()  # Z'
        rows, columns = foreground_box(planes) if self.box else (slice(None), slice(None))
        padded = self._padded_size(self._resampled_size(planes[:, :, rows, columns], in_plane_mm))
        synthesised = planes.new_full((len(planes), 1, *planes.shape[2:]), -1.0)
        with self._autocast(planes.device), self._bar(len(with_signal)) as bar:
            while len(with_signal):
                chosen = with_signal[: self._together.number(padded, planes.device)]
                try:
                    decoded = self._planes(planes[chosen][:, :, rows, columns], in_plane_mm, network, masks)
                except (RuntimeError, MemoryError) as error:
                    self._together.ran_out(error, len(chosen), padded)
                    continue
                self._together.served(padded, planes.device, len(with_signal))
                if decoded.shape[1] != synthesised.shape[1]:
                    synthesised = synthesised.expand(-1, decoded.shape[1], -1, -1).clone()
                synthesised[chosen, :, rows, columns] = decoded.to(synthesised.dtype)
                with_signal = with_signal[len(chosen) :]
                bar.update(len(chosen))
        return synthesised.movedim(0, 1 + axis)  # out X Y Z

    def _bar(self, slices: int) -> tqdm:
        return tqdm(total=slices, desc="slices", disable=None if self.progress else True, leave=False)

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """As the caller has it for "fp32"."""
        if not is_mixed(device, self.precision):
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    def _planes(
        self, planes: Tensor, in_plane_mm: list[float], network: Callable[..., Tensor], masks: Tensor | None
    ) -> Tensor:
        source_size, size = planes.shape[2:], self._resampled_size(planes, in_plane_mm)
        resampled, before = pad_planes(resample_planes(planes, size), self._padded_size(size))
        if masks is not None:  # padded they would be no longer constant
            resampled = append_masks(resampled, masks.expand(len(planes), -1))
        rows, columns = (
            source_pixel_centres(n, m, b, planes.device) for n, m, b in zip(source_size, size, before, strict=True)
        )
        if self.decode == "coordinates":
            return network(resampled, coordinates=(rows, columns))
        return sample_plane(network(resampled), rows, columns)

    def _resampled_size(self, planes: Tensor, in_plane_mm: list[float]) -> tuple[int, int]:
        height, width = map(resampled_size, planes.shape[2:], in_plane_mm, (self.pixel_mm, self.pixel_mm))
        return height, width

    def _padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        height, width = (
            -(-max(have, least) // self.multiple) * self.multiple for have, least in zip(size, self.size, strict=True)
        )
        return height, width
