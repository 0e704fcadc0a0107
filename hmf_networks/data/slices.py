"""Slices of many volumes as one dataset: what is the same every epoch is cached, the random part follows."""

from collections.abc import Callable, Sequence
from typing import Any

from hmf_networks.naming import Record
from monai.data import CacheDataset
from monai.transforms import Compose
from torch.utils.data import Dataset


class SimulatedSlices(Dataset[Any]):
    """Slices drawn from label maps, none of them twice.

    Args:
        data: records with `labels`, the path of a label map (`data/label_maps.py`).
        preprocessing: record -> its head; deterministic, its result is kept.
        augmentation: what draws a slice of the head.
        num_slices: for each map in an epoch.
        fixed: always the same slices, by their index, to validate on.
        num_workers: threads that read the maps.
    """

    def __init__(
        self,
        data: Sequence[Record],
        preprocessing: Callable[..., Any],
        augmentation: Compose,
        *,
        num_slices: int = 60,
        fixed: bool = False,
        num_workers: int = 2,
    ) -> None:
        if not data:
            raise ValueError("no label map to simulate from: see labels_dir and maps")
        self.data, self.num_slices, self.augmentation, self.fixed = data, num_slices, augmentation, fixed
        self.heads = CacheDataset(data, preprocessing, num_workers=num_workers, copy_cache=False, as_contiguous=False)

    def __len__(self) -> int:
        return len(self.data) * self.num_slices

    def __getitem__(self, index: int) -> Any:
        if self.fixed:
            self.augmentation.set_random_state(seed=index)
        return self.augmentation(self.heads[index % len(self.data)])


class SliceDataset(Dataset[Any]):
    """`num_slices` samples for each record; an epoch is every slice once.

    Args:
        data: records.
        preprocessing: record -> {"image": (S, H, W, num_slices), "label": (1, H, W, num_slices)};
            deterministic, its result is cached.
        augmentation: {"image": (S, H, W), "label": (1, H, W)} -> the same, random.
        num_slices: slices of a volume after preprocessing.
        keys: what to slice, where it is there; nothing else is kept.
        cache_rate: share of the volumes held in memory; the others are read again for every slice.
        num_workers: threads that fill the cache.
    """

    def __init__(
        self,
        data: Sequence[Record],
        preprocessing: Callable[..., Any],
        augmentation: Callable[..., Any] | None = None,
        *,
        num_slices: int = 60,
        keys: Sequence[str] = ("image", "label"),
        cache_rate: float = 1.0,
        num_workers: int = 1,
        progress: bool = True,
    ) -> None:
        if not data:
            raise ValueError("no subject to train on: dataset_dir and datalist gave an empty list")
        self.data = data
        self.volumes = CacheDataset(
            data, preprocessing, cache_rate=cache_rate, num_workers=num_workers, progress=progress, copy_cache=False
        )
        self.augmentation = augmentation
        self.num_slices = num_slices
        self.keys = tuple(keys)

    def __len__(self) -> int:
        return len(self.data) * self.num_slices

    def __getitem__(self, index: int) -> Any:
        subject, number = divmod(index, self.num_slices)
        volume = self.volumes[subject]
        sample = {key: volume[key][..., number].clone() for key in self.keys if key in volume}
        return self.augmentation(sample) if self.augmentation is not None else sample
