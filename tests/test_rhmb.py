"""Token mixing, channel mixing, residual CNN; and the CNN blocks it is made of. Paper section 3.2."""

import pytest
import torch
from hmf_networks.blocks.conv import ConvBlock, ResidualBlock, UpConvBlock
from hmf_networks.blocks.rcg import RCG
from hmf_networks.blocks.rhmb import RHMB, TokenMixer
from torch import nn

patch_sizes = pytest.mark.parametrize("patch_size", [1, 2, 4])


def token_mixer(patch_size: int) -> TokenMixer:
    return TokenMixer(6, patch_size=patch_size, state_size=4, directions=4, expand=2)


@patch_sizes
def test_a_token_mixer_with_a_silent_branch_is_the_identity(patch_size):
    mixer, x = token_mixer(patch_size), torch.randn(2, 6, 8, 12)
    nn.init.zeros_(mixer.untokenise.weight)
    nn.init.zeros_(mixer.untokenise.bias)
    assert torch.equal(mixer(x), x)


def test_an_rhmb_with_nothing_to_say_is_relu():
    rhmb, x = RHMB(6).eval(), torch.randn(2, 6, 8, 12)
    nn.init.zeros_(rhmb.mix_tokens.untokenise.weight)
    nn.init.zeros_(rhmb.mix_tokens.untokenise.bias)
    nn.init.dirac_(rhmb.mix_channels.weight)
    nn.init.zeros_(rhmb.mix_channels.bias)
    nn.init.zeros_(rhmb.residual.body[1][0].weight)
    torch.testing.assert_close(rhmb(x), nn.functional.relu(x))


def test_a_new_rhmb_mixes_no_channels_yet():
    mix, x = RHMB(6).mix_channels, torch.randn(2, 6, 8, 12)
    torch.testing.assert_close(mix(x), x + mix.bias[:, None, None])


def test_a_closed_gate_silences_the_branch():
    mixer, x = token_mixer(2), torch.randn(1, 6, 8, 8)
    nn.init.zeros_(mixer.gate.weight)
    nn.init.constant_(mixer.gate.bias, -200.0)  # SiLU of it is 0
    nn.init.zeros_(mixer.untokenise.bias)
    torch.testing.assert_close(mixer(x), x)


def test_a_loud_branch_drowns_nothing():
    """The SSM is of fourth order in its branch: a thousandfold, were it not normalised, is 1e12."""
    mixer, x = token_mixer(2), torch.randn(1, 6, 16, 16)
    spoken = (mixer(x) - x).abs().max()
    with torch.no_grad():
        mixer.pointwise.weight *= 1000
        mixer.pointwise.bias *= 1000
    assert (mixer(x) - x).abs().max() < 5 * spoken


def test_in_float16_a_loud_branch_is_no_infinity():
    mixer, x = token_mixer(2), torch.randn(1, 6, 16, 16)
    with torch.no_grad():
        mixer.pointwise.bias.fill_(100.0)
    wanted = mixer(x)
    with torch.autocast("cpu", torch.float16):
        found = mixer(x)
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=0.05)


@patch_sizes
def test_a_map_becomes_one_token_for_every_patch(patch_size):
    mixer, seen = token_mixer(patch_size), []
    mixer.ssm.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape))
    mixer(torch.randn(1, 6, 8, 12))
    assert seen == [(1, 12, 8 // patch_size, 12 // patch_size)]


@patch_sizes
def test_token_mixing_reaches_from_corner_to_corner(patch_size):
    x = torch.randn(1, 6, 16, 16, requires_grad=True)
    (token_mixer(patch_size)(x) - x)[0, :, -1, -1].square().sum().backward()
    assert x.grad[0, :, 0, 0].abs().max() > 0


def test_tokens_do_not_change_when_the_map_is_shifted_and_scaled():
    mixer, x = token_mixer(1), torch.randn(1, 6, 4, 4)
    nn.init.dirac_(mixer.embed.weight)  # then LayerNorm sees the map itself
    nn.init.zeros_(mixer.embed.bias)
    torch.testing.assert_close(mixer(3 * x + 5) - (3 * x + 5), mixer(x) - x, rtol=1e-3, atol=1e-3)


@patch_sizes
@pytest.mark.parametrize("directions", [1, 2, 4])
def test_every_parameter_gets_a_gradient(patch_size, directions):
    rhmb = RHMB(16, patch_size=patch_size, directions=directions, state_size=4)
    x = torch.randn(2, 16, 8, 12)
    result = rhmb(x)
    assert result.shape == x.shape
    (result * torch.randn_like(result)).sum().backward()
    silent = [name for name, p in rhmb.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert silent == []


@pytest.mark.parametrize(("channels", "rank"), [(8, 1), (16, 1), (40, 3), (256, 16)])
def test_the_rank_of_the_step_size_is_a_sixteenth_of_the_channels_rounded_up(channels, rank):
    with torch.device("meta"):
        assert RHMB(channels).mix_tokens.ssm.sizes == [rank, 16, 16]


def test_a_residual_block_whose_body_is_silent_is_relu():
    block, x = ResidualBlock(4).eval(), torch.randn(1, 4, 5, 5)
    nn.init.zeros_(block.body[1][0].weight)
    assert torch.equal(block(x), nn.functional.relu(x))


def test_the_ends_of_a_residual_block_are_mirrored_so_that_a_constant_stays_constant():
    result = ResidualBlock(4).eval()(torch.full((1, 4, 5, 5), 0.7))
    torch.testing.assert_close(result, result[..., :1, :1].expand_as(result))


@pytest.mark.parametrize("kernel_size", [1, 3, 7])
@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_a_convolution_block_keeps_the_size(kernel_size, dilation):
    block = ConvBlock(3, 5, kernel_size=kernel_size, dilation=dilation)
    assert block(torch.randn(2, 3, 9, 11)).shape == (2, 5, 9, 11)


def test_stride_two_halves_and_a_transposed_block_doubles_the_size():
    x = torch.randn(2, 3, 8, 12)
    assert ConvBlock(3, 5, stride=2)(x).shape == (2, 5, 4, 6)
    assert UpConvBlock(3, 5)(x).shape == (2, 5, 16, 24)


def test_a_group_is_three_residual_blocks_in_a_row():
    group, x = RCG(4).eval(), torch.randn(1, 4, 5, 5)
    assert [type(block) for block in group] == [ResidualBlock] * 3
    assert torch.equal(group(x), group[2](group[1](group[0](x))))
