"""Baselines without a network: what a method must beat before it has learned any anatomy.

They are called like the networks: sources (B, S, H, W) in [-1, 1] -> target (B, 1, H, W) in [-1, 1].
Background is where every source is at -1. Any number of spatial axes will do.
"""

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from hmf_networks.ops.availability import available
from torch import Tensor, nn


class CopySource(nn.Module):
    """One of the sources, unchanged: that of the index, or the last that is there."""

    def __init__(self, source_index: int | None = None) -> None:
        super().__init__()
        if source_index is not None and source_index < 0:
            raise ValueError(f"source_index {source_index} is negative; sources are counted from 0")
        self.source_index = source_index

    def forward(self, image: Tensor) -> Tensor:
        if self.source_index is None:
            there = torch.arange(image.shape[1], device=image.device) * available(image)  # B S
            return image[torch.arange(len(image)), there.argmax(dim=1)].unsqueeze(1)
        if image.shape[1] <= self.source_index:
            raise ValueError(f"source_index {self.source_index}, but the image has {image.shape[1]} sources")
        return image[:, self.source_index : self.source_index + 1]


class VoxelwiseLinear(nn.Module):
    """Weighted sum of the sources plus a bias, alike at every voxel, as `fit_voxelwise_linear` finds it."""

    weight: Tensor  # S
    bias: Tensor  # scalar

    def __init__(self, num_sources: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.full((num_sources,), 1 / num_sources))
        self.register_buffer("bias", torch.zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[1] != len(self.weight):
            raise ValueError(f"the image has {image.shape[1]} sources, the weights are for {len(self.weight)}")
        combined = torch.einsum("bs...,s->b...", image, self.weight.to(image)) + self.bias.to(image)
        foreground = (image > -1).any(dim=1)
        background = torch.full_like(combined, -1)
        return torch.where(foreground, combined.clamp(-1, 1), background).unsqueeze(1)


def fit_voxelwise_linear(pairs: Iterable[tuple[Tensor, Tensor]]) -> VoxelwiseLinear:
    """Least squares over the foreground voxels of all pairs, read once and one at a time.

    A pair is an image (S, ...) and a label (1, ...) of any one spatial shape, in [-1, 1], without batch axis.
    The normal equations are summed in float64. Equal sources share the weight (minimum norm).
    """
    gram, moment = torch.zeros(()), torch.zeros(())
    for image, label in pairs:
        if label.shape != (1, *image.shape[1:]):
            wanted = (1, *image.shape[1:])
            raise ValueError(f"label {tuple(label.shape)} does not match the image; wanted {wanted}")
        if gram.ndim and len(gram) != len(image) + 1:
            raise ValueError(f"an image has {len(image)} sources, those before it {len(gram) - 1}")
        voxels, target = _foreground_rows(image, label)
        gram, moment = gram + voxels.T @ voxels, moment + voxels.T @ target
    if gram.ndim == 0 or gram[-1, -1] == 0:
        raise ValueError("no foreground voxel in any pair: there is nothing to fit")
    if not (gram.isfinite().all() and moment.isfinite().all()):
        raise ValueError("a pair has foreground values that are not finite")
    solution = torch.linalg.lstsq(gram, moment[:, None], rcond=1e-12, driver="gelsd").solution[:, 0]
    model = VoxelwiseLinear(len(solution) - 1)
    model.weight.copy_(solution[:-1])
    model.bias.copy_(solution[-1])
    return model


def fit_voxelwise_linear_on(
    records: Iterable[Mapping[str, str]], preprocessing: Callable[[Any], Any], targets: Sequence[str]
) -> Callable[[Tensor], Tensor]:
    """A regression for each target over whole training subjects, read when it is first called, one at a time.

    `records` tell their `target`. What it is called with gives (B, T, ...); of a target that no record has, a
    copy.
    """

    @functools.cache
    def fitted() -> list[nn.Module]:
        return [_fitted_or_copy([r for r in records if r["target"] == name], preprocessing) for name in targets]

    return lambda image: torch.cat([model(image) for model in fitted()], dim=1)


def _fitted_or_copy(records: Sequence[Mapping[str, str]], preprocessing: Callable[[Any], Any]) -> nn.Module:
    volumes = (preprocessing(record) for record in records)
    if not records:
        return CopySource()
    return fit_voxelwise_linear((volume["image"], volume["label"]) for volume in volumes)


def _foreground_rows(image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Foreground voxels as rows [sources..., 1], shape (V, S + 1), and their targets (V,), in float64."""
    image, label = (x.detach().as_subclass(Tensor).cpu().flatten(1) for x in (image, label))
    foreground = (image > -1).any(dim=0)
    sources = image[:, foreground].double()
    rows = torch.cat([sources, torch.ones_like(sources[:1])]).T
    return rows, label[0, foreground].double()
