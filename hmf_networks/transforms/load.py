"""Read the contrasts of a record into channels: paths in, `image` and `label` out."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from hmf_networks.naming import CONTRASTS, TWICE, UNLISTED, check_contrasts, check_switch, targets_of, usable_sources
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.nifti.files import volume_state
from hmf_networks.nifti.geometry import grid_difference
from hmf_networks.nifti.header import MAX_VOXELS
from hmf_networks.nifti.read import read_volume
from hmf_networks.ops.foreground import background_value
from hmf_networks.preparation.itk_transform import read as read_transform
from monai.data import MetaTensor
from monai.transforms import MapTransform, ResampleToMatch
from numpy.typing import NDArray

LARGEST_PLANE_MM = 2000.0
NAME = "filename_or_obj"  # where MONAI keeps it


class _Placed(NamedTuple):
    """A volume (X, Y, Z), its matrix (4, 4) and the name of its file."""

    values: NDArray[np.float32]
    affine: NDArray[np.float64]
    name: str


class LoadContrastsd(MapTransform):
    """Stack the sources of a record as channels of `image`, and read the target as `label`.

    Args:
        sources: contrasts in the order the network expects them, e.g. ["t1", "flair"].
        any_subset: a record needs only some of the sources. The channels of the others are zeros, as are
            those of what is to be made of it (`naming.targets_of`), whether it has them or not.
        given: only these sources may be used, the others count as missing; None for all.
        with_label: read what is to be made, the record's "target", as `label`, where it names one.
        with_region: read the record's segmentation as `region` (1, X, Y, Z), boolean; zeros when it has none.
        regrid: bring files on other grids onto that of the first source (linear, its background around it);
            without it they are refused.
        volume: which volume of a 4-D file, counted from 0; "volumes" of a record tells it of each contrast.
        max_voxels: larger files are refused before they are read.
        prepare: steps of `transforms/prepare.py` for raw contrasts, before grids are compared. Their reference must
            be FIRST, so that the grid stays that of the first source.

    Where a record has a "grid" and "transforms" (`data/prepared.py`), all are laid onto that scan as it was
    acquired, and brought to its voxels.

    The result keeps the record's other entries. `image` is a MetaTensor (S, X, Y, Z) that knows its affine
    and, as `filename_or_obj`, the first source that was read, which gives the grid; `source_names`,
    `source_paths` and `source_states` tell of those that were read. `label` is (1, X, Y, Z).

    Raises:
        VolumeError: a file that is not there or cannot be used (`nifti/codes.py`), or E_GRID.
    """

    def __init__(
        self,
        sources: Sequence[str],
        *,
        any_subset: bool = False,
        given: Sequence[str] | None = None,
        with_label: bool = False,
        with_region: bool = False,
        regrid: bool = False,
        volume: int | None = None,
        max_voxels: int = MAX_VOXELS,
        prepare: Callable[[dict[Any, Any]], dict[Any, Any]] | None = None,
    ) -> None:
        super().__init__(keys=sources)
        self.sources = tuple(sources)
        self.any_subset = check_switch("any_subset", any_subset)
        check_contrasts(given or [])
        self.given = given
        self.with_label, self.with_region = with_label, with_region
        self.regrid = check_switch("regrid", regrid)
        self.volume, self.max_voxels, self.prepare = volume, max_voxels, prepare

    def __call__(self, record: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        used = _grid_first(self._used(record), record)
        states = [_state(record[name]) for name in used]  # before a byte of them is read
        first_path, learned = record[used[0]], self._learned(record)
        read = self._prepared({name: self._read(record, name) for name in dict.fromkeys([*used, *learned])})
        first = read[used[0]]
        _check_plane(first, first_path)
        volumes = {used[0]: first.values}
        for name in [*used[1:], *learned]:
            volumes[name] = self._on_grid(read[name], record[name], first, is_moved="transforms" in record).values
        channels = [volumes[name] if name in used else np.zeros_like(first.values) for name in self.sources]
        meta = {NAME: str(first_path), "original_affine": first.affine}
        sample = {key: value for key, value in record.items() if key not in (*CONTRASTS, "label")}
        sample["image"] = _tensor(channels, first.affine, meta)
        sample["source_names"], sample["source_paths"] = used, [str(record[name]) for name in used]
        sample["source_states"] = states
        if learned:
            sample["label"] = _tensor([volumes[name] for name in learned], first.affine, meta)
        if self.with_region:
            sample["region"] = _tensor([self._region(record, first)], first.affine, meta)
        return sample

    def _used(self, record: Mapping[Hashable, Any]) -> list[str]:
        """The sources to read, at least one."""
        subject = f"subject {record.get('patient', 'unnamed')}"
        if UNLISTED in record:
            raise VolumeError("E_MISSING", subject, record[UNLISTED], "correct its permissions")
        if TWICE in record:
            raise VolumeError("E_AMBIGUOUS", subject, f"it has {record[TWICE]}")
        known = {str(key): value for key, value in record.items()}
        used = usable_sources(known, self.sources, self.given)
        missing = [name for name in self.sources if name not in used]
        if self.any_subset:
            could = dict.fromkeys(self.sources, "") | known
            missing = [] if used else usable_sources(could, self.sources, self.given)
        missing += [name for name in self._learned(record) if name not in record]
        if missing or not used:
            cure = "add the file or change the contrasts"
            raise VolumeError("E_MISSING", subject, f"it has no {', '.join(missing) or 'source'}", cure)
        return used

    def _learned(self, record: Mapping[Hashable, Any]) -> list[str]:
        """What becomes the label."""
        return targets_of({str(key): value for key, value in record.items()}) if self.with_label else []

    def _read(self, record: Mapping[Hashable, Any], name: str) -> _Placed:
        path, volume = record[name], record.get("volumes", {}).get(name, self.volume)
        values, affine = read_volume(path, volume=volume, max_voxels=self.max_voxels)
        return _Placed(values, _way(record, name) @ affine, Path(path).name)

    def _prepared(self, read: dict[str, _Placed]) -> dict[str, _Placed]:
        if self.prepare is None:
            return read
        raw = {name: _tensor([placed.values], placed.affine, {NAME: placed.name}) for name, placed in read.items()}
        ready = self.prepare(raw)
        return {
            name: _Placed(ready[name][0].numpy(), ready[name].affine.numpy(), placed.name)
            for name, placed in read.items()
        }

    def _on_grid(self, other: _Placed, path: str, first: _Placed, *, is_moved: bool) -> _Placed:
        problem = _difference(other, first)
        if problem is None:
            return other
        if not (self.regrid or is_moved):
            raise VolumeError("E_GRID", path, problem)
        return other._replace(values=_regridded(other, first), affine=first.affine)

    def _region(self, record: Mapping[Hashable, Any], first: _Placed) -> NDArray[np.float32]:
        if "label" not in record:
            return np.zeros_like(first.values)
        try:
            region = _Placed(*read_volume(record["label"], max_voxels=self.max_voxels), "label")
        except VolumeError as error:
            if error.code != "E_NO_SIGNAL":  # a healthy subject has an empty segmentation
                raise
            return np.zeros_like(first.values)
        problem = _difference(region, first)
        if problem is not None:
            raise VolumeError("E_GRID", record["label"], problem)
        return (region.values > 0).astype(np.float32)


def _grid_first(used: Sequence[str], record: Mapping[Hashable, Any]) -> list[str]:
    """The source whose grid all are read on, then the others; see `data/prepared.py`."""
    grid = record.get("grid", used[0])
    return sorted(used, key=lambda name: name != grid)


def _way(record: Mapping[Hashable, Any], name: str) -> NDArray[np.float64]:
    """From points of a scan to those of the one that gives the grid: (4, 4), in mm."""
    ways = record.get("transforms", {})
    to_grid, to_scan = (read_transform(ways[one]) if one in ways else np.eye(4) for one in (record.get("grid"), name))
    return to_grid @ np.linalg.inv(to_scan)


def _state(path: str) -> str:
    """Empty for a file that cannot be looked at: the reader says why."""
    try:
        return volume_state(path)
    except (OSError, ValueError, VolumeError):
        return ""


def _tensor(volumes: list[NDArray[np.float32]], affine: NDArray[np.float64], meta: dict[str, Any]) -> MetaTensor:
    return MetaTensor(torch.from_numpy(np.stack(volumes)), affine=torch.from_numpy(affine), meta=dict(meta))


def _check_plane(volume: _Placed, path: str) -> None:
    """Planes are brought to the network's pixel size: a wrong voxel size would fill the memory."""
    extents_mm = sorted(np.linalg.norm(volume.affine[:3, :3], axis=0) * volume.values.shape)
    if extents_mm[1] > LARGEST_PLANE_MM:
        problem = f"planes of {extents_mm[1] / 1000:.1f} x {extents_mm[2] / 1000:.1f} m"
        raise VolumeError("E_TOO_LARGE", path, problem, "correct its voxel sizes")


def _difference(other: _Placed, first: _Placed) -> str | None:
    difference = grid_difference(other.values.shape, other.affine, first.values.shape, first.affine, first.name)
    return None if difference is None else difference.text


def _regridded(other: _Placed, first: _Placed) -> NDArray[np.float32]:
    """Values of `other` at the voxels of `first`; its background where it does not reach.

    Interpolation leaks a little into the voxels around a head, by rounding even between grids that coincide;
    what is background by more than a half stays it exactly, as masks are drawn by equality.
    """
    values = torch.from_numpy(np.ascontiguousarray(other.values))
    background = background_value(values)
    signal = values - background
    moving = MetaTensor(torch.stack([signal, (signal != 0).float()]), affine=torch.from_numpy(other.affine))
    fixed = MetaTensor(torch.empty(1, *first.values.shape), affine=torch.from_numpy(first.affine))
    resample = ResampleToMatch(mode="bilinear", padding_mode="zeros", dtype=torch.float64)
    resampled, share = resample(moving, fixed).as_subclass(torch.Tensor).float()
    return (torch.where(share > 0.5, resampled, 0.0) + background).numpy()
