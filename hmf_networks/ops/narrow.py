"""Operations on feature maps that autocast would widen to float32 without need, and copy the map for it.

They choose, interpolate or average values and do so as well in bfloat16; averages are summed in float32.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def reflect_pad(x: Tensor, by: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H + 2 by, W + 2 by), mirrored at the outermost pixels."""
    padding = [by, by, by, by]
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return F.pad(x, padding, mode="reflect")
    with _as_it_is(x):
        return F.pad(x, padding, mode="reflect")


def resize_like(x: Tensor, other: Tensor) -> Tensor:
    """Bilinear, to the height and width of `other`."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return F.interpolate(x, size=other.shape[2:], mode="bilinear", align_corners=False)
    with _as_it_is(x):
        return F.interpolate(x, size=other.shape[2:], mode="bilinear", align_corners=False)


def spatial_mean(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, 1, 1)."""
    if torch.jit.is_scripting() or not _is_narrow_on_cpu(x):  # type: ignore[attr-defined]
        return x.mean((2, 3), keepdim=True)
    with _as_it_is(x):  # on CPUs the mean of a bfloat16 map copies it to float32
        return F.avg_pool2d(x, x.shape[2:])


def linear_relu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """relu(x weight' + bias); in one pass where oneDNN has it for bfloat16, which makes zeros of NaN."""
    if torch.jit.is_scripting() or not _is_fused(x):  # type: ignore[attr-defined]
        return F.relu_(F.linear(x, weight, bias))
    fused = torch.ops.mkldnn._linear_pointwise
    return fused(x, weight.to(x.dtype), bias.to(x.dtype), "relu", [], "")


@torch.jit.unused
def _is_fused(x: Tensor) -> bool:
    return _is_narrow_on_cpu(x) and not torch.is_grad_enabled() and _onednn_has_bfloat16()


@torch.jit.unused
def _onednn_has_bfloat16() -> bool:
    """It is a part of most builds of torch, and has bfloat16 on CPUs from AVX-512 on."""
    onednn: Any = torch.backends.mkldnn
    names = ("_linear_pointwise", "_is_mkldnn_bf16_supported")
    there = onednn.is_available() and all(hasattr(torch.ops.mkldnn, name) for name in names)
    return bool(there and onednn.enabled and torch.ops.mkldnn._is_mkldnn_bf16_supported())


@torch.jit.unused
def _is_narrow_on_cpu(x: Tensor) -> bool:
    return x.device.type == "cpu" and x.dtype == torch.bfloat16


@torch.jit.unused
def _as_it_is(x: Tensor) -> torch.autocast:
    kind = x.device.type
    on = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
    narrow = x.dtype in (torch.bfloat16, torch.float16)
    return torch.autocast(kind if on and narrow else "cpu", enabled=False)
