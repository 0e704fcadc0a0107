"""Batch normalisation folded into convolutions: the same function, and never an old one."""

import pickle

import pytest
import torch
from hmf_networks.engines import SliceSynthesisInferer
from hmf_networks.engines.ready import Ready, fold_batch_norms
from hmf_networks.nets import HMFMambaINR
from torch import nn


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
def test_channels_come_last_in_what_computes_so_that_all_who_ask_get_the_same_numbers():
    network = used_network()
    with torch.no_grad():
        ready = Ready()(network)
    assert ready.encode_1[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert not network.encode_1[0].weight.is_contiguous(memory_format=torch.channels_last)


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


@torch.no_grad()
def test_an_interrupt_while_folding_leaves_no_network_of_old(monkeypatch):
    fold, network, image = Ready(), used_network(), torch.rand(1, 2, 32, 32)
    fold(network)
    network.head.output.bias.add_(0.5)
    monkeypatch.setattr("hmf_networks.engines.ready.fold_batch_norms", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fold(network)
    monkeypatch.undo()
    torch.testing.assert_close(fold(network)(image), network(image), atol=1e-6, rtol=1e-5)


def interrupted(_network: nn.Module) -> nn.Module:
    raise KeyboardInterrupt


def test_a_network_of_inference_tensors_is_handed_on_because_they_do_not_tell_when_they_change():
    with torch.inference_mode():
        network = used_network()
        assert Ready()(network) is network


@torch.no_grad()
def test_a_network_with_one_part_in_training_is_handed_on():
    network = used_network()
    network.head.train()
    assert Ready()(network) is network


def of_a_conv(conv: nn.Module, norm: nn.Module | None = None) -> nn.Sequential:
    return nn.Sequential(conv, norm or nn.BatchNorm2d(3), nn.ReLU()).eval()


@torch.no_grad()
def test_another_epsilon_is_another_state():
    fold, network, image = Ready(), of_a_conv(nn.Conv2d(3, 3, 1)), torch.randn(1, 3, 4, 4)
    fold(network)
    network[1].eps = 3.0
    torch.testing.assert_close(fold(network)(image), network(image))


@torch.no_grad()
def test_other_tensors_at_the_place_of_the_old_are_another_state():
    fold, network, image = Ready(), of_a_conv(nn.Conv2d(3, 3, 1)), torch.randn(1, 3, 4, 4)
    network[0].weight = nn.Parameter(torch.randn(3, 3, 1, 1))
    fold(network)
    network[0].weight.data.fill_(1)
    network[0].weight = nn.Parameter(network[0].weight.data)
    torch.testing.assert_close(fold(network)(image), network(image))


def hooked(module: nn.Module) -> nn.Module:
    module.register_forward_hook(lambda _module, _inputs, output: 2 * output)
    return module


UNFOLDED = {
    "norm by the batch": lambda: of_a_conv(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)),
    "parametrised": lambda: of_a_conv(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1))),
    "hook on the convolution": lambda: of_a_conv(hooked(nn.Conv2d(3, 3, 1))),
    "hook on the norm": lambda: of_a_conv(nn.Conv2d(3, 3, 1), hooked(nn.BatchNorm2d(3))),
}


@pytest.mark.parametrize("make", UNFOLDED.values(), ids=UNFOLDED)
@torch.no_grad()
def test_a_pair_whose_sum_is_not_one_convolution_is_left_and_computes_the_same(make):
    network, image = make(), torch.randn(2, 3, 4, 4)
    folded = Ready()(network)
    assert isinstance(folded[1], nn.BatchNorm2d)
    torch.testing.assert_close(folded(image), network(image))


@torch.no_grad()
def test_an_inferer_that_has_run_can_be_sent_to_another_process():
    inferer, network = SliceSynthesisInferer(size=(16, 16)), used_network()
    image = torch.rand(1, 2, 16, 16, 2)
    wanted = inferer(image, network)
    assert torch.equal(pickle.loads(pickle.dumps(inferer))(image, network), wanted)


@pytest.mark.parametrize("transposed", [False, True])
@torch.no_grad()
def test_convolutions_of_both_kinds_are_folded(transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    block = nn.Sequential(kind(3, 5, 3, stride=2), nn.BatchNorm2d(5), nn.ReLU(inplace=True)).eval()
    block[1].running_mean.normal_()
    block[1].running_var.uniform_(0.5, 2)
    image = torch.randn(1, 3, 9, 9)
    torch.testing.assert_close(fold_batch_norms(block)(image), block(image), atol=1e-6, rtol=1e-5)
