"""Derivatives in forward mode (`torch.func.jvp`), which the scan's custom operators do not have."""

from collections.abc import Iterable

from torch import Tensor
from torch.autograd import forward_ad


def refuse_forward_mode(backend: str, tensors: Iterable[Tensor | None]) -> None:
    """Raise a NotImplementedError; torch would take the derivative for zero."""
    if forward_ad._current_level < 0:
        return
    if any(x is not None and forward_ad.unpack_dual(x).tangent is not None for x in tensors):  # type: ignore[no-untyped-call]
        raise NotImplementedError(f"backend {backend!r} has no forward-mode derivative; try 'chunked'")
