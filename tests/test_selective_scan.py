"""Shapes: B batch, G groups, d channels of a group, L steps, N states, as in `selective_scan`."""

import logging
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from hmf_networks.ops import _scan_native_build, _scan_native_kernel
from hmf_networks.ops.selective_scan import BACKENDS, available_backends, selective_scan
from torch import Tensor

DIFFERENTIABLE = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
OPTIONAL = ("D", "z", "delta_bias", "delta_softplus")
FAST_BACKENDS = [name for name in available_backends() if name != "reference"]
DOUBLE_BACKENDS = [name for name in available_backends() if name != "native"]  # a float32 kernel

# Lengths about a power of two, a square and a prime multiple; d a multiple of 16 only once.
SIZES = {
    "L1-N1-G1-d3": (1, 1, 1, 3),
    "L1-N16-G4-d5": (1, 16, 4, 5),
    "L63-N4-G2-d5": (63, 4, 2, 5),
    "L64-N16-G1-d16": (64, 16, 1, 16),
    "L65-N1-G4-d3": (65, 1, 4, 3),
    "L65-N16-G2-d17": (65, 16, 2, 17),
    "L200-N4-G4-d6": (200, 4, 4, 6),
    "L200-N16-G1-d33": (200, 16, 1, 33),
}
sizes = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)


def random_inputs(
    length: int, states: int, groups: int, width: int, *, options: tuple[str, ...] = OPTIONAL, step: float = 1.0
) -> dict[str, Tensor | bool]:
    """Arguments of `selective_scan` in float64; step sizes are about `step` and positive."""
    batch, channels = 2, groups * width
    softplus = "delta_softplus" in options
    steps = torch.randn if softplus else torch.rand
    tensors = {
        "u": torch.randn(batch, channels, length),
        "delta": step * steps(batch, channels, length),
        "A": -0.1 - 4 * torch.rand(channels, states),
        "B": torch.randn(batch, groups, states, length),
        "C": torch.randn(batch, groups, states, length),
        "D": torch.randn(channels),
        "z": torch.randn(batch, channels, length),
        "delta_bias": torch.rand(channels),
    }
    wanted = [name for name in tensors if name not in OPTIONAL or name in options]
    return {name: tensors[name].double() for name in wanted} | {"delta_softplus": softplus}


def converted(inputs: dict[str, Tensor | bool], dtype: torch.dtype) -> dict[str, Tensor | bool]:
    return {name: value.to(dtype) if isinstance(value, Tensor) else value for name, value in inputs.items()}


def exact(inputs: dict[str, Tensor | bool], backend: str) -> tuple[dict[str, Tensor | bool], float]:
    """The inputs in the widest type of a backend, and how near it then must come to the loop."""
    return (inputs, 1e-10) if backend in DOUBLE_BACKENDS else (converted(inputs, torch.float32), 5e-6)


def value_and_gradients(inputs: dict[str, Tensor | bool], *, backend: str) -> dict[str, Tensor]:
    leaves = {
        name: value.detach().clone().requires_grad_() for name, value in inputs.items() if isinstance(value, Tensor)
    }
    y = selective_scan(**(inputs | leaves), backend=backend)
    towards = torch.cos(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape)
    (y.double() * towards).sum().backward()
    assert all(leaf.grad is not None for leaf in leaves.values())
    return {"y": y.detach()} | {name: leaf.grad for name, leaf in leaves.items()}


def assert_near(found: dict[str, Tensor], wanted: dict[str, Tensor], *, tolerance: float) -> None:
    """Every entry within `tolerance` of the largest value of its tensor."""
    assert found.keys() == wanted.keys()
    for name, true in wanted.items():
        error = (found[name].double() - true.double()).abs().max() / true.abs().max().clamp(min=1e-12)
        assert error <= tolerance, f"{name} is off by {error:.1e} of its largest value"


def test_the_loop_halves_its_state_when_delta_is_log_two_and_a_is_minus_one():
    log_two = math.log(2)
    u, ones = torch.tensor([[[1.0, 2.0, 4.0]]]), torch.ones(1, 1, 1, 3)
    y = selective_scan(
        u, torch.full_like(u, log_two), -torch.ones(1, 1), ones, 3 * ones, torch.tensor([10.0]), backend="reference"
    )
    states = torch.tensor([1.0, 2.5, 5.25]) * log_two  # 1, 1 / 2 + 2, 2.5 / 2 + 4
    torch.testing.assert_close(y[0, 0], 3 * states + 10 * u[0, 0])


