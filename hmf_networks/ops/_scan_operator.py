"""The selective scan in an exported graph: one node that loops over any length, not a copy for every step.

`torch.export` sees torch's scan operator, ONNX its `Scan`. The steps are those of `_scan_reference.py`.
Shapes: L steps, B batch, G groups, N states, d channels of a group.
"""

# flake8: noqa: N803, N806

import torch
from hmf_networks.ops._scan_chunked import skip_and_gate, step_sizes
from torch import Tensor


def scan_operator(
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
    """Scan step by step; shapes as in `selective_scan`."""
    from torch._higher_order_ops import scan  # a prototype of torch's: only who exports depends on it

    dtype = torch.promote_types(u.dtype, torch.float32)
    wide_u, wide_delta = u.to(dtype), step_sizes(delta.to(dtype), delta_bias, delta_softplus)
    batch, channels, length = u.shape
    groups, num_states = B.shape[1], A.shape[1]
    by_group = (batch, groups, channels // groups, length)
    A_g = A.to(dtype).reshape(groups, channels // groups, num_states).transpose(1, 2).contiguous()  # G N d
    steps = [
        _steps_first(wide_delta.reshape(by_group)).unsqueeze(-2),  # L B G 1 d
        _steps_first((wide_delta * wide_u).reshape(by_group)).unsqueeze(-2),  # L B G 1 d
        _steps_first(B.to(dtype)).unsqueeze(-1),  # L B G N 1
        _steps_first(C.to(dtype)).unsqueeze(-2),  # L B G 1 N
    ]

    def step(carried: list[Tensor], at_t: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        state, A_t = carried
        delta_t, drive_t, B_t, C_t = at_t
        state = torch.exp(delta_t * A_t) * state + drive_t * B_t  # B G N d
        return [state, A_t.clone()], torch.matmul(C_t, state)  # B G 1 d

    # A is carried along: OpenVINO 2026.4 refuses a Scan whose body reads a tensor from outside.
    y = scan(step, [A_g.new_zeros((batch, *A_g.shape)), A_g], steps)[1]  # L B G 1 d
    y = y.flatten(2).permute(1, 2, 0)  # B G*d L
    return skip_and_gate(y, wide_u, D, z).to(u.dtype)


def _steps_first(x: Tensor) -> Tensor:
    return x.permute(3, 0, 1, 2).contiguous()
