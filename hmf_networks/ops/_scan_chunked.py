"""The selective scan in plain torch: any device, scriptable, exportable; the backend that is always there.

The sequence is cut into K chunks of T steps. All chunks walk their T steps side by side, first from an empty
state, which yields what each chunk adds; then the true start of every chunk is known and the walk is repeated
from there. Only decays in [0, 1] are ever multiplied, so nothing overflows however large delta is (the
popular quotient of cumulative sums does). Backward walks the same chunks in reverse and recomputes the
states, so that training keeps no tensor of size L x channels x N.

Shapes: T steps of a chunk, B batch, K chunks, G groups, N states, d channels of a group.
"""

# flake8: noqa: N803, N806

import torch
import torch.nn.functional as F
from torch import Tensor


def scan_chunked(
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
    """Scan chunk by chunk; shapes as in `selective_scan`."""
    dtype = torch.promote_types(u.dtype, torch.float32)
    wide_u = u.to(dtype)
    wide_delta = step_sizes(delta.to(dtype), delta_bias, delta_softplus)
    batch, channels, length = u.shape
    groups, num_states = B.shape[1], A.shape[1]
    steps = max(1, int(length**0.5))
    chunks = (length + steps - 1) // steps
    padding = chunks * steps - length  # delta = 0 neither decays nor drives the state
    within = (batch, groups, channels // groups, chunks, steps)
    d_first = (4, 0, 3, 1, 2)
    delta_t = F.pad(wide_delta, (0, padding)).reshape(within).permute(d_first).contiguous()  # T B K G d
    drive_t = F.pad(wide_delta * wide_u, (0, padding)).reshape(within).permute(d_first).contiguous()  # T B K G d
    over_states = (batch, groups, num_states, chunks, steps)
    B_t = F.pad(B.to(dtype), (0, padding)).reshape(over_states).permute(d_first).contiguous()  # T B K G N
    C_t = F.pad(C.to(dtype), (0, padding)).reshape(over_states).permute(d_first).contiguous()  # T B K G N
    A_g = A.to(dtype).reshape(groups, channels // groups, num_states).transpose(1, 2).contiguous()  # G N d

    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        y_t = _walk(delta_t, drive_t, A_g, B_t, C_t)[0]
    else:
        y_t = _with_gradient(delta_t, drive_t, A_g, B_t, C_t)
    y = y_t.permute(1, 3, 4, 2, 0).reshape(batch, channels, chunks * steps)[..., :length]
    return skip_and_gate(y, wide_u, D, z).to(u.dtype)


def step_sizes(delta: Tensor, bias: Tensor | None, softplus: bool) -> Tensor:
    """delta, or softplus(delta + bias), in the type of delta."""
    if bias is not None:
        delta = delta + bias.to(delta.dtype).unsqueeze(-1)
    return F.softplus(delta) if softplus else delta


def skip_and_gate(y: Tensor, u: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    """(y + D u) silu(z), in the type of y."""
    if D is not None:
        y = y + D.to(y.dtype).unsqueeze(-1) * u
    return y if z is None else y * F.silu(z.to(y.dtype))


def _walk(delta: Tensor, drive: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (T, B, K, G, d) and the state at the start of every chunk (B, K, G, N, d)."""
    starts = _chunk_starts(delta, drive, A, B)
    state = starts
    outputs: list[Tensor] = []
    for t in range(delta.shape[0]):
        state = _step(state, delta[t], drive[t], A, B[t])
        outputs.append(torch.matmul(C[t].unsqueeze(-2), state).squeeze(-2))  # B K G d
    return torch.stack(outputs), starts


def _step(state: Tensor, delta: Tensor, drive: Tensor, A: Tensor, B: Tensor) -> Tensor:
    return torch.addcmul(drive.unsqueeze(-2) * B.unsqueeze(-1), torch.exp(delta.unsqueeze(-2) * A), state)


def _chunk_starts(delta: Tensor, drive: Tensor, A: Tensor, B: Tensor) -> Tensor:
    added = drive[0].unsqueeze(-2) * B[0].unsqueeze(-1)  # what a chunk that starts empty ends with
    for t in range(1, delta.shape[0]):
        added = _step(added, delta[t], drive[t], A, B[t])
    kept = torch.exp(delta.sum(0).unsqueeze(-2) * A)  # the share of its start that is left at its end
    start = torch.zeros_like(added[:, 0])
    starts: list[Tensor] = []
    for k in range(added.shape[1]):
        starts.append(start)
        start = torch.addcmul(added[:, k], kept[:, k], start)
    return torch.stack(starts, dim=1)


@torch.jit.unused
def _with_gradient(delta: Tensor, drive: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    needs_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in (delta, drive, A, B, C))
    exporting = torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined,no-untyped-call]
    if needs_gradient and not exporting:
        return _Walk.apply(delta, drive, A, B, C)  # type: ignore[no-untyped-call]
    return _walk(delta, drive, A, B, C)[0]


@torch.jit.unused
def without_autocast(device_type: str) -> torch.autocast:
    """Half precision would lose the small steps of the state; a "meta" device has no autocast of its own."""
    known = device_type if torch.amp.is_autocast_available(device_type) else "cpu"
    return torch.autocast(known, enabled=False)


class _Walk(torch.autograd.Function):
    @staticmethod
    def forward(ctx, delta: Tensor, drive: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        y, starts = _walk(delta, drive, A, B, C)
        ctx.save_for_backward(delta, drive, A, B, C, starts)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_y: Tensor) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
        with without_autocast(grad_y.device.type):
            return _walk_back(grad_y.contiguous(), *ctx.saved_tensors)


def _walk_back(
    grad_y: Tensor, delta: Tensor, drive: Tensor, A: Tensor, B: Tensor, C: Tensor, starts: Tensor
) -> tuple[Tensor, ...]:
    """Gradients of delta, drive, A, B and C: the states are recomputed, then the chunks walked in reverse."""
    steps = delta.shape[0]
    decays = [torch.exp(delta[t].unsqueeze(-2) * A) for t in range(steps)]  # T x (B K G N d)
    states = [starts]
    for t in range(steps):
        states.append(torch.addcmul(drive[t].unsqueeze(-2) * B[t].unsqueeze(-1), decays[t], states[-1]))

    carry = _chunk_ends(delta, grad_y, A, C, decays)  # gradient of the state that a chunk hands on
    grad_delta, grad_drive = torch.empty_like(delta), torch.empty_like(drive)
    grad_A, grad_B, grad_C = torch.zeros_like(A), torch.empty_like(B), torch.empty_like(C)
    for t in reversed(range(steps)):
        carry = torch.addcmul(carry, C[t].unsqueeze(-1), grad_y[t].unsqueeze(-2))  # now of the state at t
        grad_C[t] = torch.matmul(states[t + 1], grad_y[t].unsqueeze(-1)).squeeze(-1)
        grad_B[t] = torch.matmul(carry, drive[t].unsqueeze(-1)).squeeze(-1)
        grad_drive[t] = torch.matmul(B[t].unsqueeze(-2), carry).squeeze(-2)
        carry = carry.mul_(decays[t])
        grad_exponent = carry * states[t]
        grad_delta[t] = (grad_exponent * A).sum(-2)
        grad_A += (grad_exponent * delta[t].unsqueeze(-2)).sum((0, 1))
    return grad_delta, grad_drive, grad_A, grad_B, grad_C


def _chunk_ends(delta: Tensor, grad_y: Tensor, A: Tensor, C: Tensor, decays: list[Tensor]) -> Tensor:
    """Gradient that reaches the end of every chunk from the chunks after it: `_chunk_starts` in reverse."""
    added = torch.zeros_like(decays[0])
    for t in reversed(range(len(decays))):
        added = torch.addcmul(added, C[t].unsqueeze(-1), grad_y[t].unsqueeze(-2)).mul_(decays[t])
    kept = torch.exp(delta.sum(0).unsqueeze(-2) * A)
    end = torch.zeros_like(added[:, 0])
    ends: list[Tensor] = []
    for k in reversed(range(added.shape[1])):
        ends.append(end)
        end = torch.addcmul(added[:, k], kept[:, k], end)
    return torch.stack(ends[::-1], dim=1)
