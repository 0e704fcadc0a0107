"""Kernels for CUDA: what can be proved of them without a GPU.

The arithmetic of the Triton kernel runs in Triton's interpreter, on request:
TRITON_INTERPRET=1 python -m pytest tests/test_scan_triton.py
"""

import functools
import logging
import os
import sys
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch
from hmf_networks.ops import _scan_mamba_ssm, _scan_triton, selective_scan
from hmf_networks.ops._scan_probe import smoke_test
from hmf_networks.ops._scan_reference import scan_reference
from hmf_networks.ops.scan_order import DIRECTIONS, maps_to_sequences, sequences_to_map
from hmf_networks.ops.selective_scan_2d import selective_scan_2d
from torch import Tensor

interpreted = pytest.mark.skipif(
    find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") != "1",
    reason="set TRITON_INTERPRET=1, with triton installed, to run the kernel on the CPU",
)
# batch, height, width, channels, states: parts of a tile, of a block of channels and of a bite of states
SIZES = {
    "odd": (1, 2, 5, 12, 3),
    "lines of two tiles": (2, 2, 9, 8, 4),
    "one": (1, 1, 1, 3, 1),
    "states": (1, 2, 3, 9, 9),
}


def random_inputs(size: tuple[int, ...], directions: int) -> dict[str, Tensor]:
    torch.manual_seed(0)
    batch, height, width, channels, states = size
    of_tokens = (batch, height, width, directions)
    inputs = {
        "u": torch.randn(batch, height, width, channels),
        "delta": torch.randn(*of_tokens, channels),
        "A": -torch.rand(directions * channels, states) * states,
        "B": torch.randn(*of_tokens, states),
        "C": torch.randn(*of_tokens, states),
        "D": torch.randn(directions * channels),
        "delta_bias": torch.randn(directions * channels),
    }
    return {name: tensor.requires_grad_() for name, tensor in inputs.items()}


def sequences(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """As groups of `selective_scan`."""
    maps = inputs["u"].unsqueeze(3).expand_as(inputs["delta"])
    series = {
        "u": maps_to_sequences(maps).flatten(1, 2),
        "delta": maps_to_sequences(inputs["delta"]).flatten(1, 2),
        "B": maps_to_sequences(inputs["B"]),
        "C": maps_to_sequences(inputs["C"]),
    }
    return {**inputs, **series}


def by_definition(inputs: dict[str, Tensor]) -> Tensor:
    batch, height, width, directions, channels = inputs["delta"].shape
    y = selective_scan.selective_scan(**sequences(inputs), delta_softplus=True, backend="reference")
    return sequences_to_map(y.reshape(batch, directions, channels, -1), height, width)


def assert_near(found: list[Tensor], wanted: list[Tensor], *, tolerance: float = 2e-6) -> None:
    for x, exact in zip(found, wanted, strict=True):
        assert (x.double() - exact).abs().max() <= tolerance * exact.abs().max()


@interpreted
@pytest.mark.parametrize("directions", DIRECTIONS)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_map_is_walked_as_its_sequences_are_in_value_and_gradient(size, directions):
    inputs = random_inputs(size, directions)
    exact_inputs = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    y, exact = selective_scan_2d(**inputs, delta_softplus=True, backend="triton"), by_definition(exact_inputs)
    towards = torch.randn_like(y)
    found = torch.autograd.grad(y, list(inputs.values()), towards)
    wanted = torch.autograd.grad(exact, list(exact_inputs.values()), towards.double())
    assert_near([y, *found], [exact, *wanted])


@interpreted
def test_the_big_blocks_of_big_batches_give_the_same(monkeypatch):
    inputs = random_inputs((1, 2, 9, 34, 3), 2)
    towards = torch.randn(1, 2, 9, 34)

    def results() -> list[Tensor]:
        y = selective_scan_2d(**inputs, delta_softplus=True, backend="triton")
        return [y, *torch.autograd.grad(y, list(inputs.values()), towards)]

    small = results()
    monkeypatch.setattr(_scan_triton, "WARPS_TO_FILL", 1)
    big = results()
    assert_near(big, [x.double() for x in small])
    assert not torch.equal(big[0], small[0])  # sums in another order: it was another layout


@interpreted
@pytest.mark.parametrize("softplus", [True, False])
def test_groups_of_sequences_are_scanned_side_by_side_and_gated(softplus):
    inputs = sequences(random_inputs(SIZES["odd"], 2))
    inputs = {name: x.detach().requires_grad_() for name, x in inputs.items()}
    if not softplus:
        inputs["delta"] = inputs["delta"].detach().abs().requires_grad_()
        del inputs["delta_bias"]
    inputs["z"] = torch.randn_like(inputs["u"]).requires_grad_()
    exact_inputs = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    y = selective_scan.selective_scan(**inputs, delta_softplus=softplus, backend="triton")
    exact = selective_scan.selective_scan(**exact_inputs, delta_softplus=softplus, backend="reference")
    found = torch.autograd.grad(y.sin().sum(), list(inputs.values()))
    wanted = torch.autograd.grad(exact.sin().sum(), list(exact_inputs.values()))
    assert_near([y, *found], [exact, *wanted], tolerance=1e-5)


@interpreted
def test_bfloat16_maps_lose_nothing_but_the_rounding_of_the_result():
    inputs = {name: x.detach() for name, x in random_inputs(SIZES["odd"], 4).items()}
    inputs |= {name: inputs[name].bfloat16() for name in ("u", "delta", "B", "C")}
    y = selective_scan_2d(**inputs, delta_softplus=True, backend="triton")
    assert y.dtype == torch.bfloat16
    assert_near([y], [by_definition({name: x.double() for name, x in inputs.items()})], tolerance=8e-3)


@interpreted
@torch.no_grad()
def test_the_memory_layout_of_a_map_does_not_matter():
    inputs = random_inputs(SIZES["odd"], 4)
    wanted = selective_scan_2d(**inputs, delta_softplus=True, backend="triton")
    inputs["u"] = inputs["u"].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    for name in ("delta", "B", "C"):
        inputs[name] = inputs[name].permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    assert torch.equal(selective_scan_2d(**inputs, delta_softplus=True, backend="triton"), wanted)


@interpreted
def test_the_gradient_of_one_direction_lies_as_its_fake_says():
    tensors = [x.detach() for x in random_inputs(SIZES["odd"], 1).values()]
    tensors[0] = tensors[0].unsqueeze(3)
    y, starts = torch.ops.hmf.scan_triton_forward(*tensors, True, True, True)
    arguments = (torch.ones_like(y), *tensors, True, True, starts)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.hmf.scan_triton_backward.default, arguments, test_utils=checks)


