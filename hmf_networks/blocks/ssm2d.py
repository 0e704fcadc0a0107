"""S6 over a feature map: the SSM layer of the RHMB. Paper section 3.2, equations of h and y; Mamba, VMamba.

Shapes: B batch, K directions, d channels, H x W tokens, N states, R rank of the step size.
"""

# flake8: noqa: N806

import math

import torch
import torch.nn.functional as F
from hmf_networks.ops.scan_order import DIRECTIONS
from hmf_networks.ops.selective_scan_2d import selective_scan_2d
from torch import Tensor, nn

SHORTEST_STEP, LONGEST_STEP = 1e-3, 1e-1  # initial step sizes of Mamba


class SSM2d(nn.Module):
    """Walk the map in several directions, each with parameters of its own, in one grouped scan; sum them.

    Args:
        channels: d.
        state_size: N.
        step_rank: R, the width of the bottleneck that predicts the step sizes.
        directions: 1, 2 or 4, in the order of `ops/scan_order.py`.
    """

    def __init__(self, channels: int, *, state_size: int = 16, step_rank: int = 16, directions: int = 4) -> None:
        super().__init__()
        if directions not in DIRECTIONS:
            raise ValueError(f"directions must be one of {DIRECTIONS}, got {directions}")
        self.directions = directions
        self.sizes = [step_rank, state_size, state_size]
        bound = channels**-0.5
        self.project = nn.Parameter(torch.empty(directions, sum(self.sizes), channels).uniform_(-bound, bound))
        bound = step_rank**-0.5
        self.step_weight = nn.Parameter(torch.empty(directions, channels, step_rank).uniform_(-bound, bound))
        self.step_bias = nn.Parameter(initial_step_bias(directions * channels))
        states = torch.arange(1, state_size + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(states.log().repeat(directions * channels, 1))  # A = -(1 .. N)
        self.D = nn.Parameter(torch.ones(directions * channels))

    def forward(self, x: Tensor) -> Tensor:
        u = x.permute(0, 2, 3, 1)  # B H W d
        if u.dtype == torch.float16:  # the answer is of fourth order in u, and float16 ends at 65504
            u = u.float()
        projected = F.linear(u, self.project.flatten(0, 1)).reshape(u.shape[:3] + self.project.shape[:2])
        step, B, C = projected.split_with_sizes(self.sizes, -1)  # B H W K R, B H W K N, B H W K N
        delta = torch.einsum("bhwkr,kdr->bhwkd", step, self.step_weight)
        A = -torch.exp(self.A_log.float())
        y = selective_scan_2d(u, delta, A, B, C, self.D, self.step_bias, delta_softplus=True)
        return y.permute(0, 3, 1, 2)  # B d H W


def initial_step_bias(size: int) -> Tensor:
    """Inverse softplus of step sizes spread evenly in log between the shortest and the longest."""
    low, high = math.log(SHORTEST_STEP), math.log(LONGEST_STEP)
    step = torch.exp(torch.rand(size) * (high - low) + low)
    return step + torch.log(-torch.expm1(-step))
