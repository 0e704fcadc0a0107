"""One synthesised volume against the true one, both read from disk, under the protocols asked for."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hmf_networks.metrics import psnr, to_unit
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.reports import score_table
from hmf_networks.reports.brasyn import brasyn_rows
from hmf_networks.reports.upright import Upright, check_same_grid, read_upright
from hmf_networks.transforms.intensity import OUTPUT_MAXIMUM, scale_by_foreground
from numpy.typing import NDArray
from torch import Tensor

logger = logging.getLogger(__name__)

PROTOCOLS = (*score_table.PROTOCOLS, "brasyn")


class Truth(NamedTuple):
    """The true volume in the units of its scanner; the same in [-1, 1] as in training; its label, if any."""

    volume: Upright
    scaled: Tensor
    label: NDArray[np.bool_] | None


def read_truth(record: Mapping[str, str], target: str) -> Truth:
    """Raises VolumeError, also where the label cannot be used or lies on another grid."""
    volume = read_upright(record[target])
    scaled = scale_by_foreground(torch.from_numpy(volume.values))
    return Truth(volume, scaled, _label(record["label"], volume) if "label" in record else None)


def read_prediction(path: str | Path, truth: Truth) -> Upright:
    """Raises VolumeError, E_GRID where it does not lie on the grid of the truth, E_NONFINITE for NaN."""
    prediction = read_upright(path, all_finite=True)
    check_same_grid(prediction, truth.volume)
    low, high = prediction.values.min(), prediction.values.max()
    if low < 0 or not 1 < high <= OUTPUT_MAXIMUM:
        logger.warning(
            "%s reaches from %g to %g, `hmf synthesize` writes 0 to %g; it is scored without rescaling",
            *(path, low, high, OUTPUT_MAXIMUM),
        )
    return prediction


def score(prediction: Upright, truth: Truth, protocols: Collection[str]) -> list[dict[str, Any]]:
    """Rows {"protocol", "region", "psnr", ...} of one volume."""
    region = None if truth.label is None else torch.from_numpy(truth.label)[None]
    rows = score_table.volume_rows(scale_by_fixed_map(prediction), truth.scaled, region, protocols)
    if "brasyn" in protocols:
        rows += brasyn_rows(prediction.values, truth.volume.values, truth.label)
    return rows


def brain_psnr(prediction: Upright, truth: Truth) -> float:
    """That of protocol `volume`, region brain."""
    predicted = to_unit(scale_by_fixed_map(prediction))
    return psnr(predicted, to_unit(truth.scaled), truth.scaled > -1)


def scale_by_fixed_map(prediction: Upright) -> Tensor:
    """0..1000 to [-1, 1], clipped; never by its own extremes."""
    return (torch.from_numpy(prediction.values) / OUTPUT_MAXIMUM * 2 - 1).clamp(-1, 1)


def _label(path: str, volume: Upright) -> NDArray[np.bool_]:
    try:
        label = read_upright(path)
    except VolumeError as error:
        if error.code != "E_NO_SIGNAL":  # the segmentation of a healthy subject is empty
            raise
        return np.zeros(volume.values.shape, dtype=np.bool_)
    check_same_grid(label, volume)
    return label.values > 0
