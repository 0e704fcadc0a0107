"""Read the contrasts of a record into channels: paths in, `image` and `label` out."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from numpy.typing import NDArray

from hmf_networks.nifti.codes import VolumeError
from hmf_networks.nifti.geometry import GRID_TOLERANCE_MM, farthest_corner_mm
from hmf_networks.nifti.read import read_volume


class LoadContrastsd(MapTransform):
    """Stack the sources of a record as channels of `image`, and read the target as `label`.

    Args:
        sources: contrasts in the order the network expects them, e.g. ["t1", "flair"].
        target: contrast to learn or to compare with; None when it is to be synthesised.
        with_region: read the record's segmentation as `region` (1, X, Y, Z), boolean; zeros when it has none.

    The result keeps the record's other entries. `image` is a MetaTensor (S, X, Y, Z) that knows its affine
    and, as `filename_or_obj`, the first source; `label` is (1, X, Y, Z).

    Raises:
        KeyError: the record lacks a contrast.
        VolumeError: a file that cannot be used (`nifti/read.py`), or E_GRID: files on different grids.
    """

    def __init__(
        self, sources: Sequence[str], target: str | None = None, *, with_region: bool = False
    ) -> None:
        super().__init__(keys=[*sources, *([target] if target else [])])
        self.sources = tuple(sources)
        self.target = target
        self.with_region = with_region

    def __call__(self, record: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        missing = [name for name in self.keys if name not in record]
        if missing:
            subject = record.get("patient", "unnamed")
            raise KeyError(
                f"subject {subject} has no {', '.join(missing)}: add the file or change the contrasts"
            )
        first_path = record[self.sources[0]]
        volumes = {name: read_volume(record[name]) for name in self.keys}
        for name in self.keys:
            _check_same_grid(volumes[self.sources[0]], first_path, volumes[name], record[name])
        affine = volumes[self.sources[0]][1]
        meta = {"filename_or_obj": str(first_path), "original_affine": affine}
        sample = {key: value for key, value in record.items() if key not in (*self.keys, "label")}
        sample["image"] = _tensor([volumes[name][0] for name in self.sources], affine, meta)
        sample["source_paths"] = [str(record[name]) for name in self.sources]
        if self.target:
            sample["label"] = _tensor([volumes[self.target][0]], affine, meta)
        if self.with_region:
            sample["region"] = _tensor(
                [self._region(record, volumes[self.sources[0]], first_path)], affine, meta
            )
        return sample

    def _region(
        self, record: Mapping[Hashable, Any], first: tuple[NDArray[Any], NDArray[Any]], first_path: str
    ) -> NDArray[np.float32]:
        if "label" not in record:
            return np.zeros_like(first[0])
        try:
            region = read_volume(record["label"])
        except VolumeError as error:
            if error.code != "E_NO_SIGNAL":  # a healthy subject has an empty segmentation
                raise
            return np.zeros_like(first[0])
        _check_same_grid(first, first_path, region, record["label"])
        return (region[0] > 0).astype(np.float32)


def _tensor(
    volumes: list[NDArray[np.float32]], affine: NDArray[np.float64], meta: dict[str, Any]
) -> MetaTensor:
    return MetaTensor(torch.from_numpy(np.stack(volumes)), affine=torch.from_numpy(affine), meta=dict(meta))


def _check_same_grid(
    first: tuple[NDArray[Any], NDArray[Any]],
    first_path: str,
    other: tuple[NDArray[Any], NDArray[Any]],
    other_path: str,
) -> None:
    if first[0].shape != other[0].shape:
        problem = f"grid {other[0].shape} is not {first[0].shape}, that of {first_path}"
        raise VolumeError("E_GRID", other_path, problem)
    distance_mm = farthest_corner_mm(first[0].shape, first[1], other[1])
    if distance_mm > GRID_TOLERANCE_MM:
        problem = f"its corners lie up to {distance_mm:.2f} mm from those of {first_path}"
        raise VolumeError("E_GRID", other_path, problem)
