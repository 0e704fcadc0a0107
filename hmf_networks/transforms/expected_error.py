"""How far a synthesised value is off, to be expected voxel by voxel: a log-linear scale of a few features.

The scale is fitted where the truth is known (`reports/calibration.py`) and travels in model.json as
`{"features": FEATURES, "coefficients": {"all": [...], "t2": [...]}, "factors": {"all": {"50": k, ...}}}`;
what a target has no entry for, "all" tells.

Shapes: volumes (X, Y, Z), in RAS+ or turned otherwise.
"""

import hashlib
import json
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import torch
from hmf_networks.naming import check_switch, targets_of
from hmf_networks.transforms.intensity import OUTPUT_MAXIMUM
from hmf_networks.transforms.slices import voxel_spacing_mm
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

FEATURES = (
    "1",
    "log spread",
    "log gradient",
    "level",
    "level^2",
    "one source",
    "one source * log spread",  # its ensemble has no member that lacks a source: another scale
)
COVERAGES = (50, 80, 95)  # percent
LEAST = 1e-3  # of the range of values: spreads and gradients (per mm) below are alike
POOLED = "all"


def error_features(volume: Tensor, spread: Tensor, spacing_mm: Sequence[float], num_sources: int) -> Iterator[Tensor]:
    """FEATURES of every voxel, one after the other; volume and spread as shares of the range of values."""
    log_spread = spread.clamp(min=LEAST).log()
    one_source = torch.full_like(volume, float(num_sources == 1))
    yield torch.ones_like(volume)
    yield log_spread
    yield gradient_per_mm(volume, spacing_mm).clamp(min=LEAST).log()
    yield volume
    yield volume.square()
    yield one_source
    yield one_source * log_spread


def gradient_per_mm(volume: Tensor, spacing_mm: Sequence[float]) -> Tensor:
    """Its magnitude; along an axis of one voxel there is none."""
    axes = [axis for axis in range(3) if volume.shape[axis] > 1]
    if not axes:
        return torch.zeros_like(volume)
    parts = torch.gradient(volume, spacing=[float(spacing_mm[axis]) for axis in axes], dim=axes)
    return torch.stack(parts).square().sum(dim=0).sqrt()


def expected_error(
    volume: Tensor,
    spread: Tensor,
    spacing_mm: Sequence[float],
    num_sources: int,
    *,
    calibration: Mapping[str, Any],
    target: str,
) -> Tensor:
    """The expected absolute error, like volume and spread a share of the range of values."""
    features = error_features(volume, spread, spacing_mm, num_sources)
    exponent = torch.zeros_like(volume)
    for coefficient, feature in zip(_of(calibration["coefficients"], target), features, strict=True):
        exponent += coefficient * feature
    return exponent.clamp(max=0.0).exp()  # no error is larger than the range


def interval_factors(calibration: Mapping[str, Any], target: str) -> dict[str, float]:
    """Percent -> k: so many truths lie within the value +- k times its expected error."""
    return {str(percent): float(k) for percent, k in _of(calibration["factors"], target).items()}


def check_calibration(calibration: Any) -> Mapping[str, Any]:
    """Raise ValueError for what cannot be relied on: model.json travels with the weights of strangers."""
    try:
        coefficients, factors = calibration["coefficients"], calibration["factors"]
        numbers = [float(c) for some in coefficients.values() for c in some]
        numbers += [float(some[str(percent)]) for some in factors.values() for percent in COVERAGES]
        is_sound = (
            tuple(calibration["features"]) == FEATURES
            and POOLED in coefficients
            and POOLED in factors
            and all(len(some) == len(FEATURES) for some in coefficients.values())
            and all(math.isfinite(number) for number in numbers)
        )
    except (TypeError, KeyError, ValueError, AttributeError):
        is_sound = False
    if not is_sound:
        raise ValueError(
            "the calibration in the model.json of the weights is not one of this version; "
            "fit it again (benchmarks/calibrate.py fit), or go without --uncertainty"
        )
    return calibration


def named_measure(enabled: bool, calibration: Mapping[str, Any] | None = None) -> str | None:
    """What is written as uncertainty, in a word, for the settings: with another, outputs are made again."""
    if not check_switch("uncertainty", enabled):
        return None
    if calibration is None:
        return "spread"
    return f"calibrated {hashlib.sha256(json.dumps(calibration, sort_keys=True).encode()).hexdigest()[:16]}"


def _of(table: Mapping[str, Any], target: str) -> Any:
    return table.get(target, table[POOLED])


class ExpectedErrord(MapTransform):
    """The spread of an ensemble becomes the expected error of the restored prediction, in its units.

    Args:
        keys: the spread (T, X, Y, Z), in the units of the network; samples without it stay as they are.
        prediction_key: the prediction (T, X, Y, Z), 0..1000, after `RestoreIntensityd`.
        background_key: where this mask is set, the error is 0.
        calibration: that of model.json; without one the spread itself is kept, in the units of the output.

    The result is the sample's `error`, with the meta data of the prediction.
    """

    def __init__(
        self,
        keys: KeysCollection = ("spread",),
        *,
        prediction_key: str = "pred",
        background_key: str = "background",
        calibration: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(keys)
        self.prediction_key, self.background_key = prediction_key, background_key
        self.calibration = calibration

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample: dict[Any, Any] = dict(data)
        if self.keys[0] not in sample:
            return sample
        prediction, spread = sample[self.prediction_key], sample.pop(self.keys[0])
        shares = (spread.as_subclass(Tensor) / 2).to(prediction.device)  # from -1 to 1 it is 2
        if self.calibration is not None:
            calibration = check_calibration(self.calibration)
            volumes = prediction.as_subclass(Tensor) / OUTPUT_MAXIMUM
            spacing_mm, num_sources = voxel_spacing_mm(prediction), len(sample["source_names"])
            errors = [
                expected_error(volume, spread, spacing_mm, num_sources, calibration=calibration, target=target)
                for volume, spread, target in zip(volumes, shares, targets_of(sample), strict=True)
            ]
            shares = torch.stack(errors)
        error = shares * OUTPUT_MAXIMUM
        error = error.masked_fill(sample[self.background_key].as_subclass(Tensor).to(error.device), 0.0)
        is_placed = isinstance(prediction, MetaTensor)
        sample["error"] = MetaTensor(error).copy_meta_from(prediction) if is_placed else error
        return sample
