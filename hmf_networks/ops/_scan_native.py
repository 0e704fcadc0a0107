"""The selective scan as a compiled CPU kernel, forward and backward: `_scan_native.cpp` as custom operators.

The library is sought beside this file, where the installation put it, then in the user's cache, where it is
compiled on first use. Without either the chunked backend serves.
"""

import ctypes
import functools
import logging
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hmf_networks.ops import _scan_native_build

logger = logging.getLogger(__name__)

TILE = 32  # steps between two kept states; kTile of the source


class _Scan(ctypes.Structure):
    """`struct Scan` of the source, field by field."""

    SIZES = ("batch", "groups", "group_channels", "states", "length", "segments", "softplus", "threads")
    INPUTS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    OUTPUTS = ("y", "starts", "grad_y", "grad_u", "grad_delta", "grad_z")
    SUMMED = ("grad_A", "grad_D", "grad_delta_bias", "grad_B", "grad_C")
    _fields_ = [(name, ctypes.c_int64) for name in SIZES] + [
        (name, ctypes.c_void_p) for name in (*INPUTS, *OUTPUTS, *SUMMED)
    ]


class Kernel(NamedTuple):
    """The two entry points of one instruction set; both return 0, or 1 when memory ran out."""

    forward: Callable[[Any], int]
    backward: Callable[[Any], int]


def scan_native(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """Scan in the kernel; shapes as in `selective_scan`. Everything is computed in float32."""
    if u.device.type != "cpu" or u.dtype == torch.float64:
        raise ValueError(
            f"backend 'native' is for float32 on a CPU, got {u.dtype} on {u.device}; try 'chunked'"
        )
    inputs = [None if x is None else x.float().contiguous() for x in (u, delta, A, B, C, D, z, delta_bias)]
    needs_gradient = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    y, _ = torch.ops.hmf.scan_forward(*inputs, delta_softplus, needs_gradient)
    return y.to(u.dtype)


@torch.library.custom_op("hmf::scan_forward", mutates_args=(), device_types="cpu")
def scan_forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    keep_starts: bool,
) -> tuple[Tensor, Tensor]:
    """Output, and the states at the start of every tile that backward begins from: (B, tiles, N, G*d)."""
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    y, starts = torch.empty_like(u), u.new_empty(_starts_shape(u, A, keep_starts))
    outputs = {"y": y} | ({"starts": starts} if keep_starts else {})
    _call(_kernel().forward, inputs, delta_softplus, _segments(u, B), outputs)
    return y, starts


@scan_forward.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, keep_starts):  # type: ignore[no-untyped-def] # noqa: ARG001
    return torch.empty_like(u), u.new_empty(_starts_shape(u, A, keep_starts))


@torch.library.custom_op("hmf::scan_backward", mutates_args=(), device_types="cpu")
def scan_backward(
    grad_y: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    starts: Tensor,
) -> list[Tensor]:
    """Gradients of u, delta, A, B, C, D, z and delta_bias; an empty tensor for what is not there."""
    batch, segments = u.shape[0], _segments(u, B)
    inputs = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    parts = {"A": batch, "D": batch, "delta_bias": batch, "B": segments, "C": segments}  # summed below
    gradients = {
        name: x.new_empty((parts[name], *x.shape) if name in parts else x.shape)
        for name, x in inputs.items()
        if x is not None
    }
    outputs = {f"grad_{name}": gradient for name, gradient in gradients.items()}
    outputs |= {"grad_y": grad_y.contiguous(), "starts": starts}
    _call(_kernel().backward, tuple(inputs.values()), delta_softplus, segments, outputs)
    summed = {name: gradients[name].sum(0) if name in parts else gradients[name] for name in gradients}
    return [summed.get(name, u.new_empty(0)) for name in inputs]


@scan_backward.register_fake
def _(grad_y, u, delta, A, B, C, D, z, delta_bias, delta_softplus, starts):  # type: ignore[no-untyped-def] # noqa: ARG001
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    return [u.new_empty(0) if x is None else torch.empty_like(x) for x in inputs]


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.delta_softplus, ctx.keep_starts = inputs
    ctx.save_for_backward(*tensors, output[1])


def _differentiate(ctx, grad_y, _grad_starts):  # type: ignore[no-untyped-def]
    if not ctx.keep_starts:
        raise RuntimeError("hmf::scan_forward was called with keep_starts=False: it has no gradient")
    *tensors, starts = ctx.saved_tensors
    gradients = torch.ops.hmf.scan_backward(grad_y, *tensors, ctx.delta_softplus, starts)
    present = [None if x is None else gradient for x, gradient in zip(tensors, gradients, strict=True)]
    return (*present, None, None)


