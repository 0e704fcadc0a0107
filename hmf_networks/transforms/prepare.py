"""Raw contrasts of a patient, each on a grid of its own, made ready: bias field, registration, one grid, brain.

Each step is a dictionary transform over volumes (1, X, Y, Z) in scanner units, one key a contrast, and notes what
it did under "prepared" of the sample: step -> contrast -> figures. Needs ITK (extra `prepare`).
"""

import time
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from hmf_networks.naming import CONTRASTS, unknown_word
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.nifti.geometry import grid_difference
from hmf_networks.preparation.bias_field import correct_bias
from hmf_networks.preparation.brain import TOOLS, find_brain
from hmf_networks.preparation.registration import REFUSED_MM, distance_mm, inside_head, points_of, register
from hmf_networks.preparation.regrid import regridded
from hmf_networks.preparation.scan import Scan, spacing_mm
from hmf_networks.transforms.load import NAME
from monai.data import MetaTensor
from monai.transforms import MapTransform

FIRST = "first"  # as a reference: the first contrast that is there, in the order of the keys
# Contrasts of one grid that lie nearer stay: interpolation would blur more than it mends.
STILL_MM, STILL_VOXELS = 0.5, 0.25  # the larger of both
PREPARED = "prepared"

Sample = dict[Hashable, Any]


class _Step(MapTransform):
    """A step over those of `keys` that a sample has."""

    def __init__(self, keys: Sequence[str] = CONTRASTS) -> None:
        super().__init__(keys, allow_missing_keys=True)

    def present(self, sample: Mapping[Hashable, Any]) -> list[str]:
        return [str(key) for key in self.key_iterator(dict(sample))]


class CorrectBiasd(_Step):
    """Divide out the bias field (N4).

    Args:
        keys: contrasts.
        keep_fields: leave each field under "<key>_bias", a volume of mean 1 over the head.
    """

    def __init__(self, keys: Sequence[str] = CONTRASTS, *, keep_fields: bool = False) -> None:
        super().__init__(keys)
        self.keep_fields = keep_fields

    def __call__(self, data: Mapping[Hashable, Any]) -> Sample:
        sample = dict(data)
        for key in self.present(sample):
            start = time.monotonic()
            corrected, field = correct_bias(scan_of(sample[key]))
            sample[key] = tensor_of(corrected, named=name_of(sample[key]))
            if self.keep_fields:
                sample[f"{key}_bias"] = tensor_of(Scan(field, corrected.affine), named=f"bias field of {key}")
            low, high = (round(float(share), 3) for share in np.percentile(field, (1, 99)))
            sample = noted(sample, "bias_field", key, lowest=low, highest=high, seconds=_since(start))
        return sample


class RegisterContrastsd(_Step):
    """Lay every contrast onto the head of the reference: only its matrix changes, no voxel is interpolated.

    Args:
        keys: contrasts.
        reference: the one that stays, or FIRST; None for that with the finest voxels, see `finest`.
        refused_mm: quality (`registration.Registration`) from which on a registration is not believed.

    Raises:
        VolumeError: E_REGISTRATION.
    """

    def __init__(
        self, keys: Sequence[str] = CONTRASTS, *, reference: str | None = None, refused_mm: float = REFUSED_MM
    ) -> None:
        super().__init__(keys)
        self.reference, self.refused_mm = reference, refused_mm

    def __call__(self, data: Mapping[Hashable, Any]) -> Sample:
        sample = dict(data)
        reference = choose_reference(sample, self.present(sample), self.reference)
        fixed = scan_of(sample[reference])
        for key in self.present(sample):
            if key != reference:
                sample = self._laid(sample, key, reference, fixed)
        return sample

    def _laid(self, sample: Sample, key: str, reference: str, fixed: Scan) -> Sample:
        start, moving = time.monotonic(), scan_of(sample[key])
        try:
            found = register(fixed, moving)
        except ValueError as error:
            raise VolumeError("E_REGISTRATION", name_of(sample[key]), f"onto {reference}: {error}") from error
        if not found.quality_mm <= self.refused_mm:
            problem = f"onto {reference}: there and back again ends {found.quality_mm:.1f} mm away"
            raise VolumeError("E_REGISTRATION", name_of(sample[key]), problem)
        moved_mm = distance_mm(found.matrix, np.eye(4), points_of(fixed, inside_head(fixed)))
        is_still = moved_mm < _still_mm(fixed) and _same_grid(moving, fixed)
        matrix = np.eye(4) if is_still else found.matrix
        laid = Scan(moving.values, np.linalg.inv(matrix) @ moving.affine)
        sample[key] = tensor_of(laid, named=name_of(sample[key]))
        return noted(
            sample,
            "registration",
            key,
            onto=reference,
            matrix=matrix.round(6).tolist(),
            moved_mm=round(moved_mm, 2),
            left_as_it_was=is_still,
            quality_mm=round(found.quality_mm, 2),
            seconds=_since(start),
        )


