"""A rough brain extraction: heads with skull lend their brains to a training on brains alone.

Good enough to vary what is learned from; scans to be measured deserve a tool made for it. Shapes: volumes
(C, X, Y, Z), slices perpendicular to Z.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from hmf_networks.naming import CONTRASTS
from hmf_networks.ops.brain_mask import brain_mask
from hmf_networks.transforms.slices import voxel_spacing_mm
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

FLUID_IS_DARK = ("t1", "flair")  # there bone and fluid part the brain from the scalp


class ExtractBraind(MapTransform):
    """Zero all that is not brain in every contrast; a volume without skull stays as it is.

    Args:
        keys: volumes in scanner units, RAS, one channel for each of `contrasts`, zero where one is missing.
        contrasts: names of the channels; without T1 and FLAIR nothing is extracted.
    """

    def __init__(self, keys: KeysCollection = "image", *, contrasts: Sequence[str] = CONTRASTS) -> None:
        super().__init__(keys)
        self.dark = [contrasts.index(name) for name in FLUID_IS_DARK if name in contrasts]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        for key in self.keys:
            volume = sample[key]
            brain = brain_mask(volume.as_subclass(Tensor)[self.dark], voxel_spacing_mm(volume))
            if brain is not None:
                sample[key] = volume * brain
        return sample
