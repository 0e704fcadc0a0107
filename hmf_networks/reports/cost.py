"""What a network costs: parameters, and multiply-accumulates counted by torch itself."""

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def network_cost(network: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """{"parameters", "macs"} of a forward pass: convolutions and matrix products, no element-wise work."""
    counter: Any = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        network.eval()(torch.zeros(input_shape))
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "macs": counter.get_total_flops() // 2,
    }
