"""Extracted and decoded features compete for every channel. Paper section 3.4."""

import pytest
import torch
from hmf_networks.blocks.mfm import MFM, AddFusion
from torch import nn


def random_maps(channels: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, channels, 5, 7), torch.randn(2, channels, 5, 7)


def modulated_by(mfm: MFM, extracted: torch.Tensor, decoded: torch.Tensor) -> torch.Tensor:
    """What the module hands to its output convolution, first half."""
    seen = []
    mfm.output.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    mfm(extracted, decoded)
    return seen[0].chunk(2, dim=1)[0]


@pytest.mark.parametrize("size", [0.0, 1.0, 1e6])
def test_the_two_sources_share_a_weight_of_one_in_every_channel(size):
    extracted, decoded = random_maps()
    weights = MFM(8).weights(size * extracted, size * decoded)
    assert weights.shape == (2, 2, 8, 1, 1)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 8, 1, 1))
    assert weights.min() >= 0


def test_the_same_map_twice_is_modulated_into_itself():
    extracted, _ = random_maps()
    torch.testing.assert_close(modulated_by(MFM(8), extracted, extracted), extracted)


def test_the_modulated_map_lies_between_its_sources():
    extracted, decoded = random_maps()
    modulated = modulated_by(MFM(8), extracted, decoded)
    assert (modulated <= torch.maximum(extracted, decoded) + 1e-6).all()
    assert (modulated >= torch.minimum(extracted, decoded) - 1e-6).all()


@pytest.mark.parametrize("winner", [0, 1])
def test_a_source_that_wins_every_channel_is_taken_whole(winner):
    mfm, maps = MFM(8), [maps.abs() for maps in random_maps()]
    nn.init.ones_(mfm.score[0].weight)
    nn.init.zeros_(mfm.score[2].weight)
    mfm.score[2].weight.data[8 * winner : 8 * winner + 8] = 100
    torch.testing.assert_close(modulated_by(mfm, *maps), maps[winner])


def test_the_decoded_map_reaches_the_output_beside_the_mixture():
    mfm, (extracted, decoded) = MFM(8), random_maps()
    seen = []
    mfm.output.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    mfm(extracted, decoded)
    assert torch.equal(seen[0].chunk(2, dim=1)[1], decoded)


@pytest.mark.parametrize(("channels", "hidden"), [(8, 4), (64, 8), (256, 32)])
def test_the_bottleneck_has_an_eighth_of_the_channels_but_never_less_than_four(channels, hidden):
    assert MFM(channels).score[0].out_channels == hidden


def test_every_source_and_parameter_gets_a_gradient():
    mfm = MFM(8)
    maps = [maps.requires_grad_() for maps in random_maps()]
    result = mfm(*maps)
    (result * torch.randn_like(result)).sum().backward()
    assert all(x.grad is not None and x.grad.abs().max() > 0 for x in [*maps, *mfm.parameters()])


def test_the_stand_in_adds():
    extracted, decoded = random_maps()
    assert torch.equal(AddFusion(8)(extracted, decoded), extracted + decoded)