def test_the_loop_adds_the_bias_before_softplus_and_gates_with_silu():
    u = torch.tensor([[[2.0]]])
    one = torch.ones(1, 1, 1, 1)
    y = selective_scan(
        u,
        torch.full_like(u, 0.3),
        -torch.ones(1, 1),
        one,
        one,
        z=torch.full_like(u, 0.7),
        delta_bias=torch.tensor([0.4]),
        delta_softplus=True,
        backend="reference",
    )
    assert y.item() == pytest.approx(2 * math.log(1 + math.exp(0.3 + 0.4)) * 0.7 / (1 + math.exp(-0.7)))


@pytest.mark.parametrize("backend", available_backends())
def test_every_group_is_a_scan_of_its_own(backend):
    inputs, _ = exact(random_inputs(20, 4, 2, 3), backend)
    together = selective_scan(**inputs, backend=backend)
    for group in range(2):
        own = slice(3 * group, 3 * group + 3)
        alone = {name: inputs[name][:, own] for name in ("u", "delta", "z")}
        alone |= {name: inputs[name][own] for name in ("A", "D", "delta_bias")}
        alone |= {name: inputs[name][:, group : group + 1] for name in ("B", "C")}
        torch.testing.assert_close(selective_scan(**alone, delta_softplus=True, backend=backend), together[:, own])


@pytest.mark.parametrize("backend", available_backends())
def test_a_batch_of_none_has_a_result_of_none(backend):
    inputs = converted(random_inputs(20, 4, 2, 3), torch.float32)
    inputs |= {name: inputs[name][:0] for name in ("u", "delta", "B", "C", "z")}
    assert selective_scan(**inputs, backend=backend).shape == (0, 6, 20)


@pytest.mark.parametrize("backend", available_backends())
def test_no_step_sees_the_steps_after_it(backend):
    inputs, _ = exact(random_inputs(50, 4, 2, 3), backend)
    changed = {name: value.clone() if isinstance(value, Tensor) else value for name, value in inputs.items()}
    for name in ("u", "delta", "B", "C", "z"):
        changed[name][..., 31:] += 1
    before, after = (selective_scan(**arguments, backend=backend) for arguments in (inputs, changed))
    assert torch.equal(before[..., :31], after[..., :31])
    assert (before[..., 31:] != after[..., 31:]).any()


@sizes
@pytest.mark.parametrize("backend", available_backends())
def test_backend_in_float32_is_near_the_loop_in_float64_in_value_and_gradient(backend, size):
    inputs = converted(random_inputs(*size), torch.float32)
    wanted = value_and_gradients(converted(inputs, torch.float64), backend="reference")
    found = value_and_gradients(inputs, backend=backend)
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    assert_near(found, wanted, tolerance=5e-6)


@sizes
@pytest.mark.parametrize("backend", [name for name in DOUBLE_BACKENDS if name != "reference"])
def test_backend_in_float64_equals_the_loop_in_value_and_gradient(backend, size):
    inputs = random_inputs(*size)
    assert_near(
        value_and_gradients(inputs, backend=backend), value_and_gradients(inputs, backend="reference"), tolerance=1e-10
    )


@pytest.mark.parametrize(
    "options",
    [(), *((name,) for name in OPTIONAL), *(tuple(set(OPTIONAL) - {name}) for name in OPTIONAL)],
    ids=lambda options: "+".join(sorted(options)) or "none",
)
@pytest.mark.parametrize("backend", FAST_BACKENDS)
def test_backend_equals_the_loop_with_any_of_the_options(backend, options):
    inputs, tolerance = exact(random_inputs(65, 4, 2, 5, options=options), backend)
    wanted = value_and_gradients(converted(inputs, torch.float64), backend="reference")
    assert_near(value_and_gradients(inputs, backend=backend), wanted, tolerance=tolerance)


@pytest.mark.parametrize("options", [OPTIONAL, ("D", "z")], ids=["softplus", "no softplus"])
@pytest.mark.parametrize("backend", available_backends())
def test_steps_of_twenty_neither_overflow_nor_lose_digits(backend, options):
    inputs = converted(random_inputs(200, 16, 2, 5, options=options, step=20.0), torch.float32)
    wanted = value_and_gradients(converted(inputs, torch.float64), backend="reference")
    found = value_and_gradients(inputs, backend=backend)
    assert all(tensor.isfinite().all() for tensor in found.values())
    assert_near(found, wanted, tolerance=2e-6)


