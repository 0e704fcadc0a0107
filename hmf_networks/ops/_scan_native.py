"""The compiled selective scan for CPUs: `_scan_native.cpp`, forward and backward, as custom operators.

The operators know one layout of tokens, groups and channels with any strides, so that sequences and maps are
views of what they were: B batch, L tokens, G groups or directions, d channels, N states. u is (B, L, G, d),
(B, L, 1, d) when one map is walked in all directions; delta, z (B, L, G, d); B, C (B, L, G, N).
"""

# flake8: noqa: N803, N806

import ctypes
from collections.abc import Callable
from typing import Any

import torch
from hmf_networks.ops._forward_mode import refuse_forward_mode
from hmf_networks.ops._scan_native_kernel import Scan, Strided, kernel
from torch import Tensor

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
    batch, channels, length = u.shape
    split = (batch, B.shape[1], channels // B.shape[1], length)
    u_t, delta_t, z_t = (None if x is None else x.reshape(split).permute(0, 3, 1, 2) for x in (u, delta, z))
    B_t, C_t = B.permute(0, 3, 1, 2), C.permute(0, 3, 1, 2)
    y = _scan(u_t, delta_t, A, B_t, C_t, D, z_t, delta_bias, delta_softplus, width=0)
    return y.permute(0, 2, 3, 1).reshape(batch, channels, length).to(u.dtype)


def scan_2d_native(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """Scan a map in the kernel, which finds its way in every direction; shapes as in `selective_scan_2d`."""
    u_t = u.flatten(1, 2).unsqueeze(2)  # B L 1 d
    delta_t, B_t, C_t = (x.flatten(1, 2) for x in (delta, B, C))  # B L K d, B L K N, B L K N
    y = _scan(u_t, delta_t, A, B_t, C_t, D, None, delta_bias, delta_softplus, width=u.shape[2])
    return y.reshape(u.shape).to(u.dtype)


def _scan(
    u: Tensor | None,
    delta: Tensor | None,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    *,
    width: int,
) -> Tensor:
    assert u is not None  # for mypy: only D, z and delta_bias may be missing
    assert delta is not None
    if u.device.type != "cpu" or u.dtype == torch.float64:
        raise ValueError(f"backend 'native' is for float32 on a CPU, got {u.dtype} on {u.device}; try 'chunked'")
    of_tokens = {"u": u, "delta": delta, "B": B, "C": C, "z": z}
    inputs = {**of_tokens, "A": A, "D": D, "delta_bias": delta_bias}
    refuse_forward_mode("native", inputs.values())
    present = [x for x in inputs.values() if x is not None]
    needs_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in present)
    as_it_is = width and not needs_gradient and all(x.dtype == torch.bfloat16 for x in (u, delta, B, C))
    ready = {
        name: _walkable(x if as_it_is and name in of_tokens else x.float(), name, width)
        for name, x in inputs.items()
        if x is not None
    }
    ordered = (ready.get(name) for name in ("u", "delta", "A", "B", "C", "D", "z", "delta_bias"))
    y, _ = torch.ops.hmf.scan_forward(*ordered, delta_softplus, width, needs_gradient)
    return y


def _walkable(x: Tensor, name: str, width: int) -> Tensor:
    """As the kernel can read it: parameters without gaps, channels side by side, or tokens of sequences."""
    if name in ("A", "D", "delta_bias"):
        return x.contiguous()
    return x if name in ("B", "C") or _lies_well(x, width) else x.contiguous()


def _lies_well(x: Tensor, width: int) -> bool:
    """Channels side by side, which a single one always is whatever its stride; or tokens of sequences."""
    return x.shape[3] == 1 or x.stride(3) == 1 or (x.stride(1) == 1 and width == 0)


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
    width: int,
    keep_starts: bool,
) -> tuple[Tensor, Tensor]:
    """Output, and the states at the start of every tile that backward begins from: (B, tiles, N, G*d).

    `width` is that of the map, 0 for sequences. The output is float32 and lies as u does.
    """
    inputs = (u, delta, A, B, C, D, z, delta_bias)
    y, starts = _like(u, width), A.new_empty(_starts_shape(u, A, keep_starts))
    outputs = {"y": y} | ({"starts": starts} if keep_starts else {})
    _call(kernel().forward, inputs, delta_softplus, width, outputs)
    return y, starts


