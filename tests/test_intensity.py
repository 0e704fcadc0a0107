import numpy as np
import pytest
import torch
from hmf_networks.ops.foreground import foreground
from hmf_networks.transforms.intensity import RestoreIntensityd, ScaleForegroundd, scale_by_foreground
from monai.data import MetaTensor


def head(*, background: float = 0.0) -> torch.Tensor:
    """A block of tissue of 100 to 900 in the middle of plain background, (X, Y, Z)."""
    volume = torch.full((16, 18, 20), background)
    volume[4:-4, 4:-4, 4:-4] = 100 + 800 * torch.rand(8, 10, 12)
    return volume


def inside(volume: torch.Tensor) -> torch.Tensor:
    return volume[4:-4, 4:-4, 4:-4]


def test_percentiles_of_the_foreground_land_on_minus_one_and_one():
    volume = head()
    tissue = inside(scale_by_foreground(volume, lower=10, upper=90))
    low, high = np.percentile(inside(volume), [10, 90])
    np.testing.assert_allclose(tissue, ((inside(volume) - low) / (high - low) * 2 - 1).clip(-1, 1), atol=1e-6)
    assert (tissue < -1 + 1e-5).float().mean() == pytest.approx(0.1, abs=0.002)
    assert (tissue == 1).float().mean() == pytest.approx(0.1, abs=0.002)


def test_foreground_is_the_tissue_although_the_air_is_noisy():
    volume = head() + 20 * torch.rand(16, 18, 20)
    tissue = torch.zeros(16, 18, 20, dtype=torch.bool)
    tissue[4:-4, 4:-4, 4:-4] = True
    assert torch.equal(foreground(volume), tissue)


@pytest.mark.parametrize("background", [0.0, -1024.0, 37.5, 450.0, 3000.0])
def test_exact_background_becomes_exactly_minus_one_whatever_it_was(background):
    volume = head(background=background)
    scaled = scale_by_foreground(volume)
    assert torch.all(scaled[volume == background] == -1)
    assert inside(scaled).max() == 1


@pytest.mark.parametrize("factor", [1e-6, 0.013, 2.0, 1e6])
def test_the_scanner_gain_changes_nothing(factor):
    volume = head()
    torch.testing.assert_close(scale_by_foreground(volume * factor), scale_by_foreground(volume), atol=2e-6, rtol=0)


def test_every_channel_is_scaled_alone():
    one, other = head(), head()
    together = ScaleForegroundd("image")({"image": MetaTensor(torch.stack([one, other * 50]))})["image"]
    torch.testing.assert_close(together[0].as_subclass(torch.Tensor), scale_by_foreground(one))
    torch.testing.assert_close(together[1].as_subclass(torch.Tensor), scale_by_foreground(other * 50))


def test_scaling_keeps_the_place_of_the_volume():
    affine = torch.diag(torch.tensor([-2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    scaled = ScaleForegroundd("image")({"image": MetaTensor(head()[None], affine=affine)})["image"]
    assert torch.equal(scaled.affine, affine)


def test_background_is_what_no_source_shows_and_is_restored_to_zero():
    one, other = head(), head()
    one[4] = 0  # a source may lack what the other shows
    sample = {"image": MetaTensor(torch.stack([one, other]))}
    sample = ScaleForegroundd("image", background_key="background")(sample)
    sample["pred"] = torch.full((1, 16, 18, 20), 0.5)
    restored = RestoreIntensityd("pred")(sample)["pred"][0]
    assert torch.all(restored[other == 0] == 0)
    assert torch.all(restored[other != 0] == 750)


@pytest.mark.parametrize("value", [0.0, 37.5])
def test_a_channel_without_signal_is_background_all_over_and_leaves_it_to_the_others(value):
    one = head()
    sample = {"image": MetaTensor(torch.stack([torch.full_like(one, value), one]))}
    sample = ScaleForegroundd("image", background_key="background")(sample)
    assert torch.all(sample["image"][0] == -1)
    assert torch.equal(sample["background"][0], one == 0)


def test_restored_values_follow_the_fixed_map_within_0_and_1000():
    pred = torch.tensor([-3.0, -1.0, -0.5, 0.0, 1.0, 1.7]).reshape(1, 6, 1, 1)
    restored = RestoreIntensityd("pred", background_key=None)({"pred": pred})["pred"]
    assert restored.flatten().tolist() == [0, 0, 250, 500, 1000, 1000]


def test_the_darkest_foreground_is_clipped_yet_not_taken_for_background():
    volume = torch.zeros(12, 12, 12)
    volume[3:9, 3:9, 3:9] = torch.arange(1.0, 217.0).reshape(6, 6, 6)
    scaled = scale_by_foreground(volume)
    assert torch.equal(scaled > -1, volume > 0)
    assert scaled[3, 3, 3].item() == pytest.approx(-1, abs=1e-5)
