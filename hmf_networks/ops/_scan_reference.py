"""The loop that defines the selective scan. Every other backend is proved equal to it.

h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t,   y_t = C_t h_t + D u_t,   y_t <- y_t silu(z_t).
Source: section 3.2 of the paper; the discretisation is that of Gu & Dao, "Mamba" (2023), equation 2.
"""

# flake8: noqa: N803, N806

import torch
import torch.nn.functional as F
from torch import Tensor


def scan_reference(
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
    dtype = torch.promote_types(u.dtype, torch.float32)
    u_in, u, delta, A = u, u.to(dtype), delta.to(dtype), A.to(dtype)
    repeats = u.shape[1] // B.shape[1]
    B = B.to(dtype).repeat_interleave(repeats, dim=1)  # B G*d N L
    C = C.to(dtype).repeat_interleave(repeats, dim=1)  # B G*d N L
    if delta_bias is not None:
        delta = delta + delta_bias.to(dtype)[:, None]
    if delta_softplus:
        delta = F.softplus(delta)
    state = torch.zeros_like(A).expand(u.shape[0], -1, -1)  # B G*d N
    outputs = []
    for u_t, delta_t, B_t, C_t in zip(u.unbind(-1), delta.unbind(-1), B.unbind(-1), C.unbind(-1), strict=True):
        state = torch.exp(delta_t[..., None] * A) * state + (delta_t * u_t)[..., None] * B_t
        outputs.append((state * C_t).sum(-1))
    y = torch.stack(outputs, dim=-1)
    if D is not None:
        y = y + D.to(dtype)[:, None] * u
    if z is not None:
        y = y * F.silu(z.to(dtype))
    return y.to(u_in.dtype)
