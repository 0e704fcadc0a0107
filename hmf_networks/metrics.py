"""How good is a predicted volume: PSNR, SSIM, MS-SSIM, NMSE and MAE under protocols that have names.

docs/evaluation.md defines the protocols. Shapes: volumes (X, Y, Z), the last axis runs over axial slices.
Values are in [0, 1] unless a docstring says otherwise; masks are boolean. An empty mask scores nan.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from monai.metrics.regression import RegressionMetric, compute_ssim_and_cs
from torch import Tensor
from torch.nn.functional import avg_pool2d, pad

METRICS = ("psnr", "ssim", "ms_ssim", "nmse", "mae")
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5  # Wang et al. 2004, and MONAI's defaults
SSIM_SLICES_AT_ONCE = 16  # bounds the memory of the five window means
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # finest scale first; Wang et al. 2003


def to_unit(intensity: Tensor) -> Tensor:
    """The network's range [-1, 1] mapped to [0, 1]; nothing is clipped."""
    return (intensity + 1) / 2


def psnr(prediction: Tensor, truth: Tensor, mask: Tensor | None = None, *, data_range: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB; inf for identical images, nan for an empty mask."""
    predicted, true = _voxels(prediction, truth, mask)
    mean_square = (predicted - true).square().mean().item()
    return math.inf if mean_square == 0 else 10 * math.log10(data_range**2 / mean_square)


def nmse(prediction: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Squared error over the truth's energy, sum d^2 / sum truth^2; nan where the truth has no energy."""
    predicted, true = _voxels(prediction, truth, mask)
    energy = true.square().sum().item()
    return math.nan if energy == 0 else (predicted - true).square().sum().item() / energy


def mae(prediction: Tensor, truth: Tensor, mask: Tensor | None = None) -> float:
    """Mean absolute error."""
    predicted, true = _voxels(prediction, truth, mask)
    return (predicted - true).abs().mean().item()


def ssim(prediction: Tensor, truth: Tensor, mask: Tensor | None = None, *, data_range: float = 1.0) -> float:
    """Mean of `ssim_map` over the mask of one volume (X, Y, Z); windows may reach out of the mask."""
    return _mean(ssim_map(prediction, truth, data_range=data_range), mask)


def ms_ssim(prediction: Tensor, truth: Tensor, mask: Tensor | None = None, *, data_range: float = 1.0) -> float:
    """Multi-scale SSIM over the mask of one volume (X, Y, Z): 2-D in every slice, five scales by halving.

    The contrast-structure term of each scale, at the coarsest SSIM, is averaged over the mask, then the
    product of their powers `MS_SSIM_WEIGHTS` is taken. Scales at which the plane is smaller than the window
    are left out and the other weights brought to a sum of 1: below 176 pixels fewer than five scales, below
    22 plain SSIM.
    """
    return _over_scales(structure_maps(prediction, truth, data_range=data_range).scales, mask)


def ssim_map(prediction: Tensor, truth: Tensor, *, data_range: float = 1.0) -> Tensor:
    """Structural similarity of every voxel, slice by slice in 2-D: (X, Y, Z) -> (X, Y, Z) in [-1, 1].

    Gaussian window 11 x 11, sigma 1.5; planes are padded by repeating their border (5 pixels), so the map is
    as large as the plane. From five pixels inside on, it equals MONAI's SSIM of the slice.
    """
    return structure_maps(prediction, truth, data_range=data_range, num_scales=1).ssim


class Structure(NamedTuple):
    """What SSIM and MS-SSIM are averaged from.

    Attributes:
        ssim: SSIM of every voxel (X, Y, Z).
        scales: finest first, (X / 2^s, Y / 2^s, Z): contrast and structure alone, at the coarsest SSIM.
    """

    ssim: Tensor
    scales: list[Tensor]


def structure_maps(
    prediction: Tensor, truth: Tensor, *, data_range: float = 1.0, num_scales: int | None = None
) -> Structure:
    """SSIM and its parts at every voxel of (X, Y, Z); by default at as many scales as the plane has."""
    _check_volumes(prediction, truth)
    if num_scales is None:
        side = min(truth.shape[:2])
        num_scales = sum(side >> scale >= SSIM_WINDOW for scale in range(len(MS_SSIM_WEIGHTS)))
    predicted, true = _plain(prediction).float(), _plain(truth).float()
    maps = []
    for _ in range(max(1, num_scales)):
        maps.append(_ssim_and_contrast(predicted, true, data_range))
        predicted, true = _halved(predicted), _halved(true)
    return Structure(maps[0][0], [contrast for _, contrast in maps[:-1]] + [maps[-1][0]])


def volume_scores(prediction: Tensor, truth: Tensor, regions: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """Protocol `volume` of one volume (X, Y, Z): {"whole": {"psnr", "ssim", ...}, "brain": ...}.

    `regions` are boolean masks of the volume's shape, {"brain": ..., "label": ...}; "whole" is always added.
    """
    _check_volumes(prediction, truth)
    if "whole" in regions:
        raise ValueError("region 'whole' is every voxel and is added here; give that mask another name")
    structure = structure_maps(prediction, truth)
    masks: dict[str, Tensor | None] = {"whole": None, **regions}
    return {name: _scores(prediction, truth, structure, mask) for name, mask in masks.items()}


def slice_scores(prediction: Tensor, truth: Tensor, foreground: Tensor) -> dict[str, float]:
    """Protocol `slice`: mean over the axial slices that hold foreground, each scored whole.

    One identical slice makes the mean PSNR inf; a slice whose truth is zero everywhere has no NMSE and is
    left out of that mean only.
    """
    _check_volumes(prediction, truth)
    _check_mask(foreground, truth)
    structure = structure_maps(prediction, truth)
    slices = _plain(foreground).flatten(0, 1).any(dim=0).nonzero().flatten().tolist()
    scores = [_scores(prediction[..., [z]], truth[..., [z]], _slice(structure, z), None) for z in slices]
    return {
        name: torch.tensor([score[name] for score in scores], dtype=torch.float64).nanmean().item() for name in METRICS
    }


def affine_fit(prediction: Tensor, truth: Tensor, mask: Tensor) -> Tensor:
    """Protocol `affine`: the prediction after the scale and offset that fit the truth best inside the mask.

    Least squares with scale >= 0: a scanner never turns contrast over, so an inverted image earns nothing.
    The map is applied inside the mask, background stays background; the result is not clipped.
    """
    predicted, true = _voxels(prediction, truth, mask)
    if predicted.numel() == 0:
        raise ValueError("the mask is empty: there is nothing to fit the scale and offset to")
    scale = 0.0
    if predicted.min() < predicted.max():
        deviation = predicted - predicted.mean()
        scale = max(0.0, (deviation @ (true - true.mean()) / (deviation @ deviation)).item())
    offset = (true.mean() - scale * predicted.mean()).item()
    prediction = _plain(prediction)
    return torch.where(_plain(mask), prediction * scale + offset, prediction)


class _ScoreMetric(RegressionMetric):
    """MONAI's regression metric, but nan where no item has a score: MONAI would say 0, for NMSE the best."""

    def aggregate(self, reduction: str | None = None) -> Tensor | tuple[Tensor, Tensor]:
        scores = self.get_buffer()
        if not isinstance(scores, Tensor) or not scores.isnan().all():
            return super().aggregate(reduction)
        nothing = scores.new_tensor(math.nan)
        return (nothing, scores.new_zeros(())) if self.get_not_nans else nothing


class NMSEMetric(_ScoreMetric):
    """`nmse` for each item of a batch (B, C, ...) in [0, 1], used like MONAI's PSNRMetric."""

    def _compute_metric(self, y_pred: Tensor, y: Tensor) -> Tensor:
        if y.min() < 0:
            raise ValueError(f"y reaches {y.min().item():.3g}; NMSE is defined on [0, 1]: apply `to_unit` first")
        scores = [[nmse(predicted, true)] for predicted, true in zip(_plain(y_pred), _plain(y), strict=True)]
        return torch.tensor(scores, device=y_pred.device)  # B 1


class VolumePSNR(_ScoreMetric):
    """Key metric of training: PSNR of volumes (B, 1, X, Y, Z) in [-1, 1] where the truth is above -1.

    Both are mapped to [0, 1] and the prediction is clipped. A volume without foreground does not count; a
    prediction that is not finite scores -inf, so that a diverged network is never the best one.
    """

    def _compute_metric(self, y_pred: Tensor, y: Tensor) -> Tensor:
        scores = [[self._score(predicted, true)] for predicted, true in zip(_plain(y_pred), _plain(y), strict=True)]
        return torch.tensor(scores, device=y_pred.device)  # B 1

    @staticmethod
    def _score(prediction: Tensor, truth: Tensor) -> float:
        if not prediction.isfinite().all():
            return -math.inf
        return psnr(to_unit(prediction).clamp(0, 1), to_unit(truth), truth > -1)


def _scores(prediction: Tensor, truth: Tensor, structure: Structure, mask: Tensor | None) -> dict[str, float]:
    return {
        "psnr": psnr(prediction, truth, mask),
        "ssim": _mean(structure.ssim, mask),
        "ms_ssim": _over_scales(structure.scales, mask),
        "nmse": nmse(prediction, truth, mask),
        "mae": mae(prediction, truth, mask),
    }


def _mean(values: Tensor, mask: Tensor | None) -> float:
    selected, _ = _voxels(values, values, mask)
    return selected.mean().item()


def _voxels(prediction: Tensor, truth: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The voxels of the mask as two vectors; on the CPU in float64: the same score on every device."""
    if prediction.shape != truth.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and truth {tuple(truth.shape)} differ in shape")
    prediction, truth = _plain(prediction).cpu().double(), _plain(truth).cpu().double()
    if mask is None:
        return prediction.flatten(), truth.flatten()
    _check_mask(mask, truth)
    mask = _plain(mask).cpu()
    return prediction[mask], truth[mask]


def _ssim_and_contrast(predicted: Tensor, true: Tensor, data_range: float) -> tuple[Tensor, Tensor]:
    """SSIM, and it without its brightness term, of every voxel of (X, Y, Z)."""
    maps = [
        compute_ssim_and_cs(
            _padded_slices(some),
            _padded_slices(same),
            spatial_dims=2,
            kernel_size=(SSIM_WINDOW, SSIM_WINDOW),
            kernel_sigma=(SSIM_SIGMA, SSIM_SIGMA),
            data_range=data_range,
        )
        for some, same in zip(
            torch.split(predicted, SSIM_SLICES_AT_ONCE, dim=-1),
            torch.split(true, SSIM_SLICES_AT_ONCE, dim=-1),
            strict=True,
        )
    ]
    ssims, contrasts = (torch.cat(parts).squeeze(1).movedim(0, -1) for parts in zip(*maps, strict=True))
    return ssims, contrasts  # Z 1 X Y -> X Y Z


def _over_scales(scales: Sequence[Tensor], mask: Tensor | None) -> float:
    weights = torch.tensor(MS_SSIM_WEIGHTS[: len(scales)], dtype=torch.float64)
    if mask is None:
        mask = torch.ones_like(scales[0], dtype=torch.bool)
    _check_mask(mask, scales[0])
    share = _plain(mask).cpu().double()  # of a pixel that lies in the mask
    means = []
    for terms in scales:
        means.append((terms.cpu() * share).sum() / share.sum())
        share = _halved(share)
    return (torch.stack(means).clamp(min=0) ** (weights / weights.sum())).prod().item()


def _slice(structure: Structure, z: int) -> Structure:
    return Structure(structure.ssim[..., [z]], [scale[..., [z]] for scale in structure.scales])


def _halved(volume: Tensor) -> Tensor:
    """X Y Z -> X/2 Y/2 Z, means of 2 x 2 pixels; at an odd border of those that there are."""
    planes = volume.movedim(-1, 0)
    return avg_pool2d(planes, kernel_size=2, ceil_mode=True, count_include_pad=False).movedim(0, -1)


def _padded_slices(volume: Tensor) -> Tensor:
    """X Y Z -> Z 1 X+10 Y+10, the borders repeated."""
    margin = SSIM_WINDOW // 2
    return pad(volume.movedim(-1, 0).unsqueeze(1), (margin,) * 4, mode="replicate")


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().as_subclass(Tensor)  # a MetaTensor would carry its affine through every step


def _check_volumes(prediction: Tensor, truth: Tensor) -> None:
    if prediction.shape != truth.shape or truth.ndim != 3:
        shapes = f"{tuple(prediction.shape)} and {tuple(truth.shape)}"
        raise ValueError(f"prediction and truth are {shapes}; wanted two volumes (X, Y, Z) of one shape")
    for name, volume in (("prediction", prediction), ("truth", truth)):
        if not volume.isfinite().all():
            raise ValueError(f"{name} has {(~volume.isfinite()).sum().item()} values that are not finite")


def _check_mask(mask: Tensor, truth: Tensor) -> None:
    if mask.dtype != torch.bool or mask.shape != truth.shape:
        raise ValueError(f"mask is {mask.dtype} {tuple(mask.shape)}; wanted torch.bool {tuple(truth.shape)}")
