"""Volumes through a network of slices: planes of the trained pixel size in, the source's own pixels out.

Shapes: B batch, S sources, volumes (B, S, X, Y, Z), Z' slices with signal, planes (Z', S, H, W).
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor
from tqdm import tqdm

from hmf_networks.engines.folding import Folded
from hmf_networks.engines.precision import check_precision, is_mixed
from hmf_networks.ops.coordinates import sample_plane
from hmf_networks.transforms.slices import (
    pad_planes,
    resample_planes,
    resampled_size,
    slice_axis,
    source_pixel_centres,
    voxel_spacing_mm,
)

DECODE = ("coordinates", "resample")


class SliceSynthesisInferer(Inferer):
    """Resample every plane to `pixel_mm`, pad it, run the network, and decode at the source's pixel centres.

    Nothing is cropped: a plane larger than `size` stays larger. Slices without signal are not run: all -1.

    Args:
        pixel_mm: pixel size the network was trained at.
        size: smallest plane, the one it was trained on.
        multiple: planes are padded to a multiple of it.
        batch_size: planes at a time.
        plane: "axial", or "acquisition" (`transforms/slices.py`).
        decode: "coordinates" asks the network at the source's pixel centres; "resample" interpolates its
            output at the trained pixel size, for networks that know no coordinates.
        precision: "fp32", "bf16", or "auto" (`engines/precision.py`); float32 comes out in any case.
        progress: show a progress bar over the slices.

    When the input is a MetaTensor, the spacing is read from its affine and the output has its meta data.
    """

    def __init__(
        self,
        *,
        pixel_mm: float = 1.0,
        size: tuple[int, int] = (256, 256),
        multiple: int = 16,
        batch_size: int = 4,
        plane: str = "axial",
        decode: str = "coordinates",
        precision: str = "fp32",
        progress: bool = False,
    ) -> None:
        super().__init__()
        if decode not in DECODE:
            raise ValueError(f"decode must be one of {DECODE}, got {decode!r}")
        self.pixel_mm, self.size, self.multiple = pixel_mm, (int(size[0]), int(size[1])), multiple
        self.batch_size, self.plane, self.decode, self.progress = batch_size, plane, decode, progress
        self.precision = check_precision(precision)
        self._folded = Folded()

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *_args: Any, **_kwargs: Any) -> Tensor:
        """(B, S, X, Y, Z) in [-1, 1] -> (B, out_channels, X, Y, Z)."""
        if inputs.dim() != 5:
            raise ValueError(f"inputs must be volumes (B, S, X, Y, Z), got {tuple(inputs.shape)}")
        ready = self._folded(network)
        prediction = torch.stack([self._volume(volume, ready) for volume in inputs])
        if isinstance(inputs, MetaTensor):  # Invertd passes over plain tensors: sides would be swapped
            return MetaTensor(prediction).copy_meta_from(inputs)
        return prediction

    def _volume(self, volume: Tensor, network: Callable[..., Tensor]) -> Tensor:
        spacing = voxel_spacing_mm(volume)
        axis = slice_axis(spacing, self.plane)
        in_plane_mm = [spacing[a] for a in range(3) if a != axis]
        planes = volume.as_subclass(Tensor).movedim(1 + axis, 0)  # Z S X Y
        with_signal = torch.nonzero((planes > -1).flatten(1).any(dim=1)).flatten()  # Z'
        synthesised = planes.new_full((len(planes), 1, *planes.shape[2:]), -1.0)
        batches = with_signal.split(self.batch_size)  # type: ignore[no-untyped-call]
        with self._autocast(planes.device):
            for chosen in tqdm(batches, desc="slices", disable=not self.progress, leave=False):
                decoded = self._planes(planes[chosen], in_plane_mm, network)
                if decoded.shape[1] != synthesised.shape[1]:
                    synthesised = synthesised.expand(-1, decoded.shape[1], -1, -1).clone()
                synthesised[chosen] = decoded.to(synthesised.dtype)
        return synthesised.movedim(0, 1 + axis)  # out X Y Z

    def _autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """As the caller has it for "fp32"."""
        if not is_mixed(device, self.precision):
            return nullcontext()
        return torch.autocast(device.type, torch.bfloat16)

    def _planes(self, planes: Tensor, in_plane_mm: list[float], network: Callable[..., Tensor]) -> Tensor:
        source_size = planes.shape[2:]
        size = [resampled_size(n, mm, self.pixel_mm) for n, mm in zip(source_size, in_plane_mm, strict=True)]
        padded = [max(have, least) for have, least in zip(size, self.size, strict=True)]
        padded = [-(-have // self.multiple) * self.multiple for have in padded]
        resampled, before = pad_planes(resample_planes(planes, (size[0], size[1])), (padded[0], padded[1]))
        rows, columns = (
            source_pixel_centres(n, m, b, planes.device)
            for n, m, b in zip(source_size, size, before, strict=True)
        )
        if self.decode == "coordinates":
            return network(resampled, coordinates=(rows, columns))
        return sample_plane(network(resampled), rows, columns)
