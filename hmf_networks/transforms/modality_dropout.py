"""Some contrasts of a sample are given, the others are to be found: how one network learns every task."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from hmf_networks.naming import CONTRASTS
from hmf_networks.ops.availability import append_masks, available
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor

KEEP_PROB = 0.6  # of each contrast but the one that is to be found, in training


class ModalityDropoutd(RandomizableTransform, MapTransform):
    """Take contrasts away from the sources at random, append the masks that tell which are left.

    One contrast of the label is drawn and never given; each other one that is there is kept with KEEP_PROB,
    at least one of them.

    Args:
        keys: sources (S, H, W) in [-1, 1], all CONTRASTS; what is missing is -1 all over.
        label_key: targets, the same contrasts in the same order; a copy of the sources where it is missing.
        weights: how often each contrast is drawn, relative to the others.
        num_samples: how often to draw: one simulated slice may serve for several tasks.
        only: learn the contrast that was drawn alone; the label's others become -1.

    The sources become (2 S, H, W); `target` names the contrast that was drawn. As MONAI's random crops do, it
    gives a list of samples, which `list_data_collate` makes one batch of.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        *,
        label_key: str = "label",
        weights: Sequence[float] = (1.0, 0.5, 1.0, 1.0, 0.5),
        num_samples: int = 1,
        only: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=1.0)
        self.label_key, self.weights = label_key, torch.tensor(weights)
        self.num_samples, self.only = num_samples, only

    def __call__(self, data: Mapping[Hashable, Any]) -> list[dict[Hashable, Any]]:
        return [self._drawn(data) for _ in range(self.num_samples)]

    def _drawn(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        for key in self.keys:
            sources = sample[key].as_subclass(Tensor)
            label = sample.get(self.label_key, sources).as_subclass(Tensor)
            is_there = available(sources[None])[0]
            target, kept = self._draw(is_there, available(label[None])[0])
            given = torch.where(kept[:, None, None], sources, -1.0)
            sample[key] = append_masks(given[None], kept[None])[0]
            if self.only:
                others = torch.arange(len(label)) != target
                label = torch.where(others[:, None, None], -1.0, label)
            sample[self.label_key] = label.clone()
            sample["target"] = CONTRASTS[target]
        return sample

    def _draw(self, is_there: Tensor, can_be_learned: Tensor) -> tuple[int, Tensor]:
        """The contrast to be found, and which are given."""
        without = can_be_learned & (is_there.sum() - is_there.int() > 0)  # something is left when it is gone
        chances = (self.weights * without).double().numpy()
        if chances.sum() == 0:
            raise ValueError("a sample with a single contrast teaches nothing: there is nothing to find")
        target = int(self.R.choice(len(chances), p=chances / chances.sum()))
        others = torch.nonzero(is_there & (torch.arange(len(is_there)) != target)).flatten()
        kept = torch.zeros(len(is_there), dtype=torch.bool)
        kept[others[torch.from_numpy(self.R.random_sample(len(others)) < KEEP_PROB)]] = True
        if not kept.any():
            kept[others[self.R.randint(len(others))]] = True
        return target, kept
