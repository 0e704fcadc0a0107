"""The selective scan on NVIDIA GPUs: `_scan_triton_kernels.py`, forward and backward, as custom operators.

The operators know one layout with any strides, so that sequences and maps are views of what they were: B
batch, H x W tokens, K groups or directions, d channels, N states. u is (B, H, W, K, d), or (B, H, W, 1, d)
when one map is walked in all directions; delta (B, H, W, K, d); B, C (B, H, W, K, N). Every direction has a
result of its own and torch sums them: programs that add to one place do so in any order, and results would
not repeat.
"""

# flake8: noqa: N803, N806

import functools
import logging
import math
import os
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from hmf_networks.ops._forward_mode import refuse_forward_mode
from hmf_networks.ops._scan_probe import smoke_test
from torch import Tensor

logger = logging.getLogger(__name__)

STEPS = 8  # tokens of a tile: what a program keeps in registers, and the distance of kept states
WIDE = {"ROWS": 2, "STATE_LANES": 2}  # channels of a thread, states of a warp: the fewest instructions
NARROW = {"ROWS": 1, "STATE_LANES": 4}  # four times the warps
WARPS_TO_FILL = 1024  # two for each scheduler of an H100
LOG2_E = 1 / math.log(2)


def is_available() -> bool:
    """True where a small test passes on a CUDA device, or Triton's interpreter is on; says once why not."""
    if _interprets():
        return True
    return torch.cuda.is_available() and _passes()


@functools.cache
def _passes() -> bool:
    reason = smoke_test(scan_triton, scan_2d_triton)
    if reason:
        logger.warning("no Triton scan on this GPU: %s", reason)
    return not reason


def _interprets() -> bool:
    """Triton runs its kernels on the CPU, slowly: for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@functools.cache
def _kernels() -> ModuleType:
    try:
        from hmf_networks.ops import _scan_triton_kernels
    except ImportError as error:
        raise RuntimeError("backend 'triton' needs Triton, which a CUDA build of torch brings along") from error
    return _scan_triton_kernels


def scan_triton(
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
    """Scan groups side by side; shapes as in `selective_scan`."""
    batch, channels, length = u.shape
    split = (batch, B.shape[1], channels // B.shape[1], length)
    u_t, delta_t = (x.reshape(split).permute(0, 3, 1, 2).unsqueeze(1) for x in (u, delta))  # B 1 L G d
    B_t, C_t = (x.permute(0, 3, 1, 2).unsqueeze(1) for x in (B, C))  # B 1 L G N
    y = _scan(u_t, delta_t, A, B_t, C_t, D, delta_bias, delta_softplus, turning=False)
    y = y.squeeze(1).permute(0, 2, 3, 1).reshape(batch, channels, length)
    return (y if z is None else y * F.silu(z.float())).to(u.dtype)


def scan_2d_triton(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
) -> Tensor:
    """Scan a map in directions that the kernel finds by itself; shapes as in `selective_scan_2d`."""
    y = _scan(u.unsqueeze(3), delta, A, B, C, D, delta_bias, delta_softplus, turning=True)
    return y.sum(3).to(u.dtype)


def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    *,
    turning: bool,
) -> Tensor:
    if (u.device.type != "cuda" and not _interprets()) or u.dtype == torch.float64:
        raise ValueError(f"backend 'triton' is for float32 on CUDA, got {u.dtype} on {u.device}; try 'chunked'")
    parameters = [None if x is None else x.float().contiguous() for x in (A, D, delta_bias)]
    inputs = (u, delta, parameters[0], B, C, parameters[1], parameters[2])
    refuse_forward_mode("triton", inputs)
    needs_gradient = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs)
    y, _ = torch.ops.hmf.scan_triton_forward(*inputs, delta_softplus, turning, needs_gradient)
    return y


@torch.library.custom_op("hmf::scan_triton_forward", mutates_args=())
def scan_triton_forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    turning: bool,
    keep_starts: bool,
) -> tuple[Tensor, Tensor]:
    """Outputs of every direction, (B, H, W, K, d), and states at the tile starts, (B, K, tiles, N, d)."""
    y, starts = _outputs(delta, A, turning, keep_starts)
    batch, _, _, directions, channels = delta.shape
    states = delta.new_zeros((batch, directions, A.shape[1], channels), dtype=torch.float32)
    grid, options = _launch(delta, A.shape[1], turning)
    with _on_device_of(u):
        _kernels().walk[grid](
            u, delta, _states_first(A, directions), B, C, D, delta_bias, y, states, starts,
            _strides(u, directions), delta.stride(), B.stride(), C.stride(),
            SOFTPLUS=delta_softplus, KEEP_STARTS=keep_starts, **options,
        )  # fmt: skip
    return y, starts


@scan_triton_forward.register_fake
def _(u, delta, A, B, C, D, delta_bias, delta_softplus, turning, keep_starts):  # type: ignore[no-untyped-def] # noqa: ARG001
    return _outputs(delta, A, turning, keep_starts)


@torch.library.custom_op("hmf::scan_triton_backward", mutates_args=())
def scan_triton_backward(
    grad_y: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    turning: bool,
    starts: Tensor,
) -> list[Tensor]:
    """Gradients of u, delta, A, B, C, D and delta_bias; an empty tensor for what is not there."""
    batch, _, _, directions, channels = delta.shape
    states = A.shape[1]
    grid, options = _launch(delta, states, turning)
    blocks = grid[0] // max(1, batch * directions)
    new = functools.partial(torch.empty, dtype=torch.float32, device=u.device)
    grad_u, grad_delta = new(delta.shape), new(delta.shape)
    grad_B, grad_C = new((blocks, *B.shape)), new((blocks, *C.shape))
    grad_D, grad_bias = new((batch, directions, channels)), new((batch, directions, channels))
    carries, grad_A = (new((batch, directions, states, channels)).zero_() for _ in range(2))
    with _on_device_of(u):
        _kernels().walk_back[grid](
            grad_y, u, delta, _states_first(A, directions), B, C, D, delta_bias, starts, carries,
            grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_bias,
            grad_y.stride(), _strides(u, directions), delta.stride(), B.stride(), C.stride(),
            SOFTPLUS=delta_softplus, **options,
        )  # fmt: skip
    return [
        (grad_u if u.shape[3] == directions else grad_u.sum(3, keepdim=True)).to(u.dtype),
        grad_delta.to(delta.dtype),
        grad_A.sum(0).transpose(1, 2).reshape(A.shape).contiguous(),  # a view for one direction
        grad_B.sum(0).to(B.dtype),
        grad_C.sum(0).to(C.dtype),
        u.new_empty(0) if D is None else grad_D.sum(0).flatten(),
        u.new_empty(0) if delta_bias is None else grad_bias.sum(0).flatten(),
    ]


@scan_triton_backward.register_fake
def _(grad_y, u, delta, A, B, C, D, delta_bias, delta_softplus, turning, starts):  # type: ignore[no-untyped-def] # noqa: ARG001
    inputs = (u, delta, A, B, C, D, delta_bias)
    return [u.new_empty(0) if x is None else x.new_empty(x.shape) for x in inputs]


def _setup_context(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    *tensors, ctx.delta_softplus, ctx.turning, ctx.keep_starts = inputs
    ctx.save_for_backward(*tensors, output[1])


def _differentiate(ctx, grad_y, _grad_starts):  # type: ignore[no-untyped-def]
    if not ctx.keep_starts:
        raise RuntimeError("hmf::scan_triton_forward was called with keep_starts=False: it has no gradient")
    *tensors, starts = ctx.saved_tensors
    gradients = torch.ops.hmf.scan_triton_backward(grad_y, *tensors, ctx.delta_softplus, ctx.turning, starts)
    present = [None if x is None else gradient for x, gradient in zip(tensors, gradients, strict=True)]
    return (*present, None, None, None)


scan_triton_forward.register_autograd(_differentiate, setup_context=_setup_context)


def _outputs(delta: Tensor, A: Tensor, turning: bool, keep_starts: bool) -> tuple[Tensor, Tensor]:
    batch, _, _, directions, channels = delta.shape
    starts_shape = (batch, directions, _most_tiles(delta, turning), A.shape[1], channels)
    new = functools.partial(torch.empty, dtype=torch.float32, device=delta.device)
    return new(delta.shape), new(starts_shape if keep_starts else (0,))


def _most_tiles(delta: Tensor, turning: bool) -> int:
    """Of a walk along the rows or, where that takes more, along the columns; no tile crosses a line's end."""
    _, height, width, directions, _ = delta.shape
    along_rows, along_columns = height * _ceil(width, STEPS), width * _ceil(height, STEPS)
    return max(along_rows, along_columns) if turning and directions > 2 else along_rows


