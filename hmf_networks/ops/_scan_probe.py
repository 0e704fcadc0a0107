"""Does a kernel of somebody's build run here, and give the right numbers? Asked before it is relied on."""

# flake8: noqa: N803, N806

from collections.abc import Callable

import torch
from hmf_networks.ops._scan_reference import scan_reference
from hmf_networks.ops.scan_order import maps_to_sequences, sequences_to_map
from torch import Tensor

TOLERANCE = 1e-3  # relative to the largest; a wrong kernel is off by more, TF32 by less


def smoke_test(scan: Callable[..., Tensor], scan_2d: Callable[..., Tensor] | None = None) -> str:
    """Value and gradients of small scans on CUDA, also of a map, against the loop: "", or what went wrong."""
    try:
        with torch.inference_mode(False), torch.enable_grad():  # wherever the first scan is asked for
            for kernel, definition, inputs in (
                (scan, scan_reference, _of_sequences()),
                (scan_2d or _scan_2d_reference, _scan_2d_reference, _of_maps()),
            ):
                for found, wanted in zip(_results(kernel, inputs), _results(definition, inputs), strict=True):
                    apart = (found - wanted).detach().abs().max() / wanted.detach().abs().max()
                    if not apart < TOLERANCE:
                        return f"it differs from the definition by {float(apart):.1e} of the largest number"
    except Exception as error:  # noqa: BLE001 -- a build for another torch or GPU may raise anything
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    return ""


def _results(scan: Callable[..., Tensor], inputs: dict[str, Tensor]) -> list[Tensor]:
    leaves = {name: x.cuda().requires_grad_() for name, x in inputs.items()}
    y = scan(**leaves, delta_softplus=True)
    return [y, *torch.autograd.grad(y.sin().sum(), list(leaves.values()))]


def _of_sequences() -> dict[str, Tensor]:
    shapes = {"u": (1, 16, 40), "delta": (1, 16, 40), "B": (1, 2, 4, 40), "C": (1, 2, 4, 40)}
    return _random(shapes, channels=16)


def _of_maps() -> dict[str, Tensor]:
    """In four directions, lines longer and shorter than a tile, with all that a scan of a map can have."""
    shapes = {"u": (1, 5, 9, 8), "delta": (1, 5, 9, 4, 8), "B": (1, 5, 9, 4, 4), "C": (1, 5, 9, 4, 4)}
    return _random({**shapes, "D": (32,), "delta_bias": (32,)}, channels=32)


def _random(shapes: dict[str, tuple[int, ...]], *, channels: int) -> dict[str, Tensor]:
    generator = torch.Generator("cpu").manual_seed(0)  # torch's own goes on as if nothing had been drawn
    A = -torch.rand(channels, 4, generator=generator, device="cpu")
    drawn = {name: torch.randn(shape, generator=generator, device="cpu") for name, shape in shapes.items()}
    return {"A": A, **drawn}


def _scan_2d_reference(
    u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, delta_bias: Tensor, delta_softplus: bool
) -> Tensor:
    """The loop over every direction's sequence."""
    _, height, width, directions, channels = delta.shape
    maps = u.unsqueeze(3).expand_as(delta)
    u_s, delta_s, B_s, C_s = (maps_to_sequences(x) for x in (maps, delta, B, C))
    y = scan_reference(u_s.flatten(1, 2), delta_s.flatten(1, 2), A, B_s, C_s, D, None, delta_bias, delta_softplus)
    return sequences_to_map(y.reshape(1, directions, channels, height * width), height, width)
