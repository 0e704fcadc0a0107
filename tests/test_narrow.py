"""What is done to a bfloat16 map under autocast stays bfloat16, and equals what float32 gives."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hmf_networks.blocks.conv import ConvBlock
from hmf_networks.blocks.mfeb import MSF
from hmf_networks.blocks.mfm import MFM
from hmf_networks.ops.narrow import linear_relu, reflect_pad, resize_like, spatial_mean
from torch import Tensor

FINE = torch.zeros(1, 1, 17, 24)
OPERATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "reflect": (lambda x: reflect_pad(x, 3), lambda x: F.pad(x, [3] * 4, mode="reflect")),
    "resize": (
        lambda x: resize_like(x, FINE.to(x.device)),
        lambda x: F.interpolate(x, (17, 24), mode="bilinear", align_corners=False),
    ),
    "mean": (spatial_mean, lambda x: x.mean((2, 3), keepdim=True)),
}
operations = pytest.mark.parametrize("operation", OPERATIONS)


@operations
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_result_has_the_type_of_the_map_whatever_autocast_says(operation, dtype):
    narrow, _ = OPERATIONS[operation]
    with torch.autocast("cpu", torch.bfloat16):
        assert narrow(torch.randn(2, 3, 9, 12).to(dtype)).dtype == dtype


@operations
def test_the_result_is_that_of_float32_rounded(operation):
    narrow, wanted = OPERATIONS[operation]
    x = torch.randn(2, 3, 9, 12)
    assert torch.equal(narrow(x), wanted(x))
    rounded = x.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(narrow(rounded).float(), wanted(rounded.float()), atol=8e-3, rtol=8e-3)


@operations
def test_gradients_pass(operation):
    narrow, wanted = OPERATIONS[operation]
    x = torch.randn(1, 2, 9, 12, requires_grad=True)
    found, wanted = (torch.autograd.grad(f(x).square().sum(), x)[0] for f in (narrow, wanted))
    torch.testing.assert_close(found, wanted)


def test_a_sum_over_many_pixels_does_not_stall_at_the_digits_of_bfloat16():
    """Added one by one in bfloat16, ones would never pass 256."""
    assert spatial_mean(torch.ones(1, 1, 64, 64).bfloat16()).item() == 1


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_fused_layer_has_the_digits_of_the_layer_and_its_relu(dtype):
    torch.manual_seed(0)
    weight, bias, x = torch.randn(8, 16), torch.randn(8), torch.randn(3, 5, 16).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(linear_relu(x, weight, bias), F.relu(F.linear(x, weight, bias)))


FUSED = """
import torch
from hmf_networks.ops.narrow import linear_relu
x, weight = torch.ones(3, 2).bfloat16(), torch.eye(2).bfloat16()
with torch.no_grad():
    assert linear_relu(x, weight, torch.zeros(2).bfloat16()).sum() == 6
"""


def test_a_layer_is_not_fused_where_onednn_has_no_bfloat16():
    subprocess.run([sys.executable, "-c", FUSED], env=os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2"}, check=True)


@operations
def test_a_map_without_numbers_has_a_shape(operation):
    narrow, wanted = OPERATIONS[operation]
    x = torch.randn(2, 3, 9, 12)
    assert narrow(x.to("meta")).shape == wanted(x).shape


@pytest.mark.parametrize("block", [ConvBlock(4, 4, padding_mode="reflect"), MFM(4), MSF(4, num_scales=2)])
def test_blocks_hand_bfloat16_on(block):
    x = torch.randn(2, 4, 8, 8).bfloat16()
    inputs = {ConvBlock: (x,), MFM: (x, x), MSF: ([x, x],)}[type(block)]
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert block.eval()(*inputs).dtype == torch.bfloat16
