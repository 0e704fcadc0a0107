"""Batch normalisation folded into convolutions: the same function, and never an old one."""

import pytest
import torch
from torch import nn

from hmf_networks.engines.ready import Ready, fold_batch_norms
from hmf_networks.nets import HMFMambaINR


def used_network() -> HMFMambaINR:
    """Small, with statistics as after a training."""
    torch.manual_seed(0)
    network = HMFMambaINR(2, 2, 1, width=4, num_residual_blocks=1, append_foreground=True, encoder_skips=True)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return network.eval()


@torch.no_grad()
def test_a_folded_network_computes_the_same_without_a_single_norm_of_batches():
    network, image = used_network(), torch.rand(2, 2, 32, 40) * 2 - 1
    folded = fold_batch_norms(network)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(image), network(image), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_the_network_itself_stays_as_it_was():
    network = used_network()
    before = {name: x.clone() for name, x in network.state_dict().items()}
    fold_batch_norms(network)
    torch.testing.assert_close(dict(network.state_dict()), before, atol=0, rtol=0)


@torch.no_grad()
def test_it_is_folded_once_and_again_when_weights_change():
    fold, network, image = Ready(), used_network(), torch.rand(1, 2, 32, 32)
    first = fold(network)
    assert fold(network) is first
    network.load_state_dict({name: 1.1 * x for name, x in network.state_dict().items()})
    again = fold(network)
    assert again is not first
    torch.testing.assert_close(again(image), network(image), atol=1e-6, rtol=1e-5)
    other = used_network()
    assert fold(other) is not again


def test_what_cannot_be_folded_is_handed_on():
    fold, network = Ready(), used_network()
    assert fold(network) is network, "a gradient may be wanted"
    with torch.no_grad():
        assert fold(network.train()) is network
        assert fold(torch.tanh) is torch.tanh
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1)).eval())
        assert fold(scripted) is scripted


@pytest.mark.parametrize("transposed", [False, True])
@torch.no_grad()
def test_convolutions_of_both_kinds_are_folded(transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    block = nn.Sequential(kind(3, 5, 3, stride=2), nn.BatchNorm2d(5), nn.ReLU(inplace=True)).eval()
    block[1].running_mean.normal_()
    block[1].running_var.uniform_(0.5, 2)
    image = torch.randn(1, 3, 9, 9)
    torch.testing.assert_close(fold_batch_norms(block)(image), block(image), atol=1e-6, rtol=1e-5)
