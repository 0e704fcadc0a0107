"""Scales compete for every channel, and none can be switched off. Paper section 3.3."""

import math

import pytest
import torch
from hmf_networks.blocks.mfeb import DILATIONS, MFEB, MSF, ConcatReduce, ConvFusion
from torch import nn

LOWEST, HIGHEST = 1 / (1 + 3 * math.e), math.e / (math.e + 3)


def random_scales(num_scales: int = 4, channels: int = 6) -> list[torch.Tensor]:
    return [torch.randn(2, channels, 5, 7) for _ in range(num_scales)]


@pytest.mark.parametrize("size", [0.0, 1.0, 1e6])
def test_weights_sum_to_one_and_no_scale_is_ever_switched_off(size):
    weights = MSF(6).weights([size * (1 + index) * scale for index, scale in enumerate(random_scales())])
    assert weights.shape == (2, 4, 6, 1, 1)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 6, 1, 1))
    assert weights.min() >= LOWEST - 1e-6
    assert weights.max() <= HIGHEST + 1e-6


def test_the_bounds_of_the_weights_are_reached():
    msf = MSF(1)
    for parameter in msf.parameters():
        nn.init.constant_(parameter, 1.0 if parameter.dim() > 1 else 0.0)
    far_above, far_below = torch.full((1, 1, 2, 2), 1e6), torch.full((1, 1, 2, 2), -1e6)
    one_above = msf.weights([far_above, far_below, far_below, far_below]).flatten()
    one_below = msf.weights([far_below, far_above, far_above, far_above]).flatten()
    assert one_above[0].item() == pytest.approx(HIGHEST)
    assert one_below[0].item() == pytest.approx(LOWEST)


def test_equal_scales_pass_through_fusion_unchanged():
    scale = torch.randn(2, 6, 5, 7)
    torch.testing.assert_close(MSF(6)([scale] * 4), scale)


def test_weights_follow_their_scales_when_these_are_reordered():
    msf, scales, order = MSF(6), random_scales(), [2, 0, 3, 1]
    reordered = [scales[index] for index in order]
    torch.testing.assert_close(msf.weights(reordered), msf.weights(scales)[:, order])
    torch.testing.assert_close(msf(reordered), msf(scales))


def test_weights_do_not_see_where_in_a_scale_its_values_are():
    msf, scales = MSF(6), random_scales()
    shuffled = [scale.flatten(2)[..., torch.randperm(35)].reshape(scale.shape) for scale in scales]
    torch.testing.assert_close(msf.weights(shuffled), msf.weights(scales))


@pytest.mark.parametrize("change", [[50, -50], [-50, -50]], ids=["maximum", "mean"])
def test_weights_see_the_maximum_of_a_scale_and_its_mean_each_alone(change):
    msf, scales = MSF(6), random_scales()
    scales[3][:, :, 0, 0] = 9  # the maximum, before the change and when only the mean changes
    before = msf.weights(scales)
    scales[3][:, :, 1, :2] += torch.tensor(change)
    assert (msf.weights(scales) - before).abs().max() > 1e-3


def test_fusion_is_the_weighted_sum_of_the_scales():
    msf, scales = MSF(6), random_scales()
    weights = msf.weights(scales)
    wanted = sum(weights[:, index] * scale for index, scale in enumerate(scales))
    torch.testing.assert_close(msf(scales), wanted)


def test_the_four_scales_look_one_two_four_and_eight_pixels_far():
    mfeb = MFEB(4).eval()
    assert DILATIONS == (1, 2, 4, 8)
    for branch, reach in zip(mfeb.dilated, DILATIONS, strict=True):
        x = torch.randn(1, 4, 19, 19, requires_grad=True)
        nn.Sequential(*list(branch)[:2])(x)[0, :, 9, 9].sum().backward()  # before ReLU
        seen = x.grad[0].abs().sum(0).nonzero().tolist()
        steps = (9 - reach, 9, 9 + reach)
        assert seen == [[row, column] for row in steps for column in steps]


def test_without_dilated_features_the_reduced_map_is_all_that_is_left():
    mfeb, stages = MFEB(8).eval(), [torch.randn(2, 8, 6, 6) for _ in range(3)]
    for branch in mfeb.dilated:
        nn.init.zeros_(branch[0].weight)
    torch.testing.assert_close(mfeb(stages), mfeb.reduce(torch.cat(stages, dim=1)))


@pytest.mark.parametrize("build", [MFEB, ConcatReduce, lambda channels: MFEB(channels, selective_fusion="conv")])
def test_every_stage_and_every_parameter_counts(build):
    block, stages = build(8), [torch.randn(2, 8, 6, 6, requires_grad=True) for _ in range(3)]
    result = block(stages)
    assert result.shape == stages[0].shape
    (result * torch.randn_like(result)).sum().backward()
    tensors = [*stages, *block.parameters()]
    assert all(tensor.grad is not None and tensor.grad.abs().max() > 0 for tensor in tensors)


def test_the_stand_in_of_selective_fusion_is_linear_in_the_scales():
    fuse, scales = ConvFusion(6), random_scales()
    nn.init.zeros_(fuse.fuse.bias)
    torch.testing.assert_close(fuse([3 * scale for scale in scales]), 3 * fuse(scales))
