"""What a network costs: parameters, and multiply-accumulates counted by torch itself."""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from hmf_networks.ops.selective_scan import BACKENDS
from hmf_networks.ops.selective_scan_2d import WITHOUT_COPIES
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

MACS_A_STATE = 3  # h = a h + b u, y += c h


@contextmanager
def scans_left_out(counted: list[int] | None = None) -> Iterator[None]:
    """Within it, networks hand the input of every scan on as its output: what they cost without.

    The multiply-accumulates of each are appended to `counted`.
    """

    def skipped(u: Tensor, _delta: Tensor, A: Tensor, *_: Any, channel_axis: int = 1) -> Tensor:  # noqa: N803
        if counted is not None:
            counted.append(MACS_A_STATE * u.numel() // u.shape[channel_axis] * A.numel())
        return u

    skip = {"skipped": skipped}
    with (
        patch.dict(BACKENDS, skip),
        patch.dict(WITHOUT_COPIES, {"skipped": functools.partial(skipped, channel_axis=-1)}),
        patch.dict(os.environ, HMF_SCAN_BACKEND="skipped"),
    ):
        yield


def network_cost(network: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """{"parameters", "macs", "scan_macs"} of a forward pass: convolutions and matrix products, no element-wise work.

    The scans' recurrence is counted by itself, three multiply-accumulates a token, channel and state (two for
    the state, one for the output), so that it is the same whatever backend a machine has.
    """
    counter: Any = FlopCounterMode(display=False)
    scans: list[int] = []
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # attention in one call is no product to the counter
    try:
        with scans_left_out(scans), sdpa_kernel(SDPBackend.MATH), counter, torch.no_grad():
            network.eval()(torch.zeros(input_shape))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return {"parameters": num_parameters(network), "macs": counter.get_total_flops() // 2, "scan_macs": sum(scans)}


def live_parameters(network: nn.Module, input_shape: tuple[int, ...]) -> int:
    """How many of them an image depends on, told by a gradient; a small plane will do. No gradient stays."""
    network.train()
    network(torch.rand(input_shape)).sum().backward()
    live = sum(parameter.numel() for parameter in network.parameters() if parameter.grad is not None)
    network.zero_grad(set_to_none=True)
    return live


def num_parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())
