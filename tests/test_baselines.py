"""One contract that all generators pass, and what each of the methods rests on. Small where they are run."""

import functools
import math

import pytest
import torch
from hmf_networks.baselines.cacrnet import CACRNet, estimate_loss
from hmf_networks.baselines.hinet import HiNet, MixedFusion, reconstruction_loss
from hmf_networks.baselines.i2i_mamba import I2IMamba, Mamba
from hmf_networks.baselines.inr_ecgan import INRECGAN, LocalImplicitFunction
from hmf_networks.baselines.ptnet import PTNet, TokenPerformer, linear_attention, position_codes
from hmf_networks.baselines.resvit import ResViT, Transformer
from hmf_networks.nets import HMFMambaINR
from hmf_networks.ops.coordinates import pixel_centres
from torch import Tensor, nn

GENERATORS = {
    "HMF-MambaINR": functools.partial(HMFMambaINR, width=8, state_size=4, inr_hidden_channels=16),
    "HiNet": functools.partial(HiNet, width=4),
    "PTNet": functools.partial(PTNet, width=4, num_layers=1),
    "CACR-Net": functools.partial(CACRNet, width=4),
    "ResViT": functools.partial(ResViT, width=4, num_layers=1),
    "INR-ECGAN": functools.partial(INRECGAN, width=4),
    "I2I-Mamba": functools.partial(I2IMamba, width=4),
}
WITH_SIDE_OUTPUTS = {"HiNet": reconstruction_loss, "CACR-Net": estimate_loss}
SCRIPTED = ("HMF-MambaINR", "I2I-Mamba")
ORIGINALS = {  # parameters in millions as counted on the authors' code, with their own number of sources
    "HiNet": (HiNet, 3.87),
    "PTNet": (PTNet, 27.6),
    "ResViT": (ResViT, 123.4),
    "INR-ECGAN": (INRECGAN, 78.2),
    "I2I-Mamba": (I2IMamba, 18.8),
}
generators = pytest.mark.parametrize("name", GENERATORS)


def plane(*shape: int, channels: int = 2) -> Tensor:
    """Sources in [-1, 1] made of sines: alike on every machine."""
    batch, height, width = shape
    b, c, y, x = (torch.arange(float(size)) for size in (batch, channels, height, width))
    phase = 1 + b[:, None, None, None] + 2 * c[None, :, None, None]
    return torch.sin(phase * (0.03 * y[:, None] + 0.02 * x + 0.002 * y[:, None] * x))


@generators
@pytest.mark.parametrize(("sources", "targets"), [(1, 1), (2, 1), (3, 2), (4, 1)])
def test_every_generator_learns_with_all_its_parameters_from_any_number_of_sources(name, sources, targets):
    network = GENERATORS[name](in_channels=sources, out_channels=targets)
    image = plane(2, 64, 96, channels=sources)
    made = network(image, side_outputs=True) if name in WITH_SIDE_OUTPUTS else network(image)
    assert made[:, :targets].shape == (2, targets, 64, 96)
    assert made.isfinite().all()
    assert made.abs().max() <= 1
    (made * torch.randn_like(made)).sum().backward()
    assert [key for key, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0] == []
    assert all(p.grad.isfinite().all() for p in network.parameters())


@generators
@pytest.mark.parametrize("size", [(128, 128), (192, 160), (256, 256)], ids=str)
def test_every_generator_takes_the_planes_of_the_studies_and_repeats_itself(name, size):
    network = GENERATORS[name](in_channels=2, out_channels=1).eval()
    image = plane(1, *size)
    with torch.no_grad():
        made = network(image)
        assert torch.equal(made, network(image))
    assert made.shape == (1, 1, *size)


@generators
def test_every_generator_refuses_a_plane_that_does_not_fit_in_one_line(name):
    with pytest.raises(ValueError, match="pad both sides to a multiple of"):
        GENERATORS[name](in_channels=2, out_channels=1)(plane(1, 50, 64))


@generators
def test_every_generator_is_built_again_from_what_model_json_remembers(name):
    network = GENERATORS[name](in_channels=3, out_channels=2)
    again = type(network)(**network.arguments)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in network.state_dict().items()}


@pytest.mark.parametrize("name", SCRIPTED)
def test_what_is_said_to_be_scriptable_is(name):
    network = GENERATORS[name](in_channels=2, out_channels=1).eval()
    image = plane(1, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(network)(image), network(image), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ORIGINALS)
def test_originals_have_their_authors_number_of_parameters(name):
    build, millions = ORIGINALS[name]
    with torch.device("meta"):
        network = build()
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.05)


@pytest.mark.parametrize("name", WITH_SIDE_OUTPUTS)
def test_a_prediction_is_the_same_whether_side_outputs_are_asked_for_or_not(name):
    network = GENERATORS[name](in_channels=2, out_channels=1).eval()
    image = plane(1, 32, 32)
    with torch.no_grad():
        assert torch.equal(network(image, side_outputs=True)[:, :1], network(image))


def test_hinet_fuses_contrasts_in_any_order():
    fuse = MixedFusion(3, 2, 5).eval()
    maps, before = [torch.randn(1, 3, 8, 8) for _ in range(3)], torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(fuse(maps, before), fuse(maps[::-1], before))


def test_hinet_is_judged_by_the_sources_it_draws_again():
    image, target = plane(2, 16, 16), plane(2, 16, 16, channels=1)
    assert reconstruction_loss(image, image, target) == 0
    assert reconstruction_loss(image + 0.1, image, target) == pytest.approx(20 * 2 * 0.1, rel=1e-4)


