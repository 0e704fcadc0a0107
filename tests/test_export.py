"""TorchScript, ONNX and OpenVINO: made at one size, asked at others."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hmf_networks.bundles.find import bundle_root
from hmf_networks.cli import main
from hmf_networks.engines.export import FORMATS, export, verify
from hmf_networks.engines.weights import BestModel
from hmf_networks.nets import HMFMambaINR
from hmf_networks.ops.selective_scan import available_backends, selective_scan
from torch import Tensor, nn

BUNDLE = bundle_root()
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
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    FORMATS["onnx"].write(network, path)
    return path


@sizes
def test_torchscript_equals_eager_at_sizes_it_was_not_made_with(network, tmp_path, size):
    FORMATS["torchscript"].write(network, tmp_path / "model.ts")
    image = plane(*size)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts")(image), network(image), rtol=0, atol=1e-5)


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


@pytest.mark.slow
def test_openvino_takes_the_scans_of_a_network_too_large_for_its_constants_to_be_folded(tmp_path):
    network = HMFMambaINR(2, 2, 1, width=32, num_residual_blocks=1).eval()
    FORMATS["openvino"].write(network, tmp_path / "model.xml")
    assert max(verify(network, tmp_path / "model.xml", "openvino").differences.values()) < 1e-4


@pytest.mark.slow
def test_the_command_exports_verifies_and_replaces_only_when_told(tmp_path, caplog, capsys):
    path = tmp_path / "new" / "model.ts"
    with caplog.at_level("INFO"):
        assert main(["export", str(path)]) == 0
    assert "differs by at most" in caplog.text
    extra = {"metadata.json": "", "inference.json": ""}
    torch.jit.load(path, _extra_files=extra)
    assert json.loads(extra["metadata.json"])["network_data_format"]["inputs"]
    assert json.loads(extra["inference.json"])["network_def"]["width"] == 32
    assert main(["export", str(path)]) == 1
    assert "exists" in capsys.readouterr().err
    assert main(["export", str(path), "--overwrite"]) == 0
    assert [file.name for file in path.parent.iterdir()] == ["model.ts"]


def test_weights_of_another_task_take_their_own_network_and_config_along(network, tmp_path):
    weights = tmp_path / "model.pt"
    task = {"sources": ["t1", "flair"], "targets": ["t2"], "any_subset": False, "pixel_mm": 2.0}
    BestModel(str(weights), network, task=task).save()
    path, found = export(BUNDLE, weights, "torchscript", tmp_path / "other.ts")
    assert max(found.differences.values()) < 1e-5
    extra = {"metadata.json": "", "inference.json": ""}
    torch.jit.load(path, _extra_files=extra)
    config = json.loads(extra["inference.json"])
    assert (config["sources"], config["pixel_mm"], config["network_def"]["width"]) == (["t1", "flair"], 2.0, 8)
    assert "network_data_format" not in json.loads(extra["metadata.json"])  # the bundle's is of another network


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["model.pt"], "ends in .ts"),
        (["model.ts", "--format", "onyx"], "unknown format 'onyx'; known: torchscript, onnx, openvino; did you"),
        (["model.ts", "--weights", "none.pt"], "none.pt"),
        (["model.ts", "--bundle", "nowhere"], "nowhere/configs/inference.json is not there"),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(arguments, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 1
    error = capsys.readouterr().err
    assert reason in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_runtime_that_is_missing_is_named_before_anything_is_done(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("hmf_networks.engines.export.find_spec", lambda name: None if name == "onnx" else name)
    assert main(["export", str(tmp_path / "model.onnx"), "--format", "onnx"]) == 1
    assert "onnx needs onnx: pip install 'hmf-networks[export]'" in capsys.readouterr().err


def test_openvinos_weights_are_guarded_like_its_graph(tmp_path, capsys):
    (tmp_path / "model.bin").write_text("somebody's")
    assert main(["export", str(tmp_path / "model.xml"), "--format", "openvino"]) == 1
    assert "model.bin exists" in capsys.readouterr().err


def test_a_runtime_that_says_something_else_is_refused(network, tmp_path):
    FORMATS["torchscript"].write(network, tmp_path / "model.ts")
    other = HMFMambaINR(**network.arguments).eval()
    with pytest.raises(ValueError, match="does not give what the network gives"):
        verify(other, tmp_path / "model.ts", "torchscript")


def test_a_difference_that_is_no_number_is_refused_at_whatever_size_it_appears(network, monkeypatch):
    def answers(image: Tensor) -> Tensor:
        return network(image) if image.shape[0] == 1 else network(image) * float("nan")

    silent = FORMATS["torchscript"]._replace(open=lambda _path: answers)
    monkeypatch.setitem(FORMATS, "torchscript", silent)
    with pytest.raises(ValueError, match="nan"):
        verify(network, Path("any"), "torchscript")


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