def _launch(delta: Tensor, states: int, turning: bool) -> tuple[tuple[int], dict[str, Any]]:
    """Grid, one warp for each batch entry, direction and block of channels, and what both kernels are told.

    Shapes alone decide how a warp is shared by states and channels, never a timing: results repeat.
    """
    batch, height, width, directions, channels = delta.shape
    is_wide = batch * directions * _ceil(channels, 32) >= WARPS_TO_FILL
    tile = WIDE if is_wide else NARROW
    state_lanes = min(tile["STATE_LANES"], 1 << (states - 1).bit_length())  # powers of two
    lanes = 32 // state_lanes
    options = {
        "sizes": (height, width, directions, channels, states, _most_tiles(delta, turning)),
        "TURNING": turning,
        "STEPS": STEPS,
        "ROWS": tile["ROWS"],
        "STATE_LANES": state_lanes,
        "LANES": lanes,
        "num_warps": 1,
        "enable_fp_fusion": True,  # off by default in newer Triton
    }
    return (batch * directions * _ceil(channels, tile["ROWS"] * lanes),), options


def _ceil(count: int, size: int) -> int:
    return (count + size - 1) // size


def _on_device_of(x: Tensor) -> AbstractContextManager[Any]:
    """Triton launches on the current device, whichever the tensors lie on."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


def _strides(x: Tensor, directions: int) -> tuple[int, ...]:
    """Of (B, H, W, K, d); what all directions share has no stride from one to the next."""
    strides = list(x.stride())
    if x.shape[3] == 1 and directions > 1:
        strides[3] = 0
    return tuple(strides)


def _states_first(A: Tensor, directions: int) -> Tensor:
    """(K*d, N) -> (K, N, d), times log2(e)."""
    return (A.reshape(directions, -1, A.shape[1]).transpose(1, 2) * LOG2_E).contiguous()
