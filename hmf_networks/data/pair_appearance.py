"""Does a volume look like the contrast it is called? Told by fluid and by grey against white matter.

Fluid (CSF) is much brighter than brain in T2, about as bright in PD, darker in T1 and FLAIR. Grey matter is
brighter than white in T2, FLAIR and PD, and darker in T1. Everything is read in the core of the head, deep
enough to hold no skull, scalp or eye. Shapes: V voxels of the core.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from hmf_networks.data.pair_alignment import Coarse, Floats, Mask, Spacing, window_mean, window_weight
from numpy.typing import NDArray
from scipy import ndimage

CORE_DEPTH_MM = 18.0  # below the outline of head or brain: 13 mm of scalp and skull, and the rim of the brain
HOLE_MM = 5.0  # gaps up to twice this wide belong to the head: fluid that was cut away with the skull
SHADING_MM = 20.0  # standard deviation of the window whose mean is taken off as shading of the coil
TISSUE_MM = 8.0  # the same, to compare grey with white where they meet
TAIL_PERCENT = 3.0  # of the core at either end of its intensities: the ventricles are some 5 %
FLUID_DEVIATION = 1.2  # quartile distances above the median of T2, beyond which a voxel is fluid
FLUID_PERCENT = 6.0  # of the core, the darkest in T1 and FLAIR together, taken for fluid where there is no T2
FLUID_MARGIN_MM, FLUID_REACH_MM = (3.0, 16.0)  # tissue begins this far from fluid; further off nothing is compared


def find_core(coarse: Mapping[str, Coarse]) -> Mask:
    """Voxels of the common foreground that lie CORE_DEPTH_MM below its outline."""
    spacing_mm = next(iter(coarse.values())).spacing_mm
    common = np.logical_and.reduce([volume.foreground for volume in coarse.values()])
    margin = [int(np.ceil(HOLE_MM / mm)) + 1 for mm in spacing_mm]
    padded = np.pad(common, [(steps, steps) for steps in margin])
    outside = ndimage.distance_transform_edt(~padded, sampling=spacing_mm) > HOLE_MM if common.any() else ~padded
    near = ndimage.distance_transform_edt(~outside, sampling=spacing_mm)
    window = tuple(slice(steps, -steps) for steps in margin)
    return common & (near[window] > CORE_DEPTH_MM + HOLE_MM)


def deviations(coarse: Mapping[str, Coarse], core: Mask, window_mm: float) -> dict[str, Floats]:
    """Of each volume, what is left when the mean of a Gaussian window in the core is taken off: V values."""
    sigma = window_mm / next(iter(coarse.values())).spacing_mm
    weight = window_weight(core, sigma)
    return {
        name: (volume.values - window_mean(volume.values, core, sigma, weight))[core] for name, volume in coarse.items()
    }


def in_quartiles(values: Floats) -> Floats:
    """Deviations from the median in distances between the quartiles."""
    low, middle, high = np.percentile(values, (25, 50, 75))
    return (values - middle) / max(high - low, np.finfo(np.float32).tiny)


def tail(values: Floats) -> float:
    """Which tail is longer: -1 only the dark one, 0 both alike, 1 only the bright one."""
    low, middle, high = np.percentile(values, (TAIL_PERCENT, 50, 100 - TAIL_PERCENT))
    return float((low + high - 2 * middle) / (high - low)) if high > low else 0.0


def likeness_to_t2(
    tissue: Mapping[str, Floats], t2_in_quartiles: Floats, core: Mask, spacing_mm: Spacing
) -> dict[str, float]:
    """Correlation of each contrast with T2 away from fluid: above 0 if grey matter is bright in it."""
    fluid = t2_in_quartiles > FLUID_DEVIATION
    away = _distance_to_mm(fluid, core, spacing_mm) > FLUID_MARGIN_MM
    return {name: _correlation(values[away], tissue["t2"][away]) for name, values in tissue.items()}


def greyness_by_depth(
    tissue: Mapping[str, Floats], fluid_sum: Floats, core: Mask, spacing_mm: Spacing
) -> dict[str, float]:
    """How much each contrast darkens away from fluid, where there is no T2; `fluid_sum` is dark in fluid.

    Grey matter lies along the fluid, white matter further off: lowest in T1, highest in FLAIR and PD.
    """
    fluid = fluid_sum < np.percentile(fluid_sum, FLUID_PERCENT)
    distance_mm = _distance_to_mm(fluid, core, spacing_mm)
    near = (distance_mm > FLUID_MARGIN_MM) & (distance_mm < FLUID_REACH_MM)
    return {name: -_correlation(values[near], distance_mm[near]) for name, values in tissue.items()}


def _distance_to_mm(chosen: Mask, core: Mask, spacing_mm: Spacing) -> NDArray[np.float64]:
    """Distance of each voxel of the core to the chosen ones among them: V values."""
    if not chosen.any():
        return np.full(chosen.shape, np.inf)
    elsewhere = np.ones(core.shape, bool)
    elsewhere[core] = ~chosen
    return np.asarray(ndimage.distance_transform_edt(elsewhere, sampling=spacing_mm)[core])


def _correlation(first: Floats, second: NDArray[np.floating]) -> float:
    if len(first) < 2 or first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
