"""The one selective scan of the house. It checks what comes in, picks a backend and says which, once."""

# flake8: noqa: N803

import logging
import os
from collections.abc import Callable, Mapping

import torch
from hmf_networks.ops import _scan_mamba_ssm, _scan_native_kernel, _scan_triton
from hmf_networks.ops._scan_chunked import scan_chunked, without_autocast
from hmf_networks.ops._scan_mamba_ssm import scan_mamba_ssm
from hmf_networks.ops._scan_native import scan_native
from hmf_networks.ops._scan_operator import scan_operator
from hmf_networks.ops._scan_reference import scan_reference
from hmf_networks.ops._scan_triton import scan_triton
from torch import Tensor

logger = logging.getLogger(__name__)

BACKENDS: dict[str, Callable[..., Tensor]] = {
    "reference": scan_reference,
    "chunked": scan_chunked,
    "native": scan_native,
    "operator": scan_operator,
    "triton": scan_triton,
    "mamba_ssm": scan_mamba_ssm,
}
_said: set[str] = set()  # backends whose pick was logged
PROBES: dict[str, Callable[[], bool]] = {  # the others need torch alone
    "native": _scan_native_kernel.is_available,
    "operator": torch.compiler.is_exporting,
    "triton": _scan_triton.is_available,
    "mamba_ssm": _scan_mamba_ssm.is_available,
}
PREFERRED = {"cpu": ("native",), "cuda": ("triton", "mamba_ssm")}  # else, and for float64, "chunked"
MOST_STATES = {"mamba_ssm": _scan_mamba_ssm.MOST_STATES}


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Run G groups of d channels with N states each along L steps. Paper section 3.2.

    Args:
        u: input, (B, G*d, L).
        delta: step sizes, (B, G*d, L).
        A: state matrix (diagonal, negative), (G*d, N).
        B: input matrix of every step, (B, G, N, L).
        C: output matrix of every step, (B, G, N, L).
        D: skip weight, (G*d,).
        z: gate, (B, G*d, L): the output is multiplied by silu(z).
        delta_bias: added to delta, (G*d,).
        delta_softplus: softplus(delta + bias) is the step size.
        backend: "auto" or one of `available_backends()`; the variable HMF_SCAN_BACKEND overrides "auto".

    Returns:
        (B, G*d, L) in the type of u. The state is float32 whatever comes in (float64 for float64 input).

    Raises:
        ValueError: shapes that do not belong together, or an unknown backend.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return scan_chunked(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    return _dispatch(u, delta, A, B, C, D, z, delta_bias, delta_softplus, backend)


@torch.jit.unused
def available_backends() -> list[str]:
    """Names that `selective_scan(backend=...)` takes on this machine."""
    return [name for name in BACKENDS if _is_available(name)]


@torch.jit.unused
def _dispatch(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    backend: str,
) -> Tensor:
    if not torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        _check_shapes(u, delta, A, B, C, D, z, delta_bias)
    name = resolve_backend(u, A.shape[-1], backend)
    with without_autocast(u.device.type):
        return BACKENDS[name](u, delta, A, B, C, D, z, delta_bias, delta_softplus)


@torch.jit.unused
def resolve_backend(u: Tensor, num_states: int, backend: str) -> str:
    """The backend that serves `u` with N states; "auto" is resolved, and the pick logged once.

    Raises:
        ValueError: an unknown backend, or one that this machine lacks.
    """
    name = _pick(u, num_states) if backend == "auto" else backend
    if name not in BACKENDS or (backend != "auto" and not _is_available(name)):
        raise ValueError(f"scan backend {name!r} is not there; available here: {', '.join(available_backends())}")
    if backend == "auto":
        _say_once(name)
    return name


def _pick(u: Tensor, num_states: int) -> str:
    """In a fixed order and never by timing, so that results repeat."""
    if torch.compiler.is_exporting():
        return "operator"
    if torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        return "chunked"
    wish = os.environ.get("HMF_SCAN_BACKEND", "auto")
    if wish not in ("", "auto"):
        return wish
    preferred = () if u.dtype == torch.float64 else PREFERRED.get(u.device.type, ())
    fitting = [name for name in preferred if num_states <= MOST_STATES.get(name, num_states)]
    return next((name for name in fitting if _is_available(name)), "chunked")


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _is_available(name: str) -> bool:
    return name not in PROBES or PROBES[name]()


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _say_once(name: str) -> None:
    if name not in _said:
        _said.add(name)
        logger.info("selective scan backend: %s", name)


def _check_shapes(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> None:
    if u.dim() != 3 or A.dim() != 2 or B.dim() != 4:
        raise ValueError(
            f"u must be (B, G*d, L), A (G*d, N), B and C (B, G, N, L); "
            f"got u {tuple(u.shape)}, A {tuple(A.shape)}, B {tuple(B.shape)}"
        )
    batch, channels, length = u.shape
    groups = B.shape[1]
    wanted = {
        "delta": (delta, (batch, channels, length)),
        "A": (A, (channels, A.shape[1])),
        "B": (B, (batch, groups, A.shape[1], length)),
        "C": (C, (batch, groups, A.shape[1], length)),
        "D": (D, (channels,)),
        "z": (z, (batch, channels, length)),
        "delta_bias": (delta_bias, (channels,)),
    }
    check_each(wanted, f"u {tuple(u.shape)}")
    if channels % groups:
        raise ValueError(f"{channels} channels cannot be shared evenly by {groups} groups")


def check_each(wanted: Mapping[str, tuple[Tensor | None, tuple[int, ...]]], beside: str) -> None:
    """Raise a ValueError at the first tensor whose shape is not the one wanted `beside` another."""
    for name, (tensor, shape) in wanted.items():
        if tensor is not None and tuple(tensor.shape) != shape:
            raise ValueError(f"{name} must be {shape} beside {beside}; got {tuple(tensor.shape)}")