def test_cacrnet_lets_guesses_of_one_mind_pass():
    network = CACRNet(in_channels=3, width=4)
    network.guess = nn.ModuleList([Constant(0.3, confidence) for confidence in (-2.0, 0.0, 5.0)])
    aggregate = network(plane(1, 16, 16, channels=3), side_outputs=True)[:, 1]
    torch.testing.assert_close(aggregate, torch.full_like(aggregate, math.tanh(0.3)))


def test_cacrnet_follows_whom_it_trusts():
    network = CACRNet(in_channels=2, width=4)
    network.guess = nn.ModuleList([Constant(-0.5, -30.0), Constant(0.7, 30.0)])
    aggregate = network(plane(1, 16, 16), side_outputs=True)[:, 1]
    torch.testing.assert_close(aggregate, torch.full_like(aggregate, math.tanh(0.7)))


def test_cacrnet_is_judged_by_every_guess():
    target = plane(2, 16, 16, channels=2)
    right = torch.cat([target] * 3, dim=1)
    assert estimate_loss(right, plane(2, 16, 16), target) == 0
    right[:, :2] += 0.1  # the aggregate alone
    assert estimate_loss(right, plane(2, 16, 16), target) == pytest.approx(100 * 0.1, rel=1e-4)


class Constant(nn.Module):
    def __init__(self, estimate: float, confidence: float) -> None:
        super().__init__()
        self.values = (estimate, confidence)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.full_like(x, value) for value in self.values], dim=1)


def test_mamba_sees_no_later_token():
    mamba = Mamba(8).eval()
    tokens = torch.randn(1, 12, 8)
    later = tokens.clone()
    later[:, 7:] += 1
    with torch.no_grad():
        before, after = mamba(tokens), mamba(later)
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert not torch.allclose(before[:, 7:], after[:, 7:])


def test_linear_attention_is_attention_with_a_kernel_that_factorises():
    query, key, value = torch.rand(2, 9, 5), torch.rand(2, 9, 5), torch.randn(2, 9, 3)
    scores = query @ key.transpose(1, 2)
    wanted = (scores / scores.sum(dim=2, keepdim=True)) @ value
    torch.testing.assert_close(linear_attention(query, key, value), wanted)


def test_random_features_estimate_the_exponential_kernel():
    attend = TokenPerformer(4, 64)
    attend.directions = torch.randn(20_000, 64)
    query, key = 0.15 * torch.randn(1, 6, 64), 0.15 * torch.randn(1, 6, 64)
    estimate = attend._features(query, over=(2,)) @ attend._features(key, over=(1, 2)).transpose(1, 2)
    shares = estimate / estimate.sum(dim=2, keepdim=True)  # what attention makes of it
    torch.testing.assert_close(shares, (query @ key.transpose(1, 2)).softmax(dim=2), rtol=0.25, atol=0)


def test_ptnet_stays_finite_in_half_precision():
    network = PTNet(in_channels=2, width=16, num_layers=1)
    with torch.autocast("cpu", torch.float16):
        made = network(plane(1, 64, 64))
    assert made.isfinite().all()


def test_inr_ecgan_learns_from_one_plane_at_a_time():
    network = GENERATORS["INR-ECGAN"](in_channels=2, out_channels=1).train()
    assert network(plane(1, 64, 64)).isfinite().all()


def test_position_codes_tell_every_place_apart():
    codes = position_codes(6, 7, 33)
    distances = torch.cdist(codes, codes) + torch.eye(42) * 9
    assert codes.shape == (42, 33)
    assert distances.min() > 0.1


def test_resvit_asks_one_transformer_twice_and_codes_positions_of_any_plane():
    network = ResViT(width=4, num_layers=1)
    calls = []
    network.transformer.register_forward_hook(lambda *_: calls.append(1))
    network(plane(1, 64, 96))
    assert len(calls) == 2
    transformer = Transformer(4, 24, num_layers=1)
    transformer.layers = Passed()
    nn.init.zeros_(transformer.embed.weight)
    nn.init.zeros_(transformer.embed.bias)
    torch.testing.assert_close(transformer(torch.zeros(1, 4, 16, 16)), transformer.positions)


class Passed(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return tokens


def test_inr_ecgan_decodes_any_grid():
    network = GENERATORS["INR-ECGAN"](in_channels=2, out_channels=1).eval()
    rows, columns = pixel_centres(64, 50, None), pixel_centres(96, 131, None)
    with torch.no_grad():
        assert network(plane(1, 64, 96), coordinates=(rows, columns)).shape == (1, 1, 50, 131)


def test_the_local_implicit_function_interpolates_between_what_four_cells_say():
    decode = LocalImplicitFunction(1, 1, hidden_channels=4)
    decode.mlp = nn.Linear(5, 1)
    with torch.no_grad():
        decode.mlp.weight.copy_(torch.tensor([[1.0, 0, 0, 0, 0]]))  # the feature itself, wherever asked
        decode.mlp.bias.zero_()
    ramp = 0.1 * torch.arange(8.0).view(1, 1, 8, 1).expand(1, 1, 8, 8)
    rows = torch.tensor([0.5, 1.5, 2.5, 7.25])  # cells of two pixels have their centres at 0.5, 2.5, ...
    made = decode(ramp, rows, torch.tensor([4.5, 6.0]))
    torch.testing.assert_close(torch.atanh(made[0, 0, :, 0]), 0.1 * (rows - 0.5) / 2)
