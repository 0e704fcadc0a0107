"""The selective scan over a map in several directions at once. Paper section 3.2; VMamba's cross-scan.

Kernels that find their way over the map by themselves copy nothing; for the others the map is written out as
sequences, one for each direction, which are groups of one scan.
"""

# flake8: noqa: N803, N806

from collections.abc import Callable

import torch
from hmf_networks.ops._scan_chunked import without_autocast
from hmf_networks.ops._scan_native import scan_2d_native
from hmf_networks.ops._scan_triton import scan_2d_triton
from hmf_networks.ops.scan_order import DIRECTIONS, maps_to_sequences, sequences_to_map
from hmf_networks.ops.selective_scan import check_each, resolve_backend, selective_scan
from torch import Tensor

WITHOUT_COPIES: dict[str, Callable[..., Tensor]] = {"native": scan_2d_native, "triton": scan_2d_triton}


def selective_scan_2d(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Walk a map in K directions (`scan_order.py`), each with parameters of its own, and sum the results.

    Args:
        u: input, (B, H, W, d), the same for all directions.
        delta: step sizes, (B, H, W, K, d).
        A: state matrix (diagonal, negative), (K*d, N).
        B: input matrix of every token and direction, (B, H, W, K, N).
        C: output matrix, (B, H, W, K, N).
        D: skip weight, (K*d,).
        delta_bias: added to delta, (K*d,).
        delta_softplus: softplus(delta + bias) is the step size.
        backend: as for `selective_scan`.

    Returns:
        (B, H, W, d) in the type of u; states and sums are float32 whatever comes in.

    Raises:
        ValueError: shapes that do not belong together, or an unknown backend.
    """
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return _by_sequences(u, delta, A, B, C, D, delta_bias, delta_softplus, "auto")
    return _dispatch(u, delta, A, B, C, D, delta_bias, delta_softplus, backend)


@torch.jit.unused
def _dispatch(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    backend: str,
) -> Tensor:
    if not torch.jit.is_tracing():  # type: ignore[attr-defined,no-untyped-call]
        _check_shapes(u, delta, A, B, C, D, delta_bias)
    name = resolve_backend(u, A.shape[1], backend)
    if name not in WITHOUT_COPIES:
        return _by_sequences(u, delta, A, B, C, D, delta_bias, delta_softplus, name)
    with without_autocast(u.device.type):
        return WITHOUT_COPIES[name](u, delta, A, B, C, D, delta_bias, delta_softplus)


def _check_shapes(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, delta_bias: Tensor | None
) -> None:
    """Kernels read what they are told is there."""
    if delta.dim() != 5 or tuple(delta.shape) != (*u.shape[:3], delta.shape[3], u.shape[-1]) or A.dim() != 2:
        raise ValueError(
            f"u must be (B, H, W, d), delta (B, H, W, K, d) and A (K*d, N); "
            f"got {tuple(u.shape)}, {tuple(delta.shape)} and {tuple(A.shape)}"
        )
    directions, channels = delta.shape[3:]
    if directions not in DIRECTIONS:
        raise ValueError(f"a map is walked in K of {DIRECTIONS} directions; got delta {tuple(delta.shape)}")
    of_tokens = (*u.shape[:3], directions, A.shape[1])
    wanted = {
        "A": (A, (directions * channels, A.shape[1])),
        "B": (B, of_tokens),
        "C": (C, of_tokens),
        "D": (D, (directions * channels,)),
        "delta_bias": (delta_bias, (directions * channels,)),
    }
    check_each(wanted, f"delta {tuple(delta.shape)}")


def _by_sequences(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    backend: str,
) -> Tensor:
    batch, height, width, directions, channels = delta.shape
    sizes = [channels, channels, B.shape[-1], C.shape[-1]]
    wide_u = u.to(torch.promote_types(u.dtype, torch.float32))  # so that sums over directions are float32 too
    maps = torch.cat([wide_u.unsqueeze(3).expand_as(delta), delta, B, C], dim=-1)  # once: a smaller graph
    u_s, delta_s, B_s, C_s = maps_to_sequences(maps).split_with_sizes(sizes, dim=2)  # B K d L, .., B K N L
    y = selective_scan(
        u_s.flatten(1, 2), delta_s.flatten(1, 2), A, B_s, C_s, D, None, delta_bias, delta_softplus, backend
    )
    return sequences_to_map(y.reshape(batch, directions, channels, height * width), height, width).to(u.dtype)