@pytest.mark.parametrize("backend", available_backends())
def test_a_state_that_never_decays_keeps_its_digits_over_the_whole_sequence(backend):
    inputs = converted(random_inputs(200, 4, 1, 5, step=1e-3, options=("D", "z")), torch.float32)
    inputs["A"] = inputs["A"] * 1e-4
    wanted = value_and_gradients(converted(inputs, torch.float64), backend="reference")
    assert_near(value_and_gradients(inputs, backend=backend), wanted, tolerance=2e-6)


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("backend", DOUBLE_BACKENDS)
def test_gradients_are_those_of_finite_differences(backend, length):
    inputs = random_inputs(length, 2, 2, 1)
    leaves = [inputs[name].requires_grad_() for name in DIFFERENTIABLE]
    assert torch.autograd.gradcheck(lambda *tensors: selective_scan(*tensors, True, backend), leaves)


@pytest.mark.parametrize("wanted", DIFFERENTIABLE)
def test_the_gradient_of_one_input_alone_is_the_same_as_among_all(wanted):
    inputs = random_inputs(30, 4, 2, 3)
    alone = inputs | {wanted: inputs[wanted].clone().requires_grad_()}
    towards = torch.cos(torch.arange(inputs["u"].numel(), dtype=torch.float64)).reshape(inputs["u"].shape)
    (selective_scan(**alone, backend="chunked") * towards).sum().backward()
    among_all = value_and_gradients(inputs, backend="reference")
    torch.testing.assert_close(alone[wanted].grad, among_all[wanted])


@pytest.mark.parametrize("backend", available_backends())
def test_bfloat16_inputs_lose_nothing_but_the_rounding_of_the_result(backend):
    inputs = converted(random_inputs(200, 16, 2, 5), torch.float32)
    inputs |= {name: inputs[name].bfloat16() for name in ("u", "delta", "B", "C", "z")}
    y = selective_scan(**inputs, backend=backend)
    true = selective_scan(**converted(inputs, torch.float64), backend="reference")
    assert y.dtype == torch.bfloat16
    half_a_digit = torch.finfo(torch.bfloat16).eps / 2
    assert ((y.double() - true).abs() <= 1.01 * half_a_digit * true.abs() + 1e-5 * true.abs().max()).all()


@pytest.mark.parametrize("backend", available_backends())
def test_bfloat16_inputs_get_gradients_near_those_of_the_loop(backend):
    inputs = converted(random_inputs(65, 4, 2, 5), torch.float32)
    inputs |= {name: inputs[name].bfloat16() for name in ("u", "delta", "B", "C", "z")}
    wanted = value_and_gradients(converted(inputs, torch.float64), backend="reference")
    assert_near(value_and_gradients(inputs, backend=backend), wanted, tolerance=1e-2)


@pytest.mark.parametrize("backend", available_backends())
def test_the_memory_layout_of_the_inputs_does_not_matter(backend):
    inputs, tolerance = exact(random_inputs(65, 4, 2, 5), backend)
    turned = inputs | {
        name: inputs[name].transpose(-1, -2).contiguous().transpose(-1, -2) for name in ("u", "delta", "A", "B", "z")
    }
    turned["C"] = inputs["C"].repeat_interleave(2, dim=-1)[..., ::2]
    assert not any(turned[name].is_contiguous() for name in ("u", "delta", "A", "B", "C", "z"))
    wanted = value_and_gradients(converted(inputs, torch.float64), backend="reference")
    assert_near(value_and_gradients(turned, backend=backend), wanted, tolerance=tolerance)


@pytest.mark.parametrize("backend", available_backends())
def test_autocast_does_not_change_the_scan(backend):
    inputs = converted(random_inputs(65, 4, 2, 5), torch.float32)
    plain = selective_scan(**inputs, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        cast = selective_scan(**inputs, backend=backend)
    assert torch.equal(cast, plain)


def test_a_backward_pass_inside_autocast_does_not_change_the_gradients():
    inputs = converted(random_inputs(65, 4, 2, 5), torch.float32)
    plain = value_and_gradients(inputs, backend="chunked")
    with torch.autocast("cpu", torch.bfloat16):
        cast = value_and_gradients(inputs, backend="chunked")
    assert_near(cast, plain, tolerance=0.0)


def test_the_scan_of_tensors_without_numbers_tells_the_shape_of_the_result():
    inputs = {
        name: value.to("meta") if isinstance(value, Tensor) else value
        for name, value in random_inputs(65, 4, 2, 5).items()
    }
    assert selective_scan(**inputs, backend="chunked").shape == (2, 10, 65)


def full_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, z: Tensor, bias: Tensor) -> Tensor:
    return selective_scan(u, delta, A, B, C, D, z, bias, True)


