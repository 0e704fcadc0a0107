"""A slice of a person who does not exist, drawn anew at every call: what a network learns from without scans.

Shapes: C contrasts (`CONTRASTS`), planes of H x W pixels of 1 mm.
"""

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hmf_networks.naming import CONTRASTS
from hmf_networks.nifti.geometry import upright
from hmf_networks.nifti.read import read_volume
from hmf_networks.ops.availability import available
from hmf_networks.physics.head import Head, make_head
from hmf_networks.physics.pixels import FINE, pixel_places, places_through, places_within, to_pixels
from hmf_networks.physics.scanner import draw_scan, percentiles, scaled_plane, scan_plane
from hmf_networks.physics.scene import draw_scene, render, sample_signals
from monai.transforms import MapTransform, RandomizableTransform
from nibabel.affines import voxel_sizes
from scipy.ndimage import zoom

THICK_SHARE, THICK_MM = 0.4, (2.0, 5.0)
PLANE_SHARES = (0.1, 0.1, 0.8)  # sagittal, coronal, axial
LEAST_SHARE = 0.05  # of the plane that must show something


class LoadHeadd(MapTransform):
    """The file of a label map becomes a `physics.head.Head`.

    Args:
        keys: one, the path; the head goes to `head`.

    Raises:
        VolumeError: the file cannot be used.
        ValueError: there is no brain in it.
    """

    def __init__(self, keys: str = "labels") -> None:
        super().__init__(keys)

    def __call__(self, data: Mapping[Any, Any]) -> dict[Any, Any]:
        path = data[self.keys[0]]
        values, affine = upright(*read_volume(path))
        spacing_mm = voxel_sizes(affine)
        if not np.allclose(spacing_mm, 1, atol=0.01):
            values = zoom(values, spacing_mm, order=0)
        try:
            head = make_head(np.rint(values).astype(np.int32))
        except ValueError as error:
            raise ValueError(f"{Path(path).name}: {error}") from error
        return {**data, "head": head}


class SimulateContrastsd(RandomizableTransform, MapTransform):
    """A head becomes `image`, five contrasts as some scanner took them, and `label`, by canonical protocol.

    Args:
        keys: one, the `physics.head.Head`.
        size: H and W, multiples of 2.
        fine_label: give the label at half a millimetre, for query grids.
        stripped_share: how often the brain is extracted.

    `image` is (C, H, W), `label` (C, H, W), or (C, 2 H, 2 W); both in [-1, 1], background at -1, scaled as
    whole volumes would be.
    """

    def __init__(
        self,
        keys: str = "head",
        *,
        size: Sequence[int] = (160, 192),
        fine_label: bool = False,
        stripped_share: float = 0.6,
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob=1.0)
        self.size, self.fine_label, self.stripped_share = tuple(size), fine_label, stripped_share
        self._rows, self._columns = (places_within(pixel_places(count, 1.0)) for count in self.size)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        rng = np.random.default_rng(self.R.randint(2**31))
        while (drawn := self._simulate(rng, data[self.keys[0]])) is None:
            pass  # beside the head, or where some contrast shows nothing
        sample: dict[Hashable, Any] = dict(drawn.items())
        return sample

    def _simulate(self, rng: np.random.Generator, head: Head) -> dict[str, torch.Tensor] | None:
        thickness = rng.uniform(*THICK_MM) if rng.random() < THICK_SHARE else 0.0
        scene = draw_scene(
            rng,
            head,
            (float(self.size[0]), float(self.size[1]), thickness),
            normal=int(rng.choice(3, p=PLANE_SHARES)),
            stripped_share=self.stripped_share,
        )
        signals, inside, *_ = render(scene, self._rows, self._columns, places_through(thickness))
        shown = to_pixels(inside.astype(np.float32)) > 0.5
        if (shown & (to_pixels(signals[0]) > 0)).mean() < LEAST_SHARE:
            return None
        voxels = sample_signals(rng, scene)
        acquired, canonical = slice(None, len(CONTRASTS)), slice(len(CONTRASTS), None)
        scan = draw_scan(rng, stripped=scene.stripped)
        image = [
            scan_plane(rng, scan, signal, shown, several)
            for signal, several in zip(np.abs(to_pixels(signals[acquired])), voxels.T[acquired], strict=True)
        ]
        fine = np.kron(shown, np.ones((FINE, FINE), bool))  # an extraction takes whole pixels
        label = np.stack(
            [
                scaled_plane(signal * fine, fine & (signal > 0), *percentiles(several))
                for signal, several in zip(np.abs(signals[canonical]), voxels.T[canonical], strict=True)
            ]
        )
        planes = label if self.fine_label else to_pixels(label)
        drawn = {"image": torch.from_numpy(np.stack(image)), "label": torch.from_numpy(planes)}
        return drawn if all(available(several[None]).all() for several in drawn.values()) else None
