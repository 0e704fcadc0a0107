"""TorchScript and ONNX: made at one size, asked at others."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from monai.networks.utils import convert_to_onnx, convert_to_torchscript
from torch import Tensor, nn

from hmf_networks.nets import HMFMambaINR
from hmf_networks.ops.selective_scan import available_backends, selective_scan

SIZES = [(1, 64, 64), (2, 48, 80)]  # batch, height, width
sizes = pytest.mark.parametrize("size", SIZES, ids=str)


def plane(batch: int, height: int, width: int) -> Tensor:
    return 2 * torch.rand(batch, 2, height, width) - 1


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Small; its norms have seen a plane, as a trained network's have."""
    torch.manual_seed(0)
    network = HMFMambaINR(2, 2, 1, width=8, state_size=4, inr_hidden_channels=16, num_residual_blocks=1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # one plane is all it ever sees
    with torch.no_grad():
        network(plane(1, 64, 64))
    return network.eval()


@pytest.fixture(scope="module")
def onnx_path(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The way `monai.bundle onnx_export` takes, with the one option that it needs."""
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    axes = {"image": [0, 2, 3]}
    convert_to_onnx(network, [plane(1, 32, 32)], filename=path, dynamic_axes=axes, use_trace=False)
    return path


@sizes
def test_torchscript_equals_eager_at_sizes_it_was_not_made_with(network, tmp_path, size):
    convert_to_torchscript(network, filename_or_obj=tmp_path / "model.ts")
    image = plane(*size)
    with torch.no_grad():
        torch.testing.assert_close(
            torch.jit.load(tmp_path / "model.ts")(image), network(image), rtol=0, atol=1e-5
        )


@pytest.mark.slow
@sizes
def test_onnx_equals_eager_at_sizes_it_was_not_made_with(network, onnx_path, size):
    image = plane(*size)
    (found,) = run(onnx_path, image=image)
    with torch.no_grad():
        wanted = network(image)
    assert wanted.std() > 0.05
    np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-4)


@pytest.mark.slow
def test_onnx_refuses_a_plane_that_patches_cannot_tile(onnx_path):
    with pytest.raises(Exception, match="cannot be reshaped"):
        run(onnx_path, image=plane(1, 36, 32))


@pytest.mark.slow
def test_every_scan_is_one_node_of_the_graph(onnx_path):
    assert sum(node.op_type == "Scan" for node in onnx.load(onnx_path).graph.node) == 3  # one for each RHMB


class Scan(nn.Module):
    def forward(self, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
        return selective_scan(u, delta, A, B, C, D, z=u, delta_bias=D, delta_softplus=True)


def scan_inputs(length: int) -> tuple[Tensor, ...]:
    """Two groups of three channels with four states."""
    u, delta = torch.randn(2, 2, 6, length)
    B, C = torch.randn(2, 2, 2, 4, length)
    return u, delta, -torch.rand(6, 4), B, C, torch.randn(6)


def test_an_exported_scan_is_as_long_as_its_input_and_equals_the_loop():
    length = torch.export.Dim("length", min=2)
    shapes = [{x.dim() - 1: length} if x.shape[-1] == 9 else None for x in scan_inputs(9)]
    exported = torch.export.export(Scan(), scan_inputs(9), dynamic_shapes=tuple(shapes))
    scans = [node for node in exported.graph.nodes if node.target is torch.ops.higher_order.scan]
    assert len(scans) == 1
    inputs = scan_inputs(40)
    u, _, _, _, _, D = inputs
    wanted = selective_scan(*inputs, z=u, delta_bias=D, delta_softplus=True, backend="reference")
    torch.testing.assert_close(exported.module()(*inputs), wanted)


def test_the_operator_serves_exports_only():
    assert "operator" not in available_backends()
    with pytest.raises(ValueError, match="'operator' is not there"):
        selective_scan(*scan_inputs(5), backend="operator")


def run(path: Path, **inputs: Tensor) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4  # an error is raised, and need not be printed besides
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
