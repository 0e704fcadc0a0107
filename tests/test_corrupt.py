"""Sources made worse on purpose: nothing where nothing is asked, more where more is, and the same again."""

import itertools

import numpy as np
import pytest
import torch
from hmf_networks.physics.motion import (
    SEVERITIES,
    Severity,
    blurred_somewhere,
    ghosted,
    kspace,
    moved_kspace,
    posed,
    with_motion,
)
from hmf_networks.transforms.corrupt import KINDS, LEVELS, CorruptSourcesd

STILL = Severity(0.0, 0.0, 0.0, 0.0)


def disc(height: int = 64, width: int = 80) -> np.ndarray:
    """A head of rings: 0 outside."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    radius = np.hypot(y / 0.7, x / 0.8)
    return np.where(radius < 1, 0.6 + 0.3 * np.cos(14 * radius), 0.0)


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((image - truth) ** 2)))


def volume(sources: int = 2) -> torch.Tensor:
    """(S, X, Y, Z) in [-1, 1]: a ball of shells, the first and the last plane empty."""
    x, y, z = np.mgrid[-1:1:48j, -1:1:40j, -1.05:1.05:44j]
    radius = np.hypot(np.hypot(x, y), z) / 0.9
    planes = np.where(radius < 1, 0.6 + 0.3 * np.cos(6 * radius), 0.0)
    return torch.from_numpy(np.stack([planes, planes**2][:sources])).float() * 2 - 1


def test_who_lies_still_is_seen_as_he_is():
    plane = disc()
    for seed in range(4):
        np.testing.assert_allclose(with_motion(plane, np.random.default_rng(seed), STILL, 1.0), plane, atol=1e-12)


def test_the_more_severe_the_farther_from_the_truth():
    plane = disc()
    means = [
        np.mean([psnr(with_motion(plane, np.random.default_rng(seed), s, 1.0), plane) for seed in range(12)])
        for s in SEVERITIES.values()
    ]
    assert means[0] > means[1] > means[2]


def test_the_same_seed_moves_the_same_way():
    one, again, other = (with_motion(disc(), np.random.default_rng(s), SEVERITIES["severe"], 1.0) for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.allclose(one, other)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_middle_of_kspace_is_of_the_pose_that_the_target_is_in(axis):
    plane = disc()
    read = np.moveaxis(moved_kspace(plane, np.random.default_rng(3), SEVERITIES["severe"], 1.0, axis), axis, 0)
    still = np.moveaxis(kspace(plane), axis, 0)
    same = np.array([np.array_equal(a, b) for a, b in zip(read, still, strict=True)])
    middle = len(read) // 2
    assert same[middle - 1 : middle + 1].all()
    assert not same[: middle // 2].any()


def test_a_pose_is_a_turn_about_the_centre_and_a_shift():
    plane = disc()
    np.testing.assert_allclose(posed(plane, 0.0, np.array([3.0, -2.0])), np.roll(plane, (3, -2), (0, 1)), atol=1e-12)
    square = disc(65, 65)
    np.testing.assert_allclose(posed(square, np.pi / 2, np.zeros(2)), np.rot90(square, -1), atol=1e-9)


def test_ghosts_come_from_lines_that_are_weakened_and_spare_the_middle():
    read = ghosted(np.ones((64, 8)), np.random.default_rng(5), 0.5, axis=0)[:, 0]
    weak = np.flatnonzero(read < 1)
    assert 6 <= len(weak) <= 22  # every third to eighth of 64
    assert read.min() >= 0.5
    assert not ((weak >= 30) & (weak <= 33)).any()


def test_blur_varies_over_the_plane_and_leaves_what_is_flat():
    assert np.allclose(blurred_somewhere(np.ones((40, 40)), np.random.default_rng(0), 2.0), 1)
    stripes = np.tile([0.0, 1.0], (40, 20))
    depth = np.ptp(blurred_somewhere(stripes, np.random.default_rng(0), 2.0).reshape(40, 20, 2), axis=2)
    assert depth.max() > 0.7
    assert depth.min() < 0.3


def test_motion_hurts_about_as_much_as_torchio_s():
    torchio = pytest.importorskip("torchio")
    planes = torch.from_numpy(np.stack([disc()] * 16, axis=-1)).float()[None]
    theirs = torchio.RandomMotion(degrees=5, translation=5, num_transforms=3)(torchio.ScalarImage(tensor=planes)).data
    ours = np.mean(
        [psnr(with_motion(disc(), np.random.default_rng(s), SEVERITIES["moderate"], 1.0), disc()) for s in range(8)]
    )
    assert abs(ours - psnr(theirs.numpy(), planes.numpy())) < 6


def test_nothing_is_done_where_nothing_is_asked():
    sample = {"image": volume(), "patient": "001"}
    assert CorruptSourcesd()(sample) == sample


@pytest.mark.parametrize("kind", KINDS)
def test_only_the_chosen_source_is_corrupted_and_each_level_more(kind):
    levels = list(SEVERITIES) if kind == "motion" else range(1, LEVELS + 1)
    image, before = volume(), []
    for level in levels:
        sample = CorruptSourcesd(kind=kind, level=level, sources=[1])({"image": image, "patient": "001"})
        assert torch.equal(sample["image"][0], image[0])
        assert sample["image"].dtype == image.dtype
        assert sample["image"].isfinite().all()
        assert sample["image"].abs().max() <= 1
        before.append(sample["input_psnr"])
    assert all(a > b for a, b in itertools.pairwise(before)), before


@pytest.mark.parametrize("kind", ["motion", "noise", "bias", "missing"])
def test_a_patient_is_corrupted_alike_by_every_method_and_unlike_others(kind):
    corrupt = CorruptSourcesd(kind=kind, level="mild" if kind == "motion" else 3)
    one, again, other = (corrupt({"image": volume(), "patient": who})["image"] for who in ("001", "001", "002"))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


@pytest.mark.parametrize("level", range(1, LEVELS + 1))
def test_a_thick_slice_lies_where_the_thin_one_lay(level):
    one = torch.full((1, 4, 4, 31), -1.0)
    one[..., 15] = 1
    profile = (CorruptSourcesd(kind="thick", level=level)({"image": one})["image"][0, 0, 0] + 1).numpy() / 2
    assert profile @ np.arange(31) / profile.sum() == pytest.approx(15)
    assert profile.sum() == pytest.approx(1, abs=1e-6)


def test_air_stays_air_under_noise_and_shading():
    for kind in ("noise", "bias"):
        image = volume()
        made = CorruptSourcesd(kind=kind, level=5)({"image": image})["image"]
        assert (made[image == -1] == -1).all()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kind": "motino"}, "did you mean 'motion'"),
        ({"kind": "motion", "level": 3}, "mild, moderate, severe"),
        ({"kind": "noise", "level": 6}, "1, 2, 3, 4, 5"),
        ({"kind": "noise", "sources": "first"}, "numbers from 0"),
    ],
)
def test_a_corruption_that_there_is_not_is_told(options, told):
    with pytest.raises(ValueError, match=told):
        CorruptSourcesd(**options)


def test_a_source_that_there_is_not_is_told():
    with pytest.raises(ValueError, match="there are 2"):
        CorruptSourcesd(kind="noise", sources=[2])({"image": volume()})
