"""The scan over a map is the scan of its sequences, whichever backend serves it."""

import pytest
import torch
from hmf_networks.ops.scan_order import DIRECTIONS, maps_to_sequences, sequences_to_map
from hmf_networks.ops.selective_scan import available_backends, selective_scan
from hmf_networks.ops.selective_scan_2d import selective_scan_2d
from torch import Tensor

# batch, height, width, channels, states; 20 and 36 channels fill no register
SIZES = {
    "tiles": (2, 9, 11, 20, 4),
    "one token": (1, 1, 1, 3, 1),
    "one row": (1, 1, 40, 16, 16),
    "wide": (1, 5, 8, 36, 3),
    "one channel": (2, 6, 7, 1, 4),
    "one column": (2, 9, 1, 5, 1),
}
sizes = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


def random_inputs(size: tuple[int, ...], directions: int, dtype: torch.dtype) -> dict[str, Tensor]:
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
    return {name: tensor.to(dtype).requires_grad_() for name, tensor in inputs.items()}


def by_definition(inputs: dict[str, Tensor]) -> Tensor:
    """Sequences written out, the loop over each, brought back and summed."""
    batch, height, width, directions, channels = inputs["delta"].shape
    maps = inputs["u"].unsqueeze(3).expand(-1, -1, -1, directions, -1)
    y = selective_scan(
        maps_to_sequences(maps).flatten(1, 2),
        maps_to_sequences(inputs["delta"]).flatten(1, 2),
        inputs["A"],
        maps_to_sequences(inputs["B"]),
        maps_to_sequences(inputs["C"]),
        inputs["D"],
        delta_bias=inputs["delta_bias"],
        delta_softplus=True,
        backend="reference",
    )
    return sequences_to_map(y.reshape(batch, directions, channels, -1), height, width)


def assert_near(found: Tensor, wanted: Tensor, *, tolerance: float) -> None:
    """Errors relative to the largest."""
    error = (found.double() - wanted.double()).abs().max() / wanted.double().abs().max().clamp(min=1e-12)
    assert error < tolerance


@pytest.mark.parametrize("directions", DIRECTIONS)
@pytest.mark.parametrize("backend", available_backends())
@sizes
def test_value_and_gradients_are_those_of_the_sequences_in_float64(size, backend, directions):
    inputs = random_inputs(size, directions, torch.float32)
    y = selective_scan_2d(**inputs, delta_softplus=True, backend=backend)
    towards = torch.randn_like(y)
    exact_inputs = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    exact = by_definition(exact_inputs)
    assert_near(y, exact, tolerance=5e-6)
    found = torch.autograd.grad(y, list(inputs.values()), towards)
    wanted = torch.autograd.grad(exact, list(exact_inputs.values()), towards.double())
    for gradient, exact_gradient in zip(found, wanted, strict=True):
        assert_near(gradient, exact_gradient, tolerance=1e-5)


@pytest.mark.parametrize("backend", available_backends())
@sizes
def test_the_memory_layout_of_the_inputs_does_not_matter(size, backend):
    inputs = random_inputs(size, 4, torch.float32)
    wanted = selective_scan_2d(**inputs, delta_softplus=True, backend=backend)
    for order in [(0, 1, 2, 4, 3), (3, 0, 1, 2, 4), (0, 3, 4, 1, 2), (0, 2, 1, 3, 4)]:
        back = [order.index(axis) for axis in range(5)]
        moved = {name: x.permute(order).contiguous().permute(back) if x.dim() == 5 else x for name, x in inputs.items()}
        channels_first = inputs["u"].permute(0, 3, 1, 2).clone(memory_format=torch.contiguous_format)
        moved["u"] = channels_first.permute(0, 2, 3, 1)
        torch.testing.assert_close(selective_scan_2d(**moved, delta_softplus=True, backend=backend), wanted)


@pytest.mark.parametrize("backend", available_backends())
@torch.no_grad()
def test_windows_that_overlap_in_memory_are_scanned_as_their_copies_are(backend):
    inputs = {name: x.detach() for name, x in random_inputs((1, 1, 5, 20, 4), 4, torch.float32).items()}
    windows = torch.randn(24).unfold(0, 20, 1)[None, None]
    found, wanted = (
        selective_scan_2d(**inputs | {"u": u}, delta_softplus=True, backend=backend)
        for u in (windows, windows.clone(memory_format=torch.contiguous_format))
    )
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("backend", available_backends())
def test_bfloat16_inputs_lose_nothing_but_the_rounding_of_the_result(backend):
    inputs = {
        name: x.detach().bfloat16() if name in ("u", "delta", "B", "C") else x.detach()
        for name, x in random_inputs(SIZES["tiles"], 4, torch.float32).items()
    }
    y = selective_scan_2d(**inputs, delta_softplus=True, backend=backend)
    exact = by_definition({name: x.double() for name, x in inputs.items()})
    assert y.dtype == torch.bfloat16
    half_a_digit = torch.finfo(torch.bfloat16).eps / 2
    assert ((y.double() - exact).abs() <= 1.01 * half_a_digit * exact.abs() + 1e-5 * exact.abs().max()).all()


def test_maps_that_do_not_belong_together_are_named():
    inputs = random_inputs(SIZES["tiles"], 4, torch.float32)
    inputs["delta"] = inputs["delta"][:, :-1]
    with pytest.raises(ValueError, match=r"u must be \(B, H, W, d\), delta \(B, H, W, K, d\)"):
        selective_scan_2d(**inputs)


@pytest.mark.parametrize("name", ["A", "B", "C", "D", "delta_bias"])
@pytest.mark.parametrize("backend", available_backends())
def test_a_tensor_of_the_wrong_shape_is_named_before_a_kernel_reads_past_its_end(backend, name):
    inputs = random_inputs(SIZES["tiles"], 4, torch.float32)
    with pytest.raises(ValueError, match=rf"^{name} must be .* beside delta .*got"):
        selective_scan_2d(**inputs | {name: inputs[name][:1]}, backend=backend)


@pytest.mark.parametrize("backend", available_backends())
def test_a_number_of_directions_that_there_is_not_is_refused(backend):
    inputs = random_inputs(SIZES["tiles"], 3, torch.float32)
    with pytest.raises(ValueError, match=r"K of \(1, 2, 4\) directions; got delta \(2, 9, 11, 3, 20\)"):
        selective_scan_2d(**inputs, backend=backend)


@pytest.mark.parametrize("backend", available_backends())
def test_a_batch_of_none_has_a_result_and_gradients_of_nothing(backend):
    inputs = random_inputs((0, 2, 3, 4, 2), 4, torch.float32)
    y = selective_scan_2d(**inputs, delta_softplus=True, backend=backend)
    assert y.shape == (0, 2, 3, 4)
    gradients = torch.autograd.grad(y.sum(), list(inputs.values()))
    assert all(not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("name", ["u", "A", "D"])
def test_a_derivative_in_forward_mode_is_right_or_refused_but_never_zero(backend, name):
    inputs = {key: x.detach() for key, x in random_inputs((1, 2, 3, 4, 2), 4, torch.float32).items()}

    def derivative(backend: str) -> Tensor:
        scan = lambda x: selective_scan_2d(**inputs | {name: x}, delta_softplus=True, backend=backend)  # noqa: E731
        return torch.func.jvp(scan, (inputs[name],), (torch.ones_like(inputs[name]),))[1]

    try:
        found = derivative(backend)
    except NotImplementedError as error:
        assert "no forward-mode derivative; try 'chunked'" in str(error)  # noqa: PT017
    else:
        assert_near(found, derivative("reference"), tolerance=1e-5)
