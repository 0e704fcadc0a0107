"""What of a volume is head or brain, and what is air.

Shapes: volumes (X, Y, Z), in scanner units.
"""

import numpy as np
from torch import Tensor

DARK_SHARE = 0.1  # dark fluid at the rim of a stripped brain is less than this beside the rest
SIGNAL_SHARE = 0.05  # of the brightest signal; air noise of a clinical scan stays below, dark fluid above


def background_value(volume: Tensor) -> float:
    """What the eight corners of (X, Y, Z) show in the median: air, or the value a brain extraction left."""
    return (
        volume[:: max(volume.shape[0] - 1, 1), :: max(volume.shape[1] - 1, 1), :: max(volume.shape[2] - 1, 1)]
        .median()
        .item()
    )


def foreground(volume: Tensor) -> Tensor:
    """Voxels of (X, Y, Z) that hold signal: head or brain, but not air.

    Where the skull is stripped, that is all but the background. Air with noise is told apart by its share:
    voxels below a twentieth of the brightest signal are dark fluid when few beside the others, air when many.
    """
    signal = (volume - background_value(volume)).abs()
    some = signal > 0
    if not some.any():
        return some
    bright = signal > SIGNAL_SHARE * float(np.percentile(signal[some].numpy(), 99.5))
    few_are_dark = some.sum() < (1 + DARK_SHARE) * bright.sum()
    return some if few_are_dark else bright