def bare_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    return selective_scan(u, delta, A, B, C)


def test_a_scripted_scan_equals_the_loop_at_every_length_in_value_and_gradient():
    scripted = torch.jit.script(full_scan)
    for length in (9, 1, 50):
        inputs = random_inputs(length, 4, 2, 3)
        leaves = {name: inputs[name].clone().requires_grad_() for name in DIFFERENTIABLE}
        y = scripted(*leaves.values())
        towards = torch.cos(torch.arange(y.numel(), dtype=torch.float64)).reshape(y.shape)
        (y * towards).sum().backward()
        found = {"y": y.detach()} | {name: leaf.grad for name, leaf in leaves.items()}
        assert_near(found, value_and_gradients(inputs, backend="reference"), tolerance=1e-10)


def test_a_scripted_scan_does_without_its_options():
    inputs = random_inputs(12, 4, 2, 3, options=())
    wanted = selective_scan(**inputs, backend="reference")
    tensors = [value for value in inputs.values() if isinstance(value, Tensor)]
    torch.testing.assert_close(torch.jit.script(bare_scan)(*tensors), wanted)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # the shape checks
def test_a_traced_scan_equals_the_loop():
    inputs = random_inputs(12, 4, 2, 3)
    tensors = tuple(inputs[name] for name in DIFFERENTIABLE)
    traced = torch.jit.trace(full_scan, tensors)
    torch.testing.assert_close(traced(*tensors), selective_scan(**inputs, backend="reference"))


@pytest.fixture
def spy(monkeypatch) -> list[str]:
    """A backend called "spy" that notes its calls; the list is what it noted."""
    calls: list[str] = []

    def scan_and_note(*arguments):
        calls.append("spy")
        return BACKENDS["reference"](*arguments)

    monkeypatch.setitem(BACKENDS, "spy", scan_and_note)
    return calls


def test_the_environment_picks_the_backend(spy, monkeypatch):
    inputs = random_inputs(5, 1, 1, 2)
    monkeypatch.delenv("HMF_SCAN_BACKEND", raising=False)
    selective_scan(**inputs)
    assert spy == []
    monkeypatch.setenv("HMF_SCAN_BACKEND", "spy")
    selective_scan(**inputs)
    assert spy == ["spy"]


def test_a_backend_asked_for_by_name_beats_the_environment(spy, monkeypatch):
    monkeypatch.setenv("HMF_SCAN_BACKEND", "spy")
    selective_scan(**random_inputs(5, 1, 1, 2), backend="chunked")
    assert spy == []


def test_the_pick_is_logged_once(monkeypatch, caplog):
    monkeypatch.setitem(BACKENDS, "newcomer", BACKENDS["reference"])  # a name that no other test has picked
    monkeypatch.setenv("HMF_SCAN_BACKEND", "newcomer")
    with caplog.at_level(logging.INFO, logger="hmf_networks"):
        for _ in range(3):
            selective_scan(**random_inputs(5, 1, 1, 2))
    assert [record.getMessage() for record in caplog.records] == ["selective scan backend: newcomer"]


def test_an_unknown_backend_is_refused_with_the_known_ones_named():
    with pytest.raises(ValueError, match=r"'warp' is not there.*reference.*chunked"):
        selective_scan(**random_inputs(5, 1, 1, 2), backend="warp")


def test_an_unknown_backend_in_the_environment_is_refused(monkeypatch):
    monkeypatch.setenv("HMF_SCAN_BACKEND", "warp")
    with pytest.raises(ValueError, match="'warp' is not there"):
        selective_scan(**random_inputs(5, 1, 1, 2))


@pytest.mark.parametrize("name", ["delta", "B", "C", "D", "z", "delta_bias"])
def test_a_tensor_of_the_wrong_shape_is_named(name):
    inputs = random_inputs(5, 4, 2, 3)
    inputs[name] = torch.cat([inputs[name], inputs[name]], dim=-1)
    with pytest.raises(ValueError, match=rf"^{name} must be .*got"):
        selective_scan(**inputs)


