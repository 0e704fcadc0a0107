"""Brains taken out of heads."""

import numpy as np
import pytest
import torch
from hmf_networks.naming import CONTRASTS
from hmf_networks.transforms.brain import ExtractBraind
from monai.data import MetaTensor

from tests.heads import BONE, CORTEX, FLUID, SKIN, SOFT, VENTRICLE, WHITE, ball_labels

BRIGHTNESS = {  # t1, flair and t2 of the tissues, about
    CORTEX: (300, 500, 450),
    WHITE: (400, 450, 350),
    VENTRICLE: (90, 80, 1000),
    FLUID: (90, 80, 1000),
    BONE: (20, 15, 20),
    SOFT: (900, 250, 500),
    SKIN: (700, 200, 300),
}


def head_volume(labels: np.ndarray, thickness: int = 1) -> MetaTensor:
    """(5, X, Y, Z) in the order of CONTRASTS; t1c and pd are missing."""
    volume = torch.zeros(len(CONTRASTS), *labels.shape)
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(labels.shape).astype(np.float32))
    for label, levels in BRIGHTNESS.items():
        for name, level in zip(("t1", "flair", "t2"), levels, strict=True):
            volume[CONTRASTS.index(name)][torch.from_numpy(labels == label)] = level
    present = [CONTRASTS.index(name) for name in ("t1", "flair", "t2")]
    volume[present] += torch.where(torch.from_numpy(labels > 0), 4 * noise, 0)
    affine = torch.diag(torch.tensor([1.0, 1.0, thickness, 1.0]))
    return MetaTensor(volume[..., ::thickness], affine=affine)


@pytest.mark.parametrize("thickness", [1, 4])
def test_the_brain_stays_as_it_is_and_the_scalp_goes(thickness):
    labels = ball_labels()
    volume = head_volume(labels, thickness)
    brain = ExtractBraind()({"image": volume.clone()})["image"]
    thin = labels[..., ::thickness]
    inside = np.isin(thin, (CORTEX, WHITE, VENTRICLE))
    left = (brain[0] != 0).numpy()
    assert left[inside].mean() > 0.97
    assert left[np.isin(thin, (SKIN, SOFT))].mean() < 0.01
    assert torch.equal(brain[:, left].as_subclass(torch.Tensor), volume[:, left].as_subclass(torch.Tensor))
    assert torch.equal(brain.affine, volume.affine)


def test_a_brain_without_skull_stays_whole():
    labels = ball_labels()
    labels[np.isin(labels, (SKIN, SOFT, BONE))] = 0
    volume = head_volume(labels)
    assert torch.equal(ExtractBraind()({"image": volume.clone()})["image"], volume)


def test_a_contrast_where_fluid_is_dark_is_needed():
    volume = head_volume(ball_labels())
    for name in ("t1", "flair"):
        volume[CONTRASTS.index(name)] = 0
    assert torch.equal(ExtractBraind()({"image": volume.clone()})["image"], volume)
    assert torch.equal(ExtractBraind(contrasts=["t2", "pd"])({"image": volume[[2, 4]]})["image"], volume[[2, 4]])


def test_one_of_them_is_enough():
    labels = ball_labels()
    for name in ("t1", "flair"):
        volume = head_volume(labels)
        volume[CONTRASTS.index(name)] = 0
        brain = ExtractBraind()({"image": volume.clone()})["image"]
        assert (brain[2] != 0).numpy()[np.isin(labels, (CORTEX, WHITE))].mean() > 0.97
        assert (brain[2] != 0).numpy()[np.isin(labels, (SKIN, SOFT))].mean() < 0.01


def test_planes_beyond_the_brain_are_empty_and_small_heads_stay():
    labels = ball_labels()
    brain = ExtractBraind()({"image": head_volume(labels)})["image"]
    beyond = ~np.isin(labels, (CORTEX, WHITE, FLUID)).any(axis=(0, 1))
    assert (labels[..., beyond] > 0).any()
    assert not brain[..., torch.from_numpy(beyond)].any()
    small = head_volume(labels[::4, ::4, ::4])  # 26 voxels wide, taken for 26 mm
    assert torch.equal(ExtractBraind()({"image": small.clone()})["image"], small)
