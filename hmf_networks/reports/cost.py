"""What a network costs: parameters, and multiply-accumulates counted by torch itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from hmf_networks.ops.selective_scan import BACKENDS
from hmf_networks.ops.selective_scan_2d import WITHOUT_COPIES
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@contextmanager
def scans_left_out() -> Iterator[None]:
    """Within it, networks hand the input of every scan on as its output: what they cost without."""
    skip = {"skipped": lambda u, *_: u}
    with (
        patch.dict(BACKENDS, skip),
        patch.dict(WITHOUT_COPIES, skip),
        patch.dict(os.environ, HMF_SCAN_BACKEND="skipped"),
    ):
        yield


def network_cost(network: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """{"parameters", "macs"} of a forward pass: convolutions and matrix products, no element-wise work.

    The scan itself is left out, so that the count is the same whatever backend a machine has.
    """
    counter: Any = FlopCounterMode(display=False)
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # attention in one call of torch's is no product to the counter
    try:
        with scans_left_out(), counter, torch.no_grad():
            network.eval()(torch.zeros(input_shape))
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "macs": counter.get_total_flops() // 2,
    }