def test_too_few_rows_of_a_are_named():
    inputs = random_inputs(5, 4, 2, 3)
    with pytest.raises(ValueError, match=r"^A must be \(6, 4\)"):
        selective_scan(**inputs | {"A": inputs["A"][:5]})


@pytest.mark.parametrize("name", ["u", "A", "B"])
def test_a_tensor_with_an_axis_too_many_is_named(name):
    inputs = random_inputs(5, 4, 2, 3)
    with pytest.raises(ValueError, match=rf"{name} \(1,"):
        selective_scan(**inputs | {name: inputs[name][None]})


def test_channels_that_cannot_be_shared_by_the_groups_are_refused():
    inputs = random_inputs(5, 4, 2, 3)
    inputs |= {name: inputs[name].repeat(1, 2, 1, 1) for name in ("B", "C")}
    with pytest.raises(ValueError, match="6 channels cannot be shared evenly by 4 groups"):
        selective_scan(**inputs)


native = pytest.mark.skipif("native" not in available_backends(), reason="no C++ compiler here")


@native
@pytest.mark.parametrize("instructions", sorted(_scan_native_build.instruction_sets()))
@sizes
def test_every_instruction_set_equals_the_loop_in_value_and_gradient(monkeypatch, instructions, size):
    try:
        _scan_native_kernel.load_kernel(instructions)
    except RuntimeError:
        pytest.skip(f"this CPU has no {instructions}")
    monkeypatch.setenv("HMF_SCAN_INSTRUCTIONS", instructions)
    inputs = converted(random_inputs(*size), torch.float32)
    wanted = value_and_gradients(converted(inputs, torch.float64), backend="reference")
    assert_near(value_and_gradients(inputs, backend="native"), wanted, tolerance=5e-6)


@native
@pytest.mark.skipif(shutil.which("nm") is None or sys.platform != "linux", reason="asks nm")
@pytest.mark.parametrize("instructions", sorted(_scan_native_build.instruction_sets()))
def test_no_function_is_shared_between_instruction_sets_even_where_none_is_inlined(instructions, tmp_path):
    """The linker would keep one of each name: that of AVX-512, on a CPU that has none."""
    lanes, flags = _scan_native_build.instruction_sets()[instructions]
    recipe = [*_scan_native_build.COMMON_FLAGS, "-O0", *flags, f"-DHMF_ISA={instructions}"]
    source, compiled = _scan_native_build.SOURCE, tmp_path / "scan.o"
    command = [_scan_native_build.compiler(), *recipe, f"-DHMF_LANES={lanes}", "-c", source, "-o", compiled]
    subprocess.run(command, check=True)
    symbols = subprocess.run(["nm", "-P", "-g", "--defined-only", compiled], capture_output=True, text=True)
    names = {line.split()[0] for line in symbols.stdout.splitlines()}
    assert names == {f"hmf_scan_{way}_{instructions}" for way in ("forward", "backward")}


@native
@pytest.mark.parametrize("states", [3, 7, 24, 256])
def test_the_kernel_takes_any_number_of_states(states):
    inputs = converted(random_inputs(40, states, 1, 19), torch.float32)
    wanted = value_and_gradients(converted(inputs, torch.float64), backend="reference")
    assert_near(value_and_gradients(inputs, backend="native"), wanted, tolerance=5e-6)


@native
@pytest.mark.parametrize("groups", [1, 2])
def test_two_threads_give_what_one_gives_and_give_it_again(groups):
    inputs = converted(random_inputs(70, 4, groups, 40), torch.float32)
    alone = value_and_gradients(inputs, backend="native")
    torch.set_num_threads(3)
    try:
        together, again = (value_and_gradients(inputs, backend="native") for _ in range(2))
    finally:
        torch.set_num_threads(1)
    assert_near(together, alone, tolerance=1e-6)
    assert_near(again, together, tolerance=0.0)


def operator_inputs() -> list[Tensor]:
    """Tokens before groups and channels, as the operator takes them."""
    inputs = converted(random_inputs(40, 3, 2, 5), torch.float32)
    for name in ("u", "delta", "z"):
        inputs[name] = inputs[name].unflatten(1, (2, -1)).permute(0, 3, 1, 2)
    inputs |= {name: inputs[name].permute(0, 3, 1, 2) for name in ("B", "C")}
    return [inputs[name] for name in DIFFERENTIABLE]