@interpreted
def test_the_operators_are_well_behaved():
    inputs = random_inputs(SIZES["odd"], 2)
    tensors = [inputs[name] for name in ("u", "delta", "A", "B", "C", "D", "delta_bias")]
    tensors[0] = tensors[0].detach().unsqueeze(3).requires_grad_()
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    operator = torch.ops.hmf.scan_triton_forward.default
    torch.library.opcheck(operator, (*tensors, True, True, True), test_utils=checks)


class OnCuda:
    """All that the pick looks at."""

    device, dtype = torch.device("cuda"), torch.float32


@pytest.mark.parametrize(
    ("there", "picked"),
    [({"triton", "mamba_ssm"}, "triton"), ({"mamba_ssm"}, "mamba_ssm"), ({"triton"}, "triton"), (set(), "chunked")],
    ids=["both", "mamba_ssm", "triton", "none"],
)
def test_cuda_is_served_by_triton_then_mamba_ssm_then_plain_torch(monkeypatch, there, picked):
    monkeypatch.delenv("HMF_SCAN_BACKEND", raising=False)
    for name in ("triton", "mamba_ssm"):
        monkeypatch.setitem(selective_scan.PROBES, name, lambda name=name: name in there)
    assert selective_scan._pick(OnCuda(), 16) == picked
    double = OnCuda()
    double.dtype = torch.float64
    assert selective_scan._pick(double, 16) == "chunked"
    more_than_mamba_takes = picked if picked == "triton" else "chunked"
    assert selective_scan._pick(OnCuda(), 257) == more_than_mamba_takes


@pytest.mark.parametrize("module", [_scan_triton, _scan_mamba_ssm], ids=["triton", "mamba_ssm"])
def test_a_kernel_that_fails_its_test_is_left_out_and_one_line_says_why(module, monkeypatch, caplog):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(_scan_mamba_ssm, "find_spec", lambda _: True)
    monkeypatch.setattr(module, "smoke_test", lambda *_: "ImportError: undefined symbol")
    module._passes.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert not module.is_available()
        assert not module.is_available()
    assert [record.message.count("undefined symbol") for record in caplog.records] == [1]
    module._passes.cache_clear()


