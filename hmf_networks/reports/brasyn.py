"""Protocol `brasyn`: as the BraTS challenge on missing contrasts scores; docs/evaluation.md.

Volumes (X, Y, Z) in any unit: each is scaled by its own percentiles, so a wrong brightness costs nothing.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from hmf_networks.metrics import mae, nmse, psnr
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

LOWER, UPPER = 0.5, 99.5  # percentiles of the whole volume, air included
K1, K2 = 0.01, 0.03
# Eleven voxels along each axis, mirrored without repeating the border: the window of torchmetrics.
window_mean = partial(gaussian_filter, sigma=1.5, truncate=3.5, mode="mirror")

Volume = NDArray[np.float32]


def brasyn_rows(prediction: Volume, truth: Volume, label: NDArray[Any] | None) -> list[dict[str, Any]]:
    """Scores of the whole volume and, with a label (above 0 in the tumour), of "tumour" and "healthy".

    Besides the measures of every protocol, but for MS-SSIM: "mse", and "ssim_inside", the mean of the SSIM
    map over the region alone.
    """
    predicted, true = normalise(prediction), normalise(truth)
    masks = {"whole": np.ones(truth.shape, dtype=bool)}
    if label is not None:
        masks |= {"tumour": label > 0, "healthy": label <= 0}  # healthy: all the rest, air too
    return [
        {"protocol": "brasyn", "region": name, **_scores(predicted, true, mask)}
        for name, mask in masks.items()
        if mask.any()
    ]


def normalise(volume: Volume) -> Volume:
    """To [0, 1] by its own percentiles, of which the lower is 0 at least; nan where they do not differ."""
    low, high = np.percentile(volume, [LOWER, UPPER])
    low = max(low, 0.0)
    if high <= low:
        return np.full(volume.shape, np.nan, dtype=np.float32)
    return ((volume.clip(low, high) - low) / (high - low)).astype(np.float32)


def ssim_map_3d(prediction: Volume, truth: Volume) -> Volume:
    """SSIM of every voxel in a Gaussian window of 11 x 11 x 11; its range is that of the wider volume."""
    data_range = max(np.ptp(prediction), np.ptp(truth))
    if not data_range > 0:
        return np.full(truth.shape, np.nan, dtype=np.float32)
    c1, c2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    mean_p, mean_t = window_mean(prediction), window_mean(truth)
    variance_p = (window_mean(prediction**2) - mean_p**2).clip(min=0)
    variance_t = (window_mean(truth**2) - mean_t**2).clip(min=0)
    covariance = window_mean(prediction * truth) - mean_p * mean_t
    brightness = (2 * mean_p * mean_t + c1) / (mean_p**2 + mean_t**2 + c1)
    return brightness * (2 * covariance + c2) / (variance_p + variance_t + c2)


def _scores(predicted: Volume, true: Volume, mask: NDArray[np.bool_]) -> dict[str, float]:
    structure = ssim_map_3d(predicted * mask, true * mask)
    voxels = (torch.from_numpy(predicted), torch.from_numpy(true), torch.from_numpy(mask))
    return {
        "psnr": psnr(*voxels),
        "ssim": float(structure.mean(dtype=np.float64)),
        "nmse": nmse(*voxels),
        "mae": mae(*voxels),
        "mse": float(np.square(predicted[mask] - true[mask], dtype=np.float64).mean()),
        "ssim_inside": float(structure[mask].mean(dtype=np.float64)),
    }
