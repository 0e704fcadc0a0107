"""Of all contrasts that a network makes, those that were asked for."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from hmf_networks.naming import targets_of
from monai.config import KeysCollection
from monai.transforms import MapTransform


class PickTargetsd(MapTransform):
    """Keep the channels of what is to be made of the record (`naming.targets_of`), in that order; else all.

    Args:
        keys: what the network made (len(targets), X, Y, Z).
        targets: contrasts of its channels.
        allow_missing_keys: keys that are not there are passed over.

    Raises:
        ValueError: the network makes another number of channels.
    """

    def __init__(
        self, keys: KeysCollection = ("pred",), *, targets: Sequence[str], allow_missing_keys: bool = False
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.targets = list(targets)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample: dict[Any, Any] = dict(data)
        for key in self.key_iterator(sample):
            if len(sample[key]) != len(self.targets):
                raise ValueError(
                    f"{key} has {len(sample[key])} channel(s), targets are {', '.join(self.targets)}: "
                    "correct targets, or name the config file of the network's training"
                )
            wanted = targets_of(sample) or self.targets
            sample[key] = sample[key][[self.targets.index(name) for name in wanted]]
        return sample