@scan_forward.register_fake
def _(u, delta, A, B, C, D, z, delta_bias, delta_softplus, width, keep_starts):  # type: ignore[no-untyped-def] # noqa: ARG001
    return _like(u, width), A.new_empty(_starts_shape(u, A, keep_starts))


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
    width: int,
    starts: Tensor,
) -> list[Tensor]:
    """Gradients of u, delta, A, B, C, D, z and delta_bias; an empty tensor for what is not there."""
    batch, segments = u.shape[0], _segments(u, delta)
    inputs = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    parts = {"A": batch, "D": batch, "delta_bias": batch, "B": segments, "C": segments}  # summed below
    gradients = {
        name: x.new_empty((parts[name], *x.shape)) if name in parts else _like(x, width)
        for name, x in inputs.items()
        if x is not None
    }
    outputs = {f"grad_{name}": gradient for name, gradient in gradients.items()}
    outputs |= {"grad_y": _walkable(grad_y, "grad_y", width), "starts": starts}
    _call(kernel().backward, tuple(inputs.values()), delta_softplus, width, outputs)
    summed = {name: gradients[name].sum(0) if name in parts else gradients[name] for name in gradients}
    return [summed.get(name, u.new_empty(0)) for name in inputs]


@scan_backward.register_fake
def _(grad_y, u, delta, A, B, C, D, z, delta_bias, delta_softplus, width, starts):  # type: ignore[no-untyped-def] # noqa: ARG001
    whole = {"u": u, "delta": delta, "A": A, "B": B, "C": C, "D": D, "z": z, "delta_bias": delta_bias}
    return [
        u.new_empty(0) if x is None else _like(x, width) if name in ("u", "delta", "z") else x.new_empty(x.shape)
        for name, x in whole.items()
    ]


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.delta_softplus, ctx.width, ctx.keep_starts = inputs
    ctx.save_for_backward(*tensors, output[1])


def _differentiate(ctx, grad_y, _grad_starts):  # type: ignore[no-untyped-def]
    if not ctx.keep_starts:
        raise RuntimeError("hmf::scan_forward was called with keep_starts=False: it has no gradient")
    *tensors, starts = ctx.saved_tensors
    gradients = torch.ops.hmf.scan_backward(grad_y, *tensors, ctx.delta_softplus, ctx.width, starts)
    present = [None if x is None else gradient for x, gradient in zip(tensors, gradients, strict=True)]
    return (*present, None, None, None)


scan_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _like(x: Tensor, width: int) -> Tensor:
    """Of the same layout, in float32; torch itself chooses another for overlapping ones, as of `unfold`."""
    like = torch.empty_like(x, dtype=torch.float32)
    return like if _lies_well(like, width) else torch.empty(x.shape, dtype=torch.float32, device=x.device)


def _starts_shape(u: Tensor, A: Tensor, keep_starts: bool) -> tuple[int, ...]:
    tiles = (u.shape[1] + TILE - 1) // TILE
    return (u.shape[0], tiles, A.shape[1], A.shape[0]) if keep_starts else (0,)


def _segments(u: Tensor, delta: Tensor) -> int:
    """Parts to cut a group's channels into, so that every thread has one."""
    independent = u.shape[0] * (delta.shape[2] if u.shape[2] == delta.shape[2] else 1)
    return max(1, -(-torch.get_num_threads() // max(1, independent)))


def _call(
    function: Callable[[Any], int],
    inputs: tuple[Tensor | None, ...],
    delta_softplus: bool,
    width: int,
    outputs: dict[str, Tensor],
) -> None:
    u, delta, A = inputs[:3]
    assert u is not None
    assert delta is not None
    assert A is not None
    batch, length, groups, channels = delta.shape
    half, threads, segments = u.dtype == torch.bfloat16, torch.get_num_threads(), _segments(u, delta)
    of_the_scan = (batch, groups, channels, A.shape[1], length)
    sizes = (*of_the_scan, width, segments, delta_softplus, half, threads)
    tensors = {name: x for name, x in zip(Scan.INPUTS, inputs, strict=True) if x is not None} | outputs
    scan = Scan(
        **dict(zip(Scan.SIZES, map(int, sizes), strict=True)),
        **{name: x.data_ptr() for name, x in tensors.items() if name in Scan.PARAMETERS},
        **{name: _strided(x, groups) for name, x in tensors.items() if name in Scan.STRIDED},
    )
    if function(ctypes.byref(scan)):
        raise MemoryError(f"selective scan of {tuple(delta.shape)}: no memory for its working space")


def _strided(x: Tensor, groups: int) -> Strided:
    """Of (B, L, G, d), or (segments, B, L, G, N) whose parts lie one after the other."""
    batch, token, group, channel = x.stride()[-4:]
    shared = x.shape[-2] == 1 and groups > 1
    alone = x.shape[-1] == 1  # torch gives an axis of one any stride
    return Strided(x.data_ptr(), batch, 0 if shared else group, token, 1 if alone else channel)
