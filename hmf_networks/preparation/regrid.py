"""A scan at the voxels of another, by windowed sinc; around the head its background, exactly.

Shapes: volumes (X, Y, Z); matrices (4, 4), between points in mm, RAS+.
"""

from typing import Any

import numpy as np
import torch
from hmf_networks.ops.foreground import background_value
from hmf_networks.preparation.scan import LPS, Affine, Scan, to_itk
from numpy.typing import NDArray

SINC_VOXELS = 3  # how far the interpolation reaches


def regridded(moving: Scan, fixed: Scan, matrix: Affine | None = None) -> Scan:
    """`moving` at the voxels of `fixed`, whose points `matrix` takes to those of `moving` (None: they are the same).

    Which voxels are head is interpolated apart, by halves. A sinc swings over at edges: values stay in the
    head's range.
    """
    import itk

    background = np.float32(background_value(torch.from_numpy(moving.values)))
    signal = moving.values - background
    head = signal != 0
    volume_type = itk.Image[itk.F, 3]
    window = itk.HammingWindowFunction[SINC_VOXELS]
    sinc = itk.WindowedSincInterpolateImageFunction[volume_type, SINC_VOXELS, window].New()
    linear = itk.LinearInterpolateImageFunction[volume_type, itk.D].New()
    values, share = (
        _resampled(moving._replace(values=some), fixed, matrix, interpolator)
        for some, interpolator in ((signal, sinc), (head.astype(np.float32), linear))
    )
    values = np.clip(values, signal[head].min(), signal[head].max())
    return Scan(np.where(share > 0.5, values, np.float32(0)) + background, fixed.affine)


def _resampled(moving: Scan, fixed: Scan, matrix: Affine | None, interpolator: Any) -> NDArray[np.float32]:
    import itk

    transform = itk.AffineTransform[itk.D, 3].New()
    if matrix is not None:
        to_moving = LPS @ matrix @ LPS
        transform.SetMatrix(itk.matrix_from_array(np.ascontiguousarray(to_moving[:3, :3])))
        transform.SetTranslation(to_moving[:3, 3].tolist())
    resampled = itk.resample_image_filter(
        to_itk(moving),
        transform=transform,
        interpolator=interpolator,
        reference_image=to_itk(fixed),
        use_reference_image=True,
    )
    return itk.array_from_image(resampled).T