def test_without_a_gpu_nothing_is_tried(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for module in (_scan_triton, _scan_mamba_ssm):
        monkeypatch.setattr(module, "smoke_test", lambda *_: pytest.fail("tried"))
        assert not module.is_available()


def test_the_test_of_a_kernel_tells_right_from_wrong_and_quotes_what_was_raised(monkeypatch):
    monkeypatch.setattr(Tensor, "cuda", lambda self: self)
    assert smoke_test(scan_reference) == ""
    with torch.inference_mode():
        assert smoke_test(scan_reference) == ""
    assert "differs from the definition" in smoke_test(lambda *a, **k: 1.01 * scan_reference(*a, **k))

    def no_gradient(u, *arguments, **options):
        return scan_reference(u.detach() + 0 * u, *arguments, **options)

    assert "differs from the definition" in smoke_test(no_gradient)

    def broken(*_arguments, **_options):
        raise OSError("undefined symbol: _ZN3c10\nmore lines")

    assert smoke_test(broken) == "OSError: undefined symbol: _ZN3c10"
    by_maps = {"backend": "reference"}
    assert smoke_test(scan_reference, functools.partial(selective_scan_2d, **by_maps)) == ""

    def without_skip(**inputs):
        return selective_scan_2d(**inputs | {"D": 0 * inputs["D"]}, **by_maps)

    assert "differs from the definition" in smoke_test(scan_reference, without_skip)


@pytest.mark.parametrize("name", ["triton", "mamba_ssm"])
def test_a_kernel_for_cuda_refuses_other_tensors_and_names_the_cure(name, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setitem(selective_scan.PROBES, name, lambda: True)
    inputs = sequences(random_inputs(SIZES["odd"], 2))
    with pytest.raises(ValueError, match=rf"'{name}' is for float32 on CUDA.* got torch.float32 on cpu.*'chunked'"):
        selective_scan.selective_scan(**inputs, backend=name)


def test_a_kernel_that_is_not_there_is_not_offered(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    offered = selective_scan.available_backends()
    assert torch.cuda.is_available() or not {"triton", "mamba_ssm"} & set(offered)


class PretendsToBeCuda(Tensor):
    """A tensor of the CPU that says otherwise."""

    @property
    def device(self):
        return torch.device("cuda")


@torch.no_grad()
def test_mamba_ssm_is_called_once_for_all_groups_in_the_types_and_layout_it_wants(monkeypatch):
    calls = []

    def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
        calls.append(u.shape)
        assert {x.dtype for x in (u, delta, B, C, z)} == {torch.float32}
        assert {x.dtype for x in (A, D, delta_bias)} == {torch.float32}
        assert all(x.stride(-1) == 1 for x in (u, delta, B, C, z, A, D, delta_bias))
        plain = [x.as_subclass(Tensor) for x in (u, delta, A, B, C, D, z, delta_bias)]
        return scan_reference(*plain, delta_softplus)

    module = ModuleType("mamba_ssm.ops.selective_scan_interface")
    module.selective_scan_fn = selective_scan_fn
    for name in ("mamba_ssm", "mamba_ssm.ops", module.__name__):
        monkeypatch.setitem(sys.modules, name, module)
    _scan_mamba_ssm._kernel.cache_clear()
    inputs = {name: x.detach() for name, x in sequences(random_inputs(SIZES["odd"], 2)).items()}
    inputs["u"] = inputs["u"].mT.contiguous().mT.bfloat16()  # widened to the others
    inputs["z"] = torch.randn(inputs["u"].shape)
    wanted = scan_reference(**{**inputs, "u": inputs["u"].float()}, delta_softplus=True)
    inputs["u"] = inputs["u"].as_subclass(PretendsToBeCuda)
    found = _scan_mamba_ssm.scan_mamba_ssm(**inputs, delta_softplus=True)
    _scan_mamba_ssm._kernel.cache_clear()
    assert len(calls) == 1
    assert found.dtype == torch.bfloat16
    assert_near([found.float()], [wanted.double()], tolerance=4e-3)
