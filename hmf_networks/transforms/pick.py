"""Of a network with several outputs, the one that was asked for."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform


class PickTargetd(MapTransform):
    """The channel of the sample's `target` alone; what has a single channel stays as it is.

    Args:
        keys: (T, ...).
        targets: the contrasts of the channels.
    """

    def __init__(self, keys: KeysCollection, targets: Sequence[str]) -> None:
        super().__init__(keys)
        self.targets = list(targets)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample: dict[Hashable, Any] = dict(data)
        for key in self.keys:
            if len(sample[key]) > 1:
                number = self.targets.index(sample["target"])
                sample[key] = sample[key][number : number + 1]
        return sample
