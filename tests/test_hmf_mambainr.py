"""The whole network: small (width 8, 32 x 32) where it is run, full-sized where it is only counted."""

import pytest
import torch
from hmf_networks.nets import HMFMambaINR
from hmf_networks.ops.coordinates import pixel_centres, sample_plane
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

VARIANTS = {
    "paper": {},
    "w/o RHMB": {"context": "conv"},
    "w/o MFEB": {"multi_scale": "concat"},
    "w/o MSF": {"selective_fusion": "conv"},
    "w/o MFM": {"modulation": "add"},
    "w/o INR": {"decoder": "mlp"},
    "pixel decoder": {"decoder": "pixel"},
    "encoder skips": {"encoder_skips": True},
    "foreground channel": {"append_foreground": True},
    "stride 1": {"inr_stride": 1},
    "one direction": {"directions": 1},
    "two directions": {"directions": 2},
    "patch 1": {"patch_size": 1},
    "patch 4": {"patch_size": 4},
    "any to any": {"in_channels": 10, "out_channels": 5},
}
variants = pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)


def small(**options: object) -> HMFMambaINR:
    return HMFMambaINR(**{"width": 8, "state_size": 4, "inr_hidden_channels": 16} | options)


def plane(*shape: int, channels: int = 2) -> Tensor:
    """Sources in [-1, 1] made of sines: alike on every machine, and smooth enough for a golden number."""
    batch, height, width = shape
    b, c, y, x = (torch.arange(float(size)) for size in (batch, channels, height, width))
    phase = 1 + b[:, None, None, None] + 2 * c[None, :, None, None]
    return torch.sin(phase * (0.3 * y[:, None] + 0.2 * x + 0.02 * y[:, None] * x))


@variants
def test_every_variant_learns_with_all_its_parameters(options):
    model = small(**options)
    image = plane(2, 32, 48, channels=options.get("in_channels", 2))
    synthesised = model(image)
    assert synthesised.shape == (2, options.get("out_channels", 1), 32, 48)
    assert synthesised.isfinite().all()
    assert synthesised.abs().max() <= 1
    (synthesised * torch.randn_like(synthesised)).sum().backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert silent == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


@variants
def test_every_variant_repeats_itself_in_eval_mode(options):
    model = small(**options).eval()
    image = plane(1, 32, 32, channels=options.get("in_channels", 2))
    with torch.no_grad():
        assert torch.equal(model(image), model(image))


@variants
def test_every_variant_decodes_any_grid(options):
    model = small(**options).eval()
    image = plane(1, 32, 48, channels=options.get("in_channels", 2))
    with torch.no_grad():
        assert model(image, output_size=(20, 61)).shape[2:] == (20, 61)


def test_every_ablation_changes_the_network():
    with torch.device("meta"):
        sizes = {name: tuple(small(**options).state_dict()) for name, options in VARIANTS.items()}
    for name in ("w/o RHMB", "w/o MFEB", "w/o MSF", "w/o MFM", "w/o INR"):
        assert sizes[name] != sizes["paper"], name


def test_the_default_has_about_twenty_million_parameters():
    with torch.device("meta"):
        model = HMFMambaINR()
    assert 18e6 < sum(parameter.numel() for parameter in model.parameters()) < 22e6


def test_the_default_needs_seventy_to_ninety_five_giga_macs_for_a_slice():
    with FakeTensorMode(), FlopCounterMode(display=False) as counter, torch.no_grad():  # shapes, no numbers
        HMFMambaINR().eval()(torch.empty(1, 2, 256, 256))
    assert 70e9 < counter.get_total_flops() / 2 < 95e9


def test_without_coordinates_the_planes_own_pixels_are_decoded():
    model, image = small().eval(), plane(1, 32, 48)
    own = (pixel_centres(32, 32), pixel_centres(48, 48))
    with torch.no_grad():
        assert torch.equal(model(image), model(image, own))
        assert torch.equal(model(image), model(image, output_size=(32, 48)))


def test_an_output_size_is_short_for_pixels_that_cover_the_plane():
    model, image = small().eval(), plane(1, 32, 48)
    with torch.no_grad():
        covered = model(image, (pixel_centres(32, 20), pixel_centres(48, 61)))
        assert torch.equal(model(image, output_size=(20, 61)), covered)


def test_a_region_is_decoded_as_in_the_whole():
    model, image = small().eval(), plane(1, 32, 48)
    with torch.no_grad():
        region = model(image, (torch.arange(3.0, 8), torch.arange(40.0, 48)))
        torch.testing.assert_close(region, model(image)[:, :, 3:8, 40:])


def test_features_are_computed_once_and_decoded_at_many_grids():
    model, image, calls = small().eval(), plane(1, 32, 32), []
    model.head.register_forward_pre_hook(lambda _, arguments: calls.append(arguments[0]))
    with torch.no_grad():
        model(image)
        model(image, output_size=(20, 20))
        features = model.features(image)
    assert features.shape == (1, 8, 16, 16)
    assert torch.equal(calls[0], features)
    assert torch.equal(calls[1], features)


@pytest.mark.parametrize("patch_size", [1, 2, 4])
@pytest.mark.parametrize("multiples", [(2, 2), (2, 5), (5, 3)])
def test_any_plane_that_patches_tile_is_taken(patch_size, multiples):
    height, width = (4 * patch_size * multiple for multiple in multiples)
    with torch.no_grad():
        assert small(patch_size=patch_size).eval()(plane(1, height, width)).shape == (1, 1, height, width)