class RegridContrastsd(_Step):
    """Bring every contrast to the voxels of the reference, by one interpolation.

    Args:
        keys: contrasts.
        reference: whose grid, or FIRST; None for that with the finest voxels.
    """

    def __init__(self, keys: Sequence[str] = CONTRASTS, *, reference: str | None = None) -> None:
        super().__init__(keys)
        self.reference = reference

    def __call__(self, data: Mapping[Hashable, Any]) -> Sample:
        sample = dict(data)
        reference = choose_reference(sample, self.present(sample), self.reference)
        fixed = scan_of(sample[reference])
        for key in self.present(sample):
            moving = scan_of(sample[key])
            if key == reference:
                continue
            if _same_grid(moving, fixed):  # but for rounding
                sample[key] = tensor_of(Scan(moving.values, fixed.affine), named=name_of(sample[key]))
            else:
                sample[key] = tensor_of(regridded(moving, fixed), named=name_of(sample[key]))
                sample = noted(sample, "grid", key, of=reference)
        return sample


class ExtractBrainOfAlld(_Step):
    """Zero what is not brain, in all contrasts alike; they share a grid.

    Args:
        keys: contrasts.
        tool: one of `preparation.brain.TOOLS`.

    Raises:
        VolumeError: E_BRAIN.
    """

    def __init__(self, keys: Sequence[str] = CONTRASTS, *, tool: str = "morphological") -> None:
        super().__init__(keys)
        if tool not in TOOLS:
            raise ValueError(unknown_word("brain tool", tool, TOOLS))
        self.tool = tool

    def __call__(self, data: Mapping[Hashable, Any]) -> Sample:
        sample, start = dict(data), time.monotonic()
        present = self.present(sample)
        try:
            brain = find_brain({key: scan_of(sample[key]) for key in present}, self.tool)
        except ValueError as error:
            raise VolumeError("E_BRAIN", name_of(sample[present[0]]), str(error)) from error
        mask = torch.from_numpy(brain)
        litres = float(brain.sum() * np.prod(spacing_mm(scan_of(sample[present[0]]).affine)) / 1e6)
        for key in present:
            sample[key] = sample[key] * mask
        sample["brain"] = MetaTensor(mask[None].float(), affine=sample[present[0]].affine)
        return noted(sample, "brain", "all", tool=self.tool, litres=round(litres, 2), seconds=_since(start))


def choose_reference(sample: Mapping[Hashable, Any], present: Sequence[str], wanted: str | None) -> str:
    """The contrast whose place and grid the others take; ValueError where it is not there."""
    if not present:
        raise ValueError("no contrast is there to prepare")
    if wanted == FIRST:
        return present[0]
    if wanted is not None and wanted not in present:
        raise ValueError(f"reference {wanted}: not there; there are {', '.join(present)}")
    return wanted or finest({key: scan_of(sample[key]) for key in present})


def finest(scans: Mapping[str, Scan]) -> str:
    """That whose voxels are least long at their longest, then smallest; the first of equals."""
    sizes = {key: spacing_mm(scan.affine).round(2) for key, scan in scans.items()}
    return min(scans, key=lambda key: (sizes[key].max(), sizes[key].prod()))


def scan_of(volume: MetaTensor) -> Scan:
    return Scan(volume.as_subclass(torch.Tensor)[0].numpy(), np.asarray(volume.affine, dtype=np.float64))


def tensor_of(scan: Scan, *, named: str) -> MetaTensor:
    """(1, X, Y, Z); errors call it as it is named."""
    values = torch.from_numpy(np.ascontiguousarray(scan.values, dtype=np.float32))[None]
    return MetaTensor(values, affine=torch.from_numpy(scan.affine), meta={NAME: named})


def name_of(volume: MetaTensor) -> str:
    return str(volume.meta.get(NAME, "a volume"))


def noted(sample: Sample, step: str, key: str, **figures: Any) -> Sample:
    notes = dict(sample.get(PREPARED, {}))
    notes[step] = {**notes.get(step, {}), key: figures}
    return {**sample, PREPARED: notes}


def _same_grid(one: Scan, other: Scan) -> bool:
    return grid_difference(one.values.shape, one.affine, other.values.shape, other.affine, "") is None


def _still_mm(scan: Scan) -> float:
    return max(STILL_MM, STILL_VOXELS * float(spacing_mm(scan.affine).prod() ** (1 / 3)))


def _since(start: float) -> float:
    return round(time.monotonic() - start, 1)
