"""An ablation is fair when what stands in has as many parameters as what it replaces."""

import pytest
import torch
from hmf_networks.blocks.inrb import INRB
from hmf_networks.blocks.rhmb import RHMB
from hmf_networks.blocks.stand_ins import ConvContext, PixelHead, matching_width, mlp_head, num_parameters, pixel_head
from hmf_networks.ops.coordinates import pixel_centres
from torch import nn

HEAD = {"hidden_channels": 64, "num_hidden": 3, "num_frequencies": 10}
heads = pytest.mark.parametrize("head", [mlp_head, pixel_head])


def test_parameters_are_counted_one_by_one():
    assert num_parameters(nn.Linear(3, 5)) == 3 * 5 + 5


@pytest.mark.parametrize(("wanted", "width"), [(1, 1), (40, 10), (41, 10), (43, 11), (10**9, 20)])
def test_the_matching_width_comes_closest(wanted, width):
    assert matching_width(lambda width: nn.Linear(3, width), wanted, largest=20) == width


@pytest.mark.parametrize("patch_size", [1, 2, 4])
@pytest.mark.parametrize("channels", [64, 256])
def test_four_convolutions_have_the_parameters_of_an_rhmb(channels, patch_size):
    with torch.device("meta"):
        wanted = num_parameters(RHMB(channels, patch_size=patch_size))
        found = num_parameters(ConvContext(channels, patch_size=patch_size))
    assert found == pytest.approx(wanted, rel=0.02)


def test_the_convolutions_keep_the_shape_of_the_map():
    assert ConvContext(8, patch_size=2)(torch.randn(2, 8, 6, 10)).shape == (2, 8, 6, 10)


@heads
def test_a_head_has_the_parameters_of_an_inrb(head):
    with torch.device("meta"):
        wanted, found = num_parameters(INRB(64, 1)), num_parameters(head(64, 1, stride=2, **HEAD))
    assert found == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("stride", [1, 2])
@heads
def test_a_head_decodes_on_its_own_pixels_what_its_layers_say(head, stride):
    decode, features = head(8, 2, stride=stride, **HEAD), torch.randn(2, 8, 6, 5)
    full = nn.functional.interpolate(features, scale_factor=stride, mode="bilinear")
    decoded = decode(features, pixel_centres(6 * stride, 6 * stride), pixel_centres(5 * stride, 5 * stride))
    torch.testing.assert_close(decoded, decode.head(full).tanh())


@heads
def test_a_head_on_another_grid_is_its_own_image_resampled(head):
    decode, features = head(8, 2, stride=2, **HEAD), torch.randn(2, 8, 6, 5)
    own = decode(features, pixel_centres(12, 12), pixel_centres(10, 10))
    resampled = nn.functional.interpolate(own, (30, 7), mode="bilinear")
    torch.testing.assert_close(decode(features, pixel_centres(12, 30), pixel_centres(10, 7)), resampled)


def test_the_mlp_sees_one_pixel_and_the_pixel_head_its_surroundings():
    for head, reach in ((mlp_head, 0), (pixel_head, 4)):  # 3x3 reaches 1 pixel, 7x7 another 3
        features = torch.randn(1, 4, 11, 11, requires_grad=True)
        decode = head(4, 1, stride=1, **HEAD)
        assert isinstance(decode, PixelHead)
        decode(features, torch.tensor([5.0]), torch.tensor([5.0])).sum().backward()
        seen = features.grad[0].abs().sum(0).nonzero()
        assert (seen.min().item(), seen.max().item()) == (5 - reach, 5 + reach)