@pytest.mark.parametrize("patch_size", [2, 4])
def test_even_a_plane_of_a_single_patch_is_taken(patch_size):
    side = 4 * patch_size
    with torch.no_grad():
        assert small(patch_size=patch_size).eval()(plane(1, side, side)).shape == (1, 1, side, side)


@pytest.mark.parametrize(("patch_size", "height", "width"), [(1, 30, 32), (2, 32, 36), (4, 40, 32)])
def test_a_plane_that_patches_cannot_tile_is_refused_by_its_size(patch_size, height, width):
    with pytest.raises(ValueError, match=f"{height} x {width} pixels.*multiple of {4 * patch_size}"):
        small(patch_size=patch_size)(plane(1, height, width))


@pytest.mark.parametrize(
    ("name", "value", "choices"),
    [
        ("spatial_dims", 3, r"\[2\]"),
        ("patch_size", 3, r"\[1, 2, 4\]"),
        ("directions", 3, r"\(1, 2, 4\)"),
        ("inr_stride", 4, r"\[1, 2\]"),
        ("context", "mamba", r"\['rhmb', 'conv'\]"),
        ("multi_scale", "mfbe", r"\['mfeb', 'concat'\]"),
        ("selective_fusion", "sum", r"\['msf', 'conv'\]"),
        ("modulation", "mfn", r"\['mfm', 'add'\]"),
        ("decoder", "inr", r"\['inrb', 'mlp', 'pixel'\]"),
    ],
)
def test_a_wrong_option_is_refused_and_the_choices_are_named(name, value, choices):
    with pytest.raises(ValueError, match=rf"{name} must be one of {choices}, got '?{value}'?"):
        small(**{name: value})


def with_formula_weights(model: nn.Module) -> nn.Module:
    """Every parameter set by the sine of its squared running index: as good as random, yet no seed."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            index = torch.arange(1.0, parameter.numel() + 1, dtype=torch.float64)
            wave = torch.sin(index.square()).reshape(parameter.shape)
            if name.endswith("A_log"):
                parameter.copy_(0.5 + 0.5 * wave)
            elif parameter.dim() > 1:
                parameter.copy_(wave * (1.6 / parameter[0].numel()) ** 0.5)
            else:
                parameter.copy_(0.3 * wave + (0 if name.endswith("bias") else 1))
    return model.eval()


def test_the_network_gives_the_numbers_it_always_gave():
    model = with_formula_weights(small())
    with torch.no_grad():
        synthesised = model(plane(1, 32, 32))[0, 0]
    golden = [
        [-0.593125, -0.479689, -0.589465, -0.471166],
        [-0.517735, -0.400947, -0.499613, -0.390490],
        [-0.609341, -0.506024, -0.614615, -0.503964],
        [-0.498070, -0.392474, -0.501024, -0.386148],
    ]
    torch.testing.assert_close(synthesised[::9, ::9], torch.tensor(golden), rtol=0, atol=1e-4)


def test_float64_agrees_with_float32():
    model, image = with_formula_weights(small()), plane(1, 32, 32)
    with torch.no_grad():
        single = model(image)
        double = model.double()(image.double())
    assert double.dtype == torch.float64
    torch.testing.assert_close(single.double(), double, rtol=0, atol=1e-5)


def test_coordinates_may_come_in_float64():
    model, image = small().eval(), plane(1, 32, 32)
    grid = (torch.arange(5.0), torch.arange(7.0) + 0.3)
    with torch.no_grad():
        torch.testing.assert_close(model(image, (grid[0].double(), grid[1].double())), model(image, grid))


def test_a_batch_of_two_is_two_batches_of_one():
    model, image = small().eval(), plane(2, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(model(image), torch.cat([model(image[:1]), model(image[1:])]), rtol=0, atol=1e-5)


def test_half_a_batch_of_noise_does_not_reach_the_other_half():
    model, image = small().eval(), plane(2, 32, 32)
    with torch.no_grad():
        noisy = torch.stack([image[0], torch.randn(2, 32, 32)])
        torch.testing.assert_close(model(noisy)[0], model(image)[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["paper", "w/o RHMB", "w/o MFEB", "w/o MFM", "w/o INR", "encoder skips"])
def test_a_scripted_network_equals_the_eager_one_at_other_sizes(name):
    model = small(**VARIANTS[name]).eval()
    scripted = torch.jit.script(model)
    with torch.no_grad():
        for height, width, size in ((32, 32, None), (16, 48, (20, 33))):
            image = plane(1, height, width)
            torch.testing.assert_close(scripted(image, None, size), model(image, output_size=size), rtol=0, atol=1e-5)
        grid = (torch.arange(3.0), torch.arange(5.0) + 0.3)
        torch.testing.assert_close(scripted(image, grid), model(image, grid), rtol=0, atol=1e-5)


def test_the_inr_knows_more_than_resampling_its_own_image():
    model, image = small().eval(), plane(1, 32, 32)
    grid = (pixel_centres(32, 50), pixel_centres(32, 50))
    with torch.no_grad():
        assert (model(image, grid) - sample_plane(model(image), *grid)).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["encoder_skips", "append_foreground"])
def test_a_switch_that_arrives_as_a_text_is_refused(name):
    with pytest.raises(ValueError, match=name):
        HMFMambaINR(width=4, **{name: "false"})