@native
def test_the_kernel_is_a_well_behaved_operator():
    tensors = operator_inputs()
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    torch.library.opcheck(torch.ops.hmf.scan_forward.default, (*leaves, True, 0, True))
    y, starts = torch.ops.hmf.scan_forward(*tensors, True, 0, True)
    torch.library.opcheck(torch.ops.hmf.scan_backward.default, (torch.ones_like(y), *tensors, True, 0, starts))


@native
@pytest.mark.slow
def test_the_kernel_compiles_into_one_graph():
    inputs = converted(random_inputs(40, 3, 2, 5), torch.float32)
    tensors = [inputs[name].clone().requires_grad_() for name in DIFFERENTIABLE]
    compiled = torch.compile(full_scan, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(*tensors).cos().sum(), tensors)
    wanted = torch.autograd.grad(full_scan(*tensors).cos().sum(), tensors)
    torch.testing.assert_close(found, wanted)


@native
def test_without_a_gradient_no_states_are_kept():
    _, starts = torch.ops.hmf.scan_forward(*operator_inputs(), True, 0, False)
    assert starts.numel() == 0


@native
def test_the_cpu_is_served_by_the_kernel_and_float64_by_plain_torch(monkeypatch):
    monkeypatch.delenv("HMF_SCAN_BACKEND", raising=False)
    inputs = random_inputs(20, 4, 2, 3)
    with pytest.raises(ValueError, match=r"native.*float32.*try 'chunked'"):
        selective_scan(**inputs, backend="native")
    narrow = converted(inputs, torch.float32)
    assert torch.equal(selective_scan(**narrow), selective_scan(**narrow, backend="native"))
    assert torch.equal(selective_scan(**inputs), selective_scan(**inputs, backend="chunked"))


@pytest.fixture
def nothing_loaded() -> Iterator[None]:
    """The kernel is sought anew, in the test and after it."""
    names = ("_library_or_reason", "load_kernel", "_say_absent")
    memory = [getattr(_scan_native_kernel, name) for name in names]
    for function in memory:
        function.cache_clear()
    yield
    for function in memory:
        function.cache_clear()


@pytest.mark.usefixtures("nothing_loaded")
def test_without_a_compiler_plain_torch_serves_and_one_line_tells_the_cure(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(_scan_native_build, "compiler", lambda: None)
    monkeypatch.setattr(_scan_native_kernel, "_load", lambda _path: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    inputs = converted(random_inputs(20, 4, 2, 3), torch.float32)
    for _ in range(2):
        assert torch.equal(selective_scan(**inputs), selective_scan(**inputs, backend="chunked"))
    assert "native" not in available_backends()
    (warning,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "chunked" in warning
    assert "install g++" in warning
    assert list(tmp_path.rglob("*.so")) == []


@pytest.mark.usefixtures("nothing_loaded")
def test_what_cannot_be_compiled_is_tried_once_and_not_at_every_scan(monkeypatch):
    tried = []

    def fails(path):
        tried.append(path)
        raise RuntimeError("no room on the disk")

    monkeypatch.setattr(_scan_native_build, "build", fails)
    monkeypatch.setattr(_scan_native_kernel, "_load", lambda _path: None)
    for _ in range(3):
        selective_scan(**converted(random_inputs(5, 1, 1, 2), torch.float32))
        with pytest.raises(RuntimeError, match="no room on the disk"):
            _scan_native_kernel.kernel()
    assert len(tried) == 1


@native
@pytest.mark.slow
def test_a_library_is_built_whole_and_a_stale_one_is_not_loaded(tmp_path, monkeypatch):
    library = tmp_path / "new" / "scan.so"
    _scan_native_build.build(library)
    assert _scan_native_kernel._load(library) is not None
    assert list(library.parent.iterdir()) == [library]
    monkeypatch.setattr(_scan_native_build, "source_hash", lambda: "of another source")
    assert _scan_native_kernel._load(library) is None


def test_a_failing_compiler_is_quoted_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(_scan_native_build, "compiler", lambda: "false")
    with pytest.raises(RuntimeError, match="false failed"):
        _scan_native_build.build(tmp_path / "scan.so")
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named_with_the_cure(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("where a folder should be")
    monkeypatch.setattr(_scan_native_build, "compiler", lambda: "true")
    with pytest.raises(RuntimeError, match=r"scan.so cannot be written .*XDG_CACHE_HOME"):
        _scan_native_build.build(tmp_path / "file" / "scan.so")