scan_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _starts_shape(u: Tensor, A: Tensor, keep_starts: bool) -> tuple[int, ...]:
    batch, channels, length = u.shape
    return (batch, (length + TILE - 1) // TILE, A.shape[1], channels) if keep_starts else (0,)


def _segments(u: Tensor, B: Tensor) -> int:
    """Parts to cut a group's channels into, so that every thread has one."""
    return max(1, -(-torch.get_num_threads() // (u.shape[0] * B.shape[1])))


def _call(
    function: Callable[[Any], int],
    inputs: tuple[Tensor | None, ...],
    delta_softplus: bool,
    segments: int,
    outputs: dict[str, Tensor],
) -> None:
    u, B = inputs[0], inputs[3]
    assert u is not None  # for mypy: only D, z and delta_bias may be missing
    assert B is not None
    batch, channels, length = u.shape
    groups, states = B.shape[1], B.shape[2]
    sizes = (
        batch,
        groups,
        channels // groups,
        states,
        length,
        segments,
        delta_softplus,
        torch.get_num_threads(),
    )
    pointers = {name: x.data_ptr() for name, x in zip(_Scan.INPUTS, inputs, strict=True) if x is not None}
    pointers |= {name: x.data_ptr() for name, x in outputs.items()}
    scan = _Scan(**dict(zip(_Scan.SIZES, map(int, sizes), strict=True)), **pointers)
    if function(ctypes.byref(scan)):
        raise MemoryError(f"selective scan of {tuple(u.shape)}: no memory for its working space")


def is_available() -> bool:
    """True where the kernel is there or could be compiled; says once when it is not."""
    try:
        _kernel()
    except RuntimeError as error:
        _say_absent(str(error))
        return False
    return True


@functools.cache
def _say_absent(reason: str) -> None:
    logger.warning("no compiled selective scan, the slower 'chunked' serves: %s", reason)


def _kernel() -> Kernel:
    return load_kernel(os.environ.get("HMF_SCAN_INSTRUCTIONS", ""))


@functools.cache
def load_kernel(instructions: str = "") -> Kernel:
    """The kernel for an instruction set, e.g. "avx2"; the best this CPU has by default.

    Raises:
        RuntimeError: an unknown set, or no library and none could be compiled.
    """
    usable = _usable_sets()
    if instructions and instructions not in usable:
        raise RuntimeError(f"HMF_SCAN_INSTRUCTIONS {instructions!r}: this CPU runs {', '.join(usable)}")
    library = _library()
    name = instructions or usable[0]
    kernel = Kernel(*(getattr(library, f"hmf_scan_{way}_{name}") for way in ("forward", "backward")))
    for function in kernel:
        function.argtypes, function.restype = [ctypes.POINTER(_Scan)], ctypes.c_int  # type: ignore[attr-defined]
    return kernel


def _usable_sets() -> list[str]:
    """Instruction sets that are compiled here and that this CPU has, best first."""
    capability = torch.backends.cpu.get_cpu_capability()
    beyond = {"AVX512": [], "AVX2": ["avx512"]}.get(capability, ["avx512", "avx2"])
    return [name for name in _scan_native_build.instruction_sets() if name not in beyond]


@functools.cache
def _library() -> ctypes.CDLL:
    for path in sorted(Path(__file__).parent.glob("_scan_native_library*")):
        if (library := _load(path)) is not None:
            return library
    path = _cache_path()
    if (library := _load(path)) is not None:
        return library
    logger.info("compiling the selective scan for this machine, once: %s", path)
    _scan_native_build.build(path)
    if (library := _load(path)) is None:
        raise RuntimeError(f"{path} was compiled but does not load")
    return library


def _load(path: Path) -> ctypes.CDLL | None:
    """The library at `path`; None when it is not there, does not load, or belongs to another source."""
    try:
        library = ctypes.CDLL(str(path))
        library.hmf_scan_hash.restype = ctypes.c_char_p
        return library if library.hmf_scan_hash().decode() == _scan_native_build.source_hash() else None
    except (OSError, AttributeError):
        return None


def _cache_path() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "hmf_networks" / f"scan-{_scan_native_build.source_hash()}-{platform.machine()}.so"
