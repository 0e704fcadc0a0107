"""Does a kernel of somebody's build run here, and give the right numbers? Asked before it is relied on."""

from collections.abc import Callable

import torch
from torch import Tensor

from hmf_networks.ops._scan_reference import scan_reference

TOLERANCE = 1e-3  # relative to the largest; a wrong kernel is off by more, TF32 by less


def smoke_test(scan: Callable[..., Tensor]) -> str:
    """Value and gradients of a small scan on CUDA against the loop: "", or what went wrong."""
    try:
        with torch.inference_mode(False), torch.enable_grad():  # wherever the first scan is asked for
            for found, wanted in zip(_results(scan), _results(scan_reference), strict=True):
                apart = (found - wanted).detach().abs().max() / wanted.detach().abs().max()
                if not apart < TOLERANCE:
                    return f"it differs from the definition by {float(apart):.1e} of the largest number"
    except Exception as error:  # noqa: BLE001 -- a build for another torch or GPU may raise anything
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    return ""


def _results(scan: Callable[..., Tensor]) -> list[Tensor]:
    generator = torch.Generator("cpu").manual_seed(0)  # torch's own goes on as if nothing had been drawn

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, device="cpu").cuda().requires_grad_()

    u, delta = random(1, 16, 40), random(1, 16, 40)
    A = (-torch.rand(16, 4, generator=generator, device="cpu")).cuda().requires_grad_()
    B, C = random(1, 2, 4, 40), random(1, 2, 4, 40)
    y = scan(u, delta, A, B, C, delta_softplus=True)
    return [y, *torch.autograd.grad(y.sin().sum(), (u, delta, A, B, C))]
