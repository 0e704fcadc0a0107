"""A picture of what was done to a study: bias fields, and contrasts in a chequerboard with the reference.

In a chequerboard edges run on from field to field where two scans fit. Before: as the headers say.
"""

from collections.abc import Mapping

import numpy as np
import torch
from hmf_networks.nifti.geometry import upright
from hmf_networks.preparation.scan import Scan, spacing_mm
from hmf_networks.transforms.intensity import scale_by_foreground
from hmf_networks.transforms.preview import three_planes_png
from numpy.typing import NDArray
from scipy import ndimage

FIELD_MM = 25.0  # edge of a field of the chequerboard
GAINS = (0.5, 2.0)  # that are black and white in a bias field

Volume = NDArray[np.float32]


def draw_sheet(
    before: Mapping[str, Scan], after: Mapping[str, Scan], fields: Mapping[str, Scan], reference: str
) -> bytes:
    """The bytes of a PNG.

    Args:
        before: contrasts as acquired, on grids of their own.
        after: the same, ready, on the grid of `reference`.
        fields: bias fields of some of them, on grids of their own.
        reference: the contrast that stayed where it was.
    """
    fixed = after[reference]
    shown = {f"{reference} ready": _grey(fixed)}
    for name, scan in after.items():
        if name != reference:
            moved = before[name]
            shown[f"{name} ready"] = _grey(scan)
            shown[f"{reference} and {name}, before"] = _chequered(fixed, _at(moved, fixed))
            shown[f"{reference} and {name}, after"] = _chequered(fixed, scan)
    for name, field in fields.items():
        shown[f"bias field, {name}"] = _field(field, fixed)
    return three_planes_png(shown, _upright(fixed)[1])


def _at(scan: Scan, fixed: Scan) -> Scan:
    """Nearest voxels are good enough for a picture."""
    to_scan = np.linalg.inv(scan.affine) @ fixed.affine
    values = ndimage.affine_transform(scan.values, to_scan[:3, :3], to_scan[:3, 3], fixed.values.shape, order=0)
    return Scan(values, fixed.affine)


def _upright(scan: Scan) -> tuple[Volume, list[float]]:
    values, affine = upright(scan.values, scan.affine)
    return np.ascontiguousarray(values), spacing_mm(affine).tolist()


def _grey(scan: Scan) -> Volume:
    return scale_by_foreground(torch.from_numpy(_upright(scan)[0])).numpy()


def _chequered(one: Scan, other: Scan) -> Volume:
    grey, spacing = _grey(one), _upright(one)[1]
    fields = [np.arange(size) * step // FIELD_MM for size, step in zip(grey.shape, spacing, strict=True)]
    is_other = sum(np.ix_(*fields)) % 2 == 1
    return np.where(is_other, _grey(other), grey)


def _field(field: Scan, fixed: Scan) -> Volume:
    """Logarithm of the gain."""
    low, high = np.log(GAINS)
    here = _at(Scan(np.log(field.values), field.affine), fixed)
    return ((_upright(here)[0] - low) / (high - low) * 2 - 1).clip(-1, 1)
