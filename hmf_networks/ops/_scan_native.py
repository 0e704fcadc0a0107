"""The compiled selective scan for CPUs: `_scan_native.cpp`, forward and backward, as custom operators."""

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from hmf_networks.ops._scan_native_kernel import Scan, kernel

TILE = 32  # steps between two kept states; kTile of the source


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
    _call(kernel().forward, inputs, delta_softplus, _segments(u, B), outputs)
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
    _call(kernel().backward, tuple(inputs.values()), delta_softplus, segments, outputs)
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
    pointers = {name: x.data_ptr() for name, x in zip(Scan.INPUTS, inputs, strict=True) if x is not None}
    pointers |= {name: x.data_ptr() for name, x in outputs.items()}
    scan = Scan(**dict(zip(Scan.SIZES, map(int, sizes), strict=True)), **pointers)
    if function(ctypes.byref(scan)):
        raise MemoryError(f"selective scan of {tuple(u.shape)}: no memory for its working space")
