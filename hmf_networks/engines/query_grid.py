"""Random grids to ask the implicit decoder at while it learns; without them it only ever sees a few phases.

docs/decisions.md#query-grids.
"""

import torch
from torch import Tensor

LARGEST_ZOOM = 2.0  # the grid is up to this much finer or coarser than the input's pixels


def random_query_grid(height: int, width: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Rows and columns, in input pixels, of a grid with a random step and a random sub-pixel shift.

    The step is the same along both axes, between 1/2 and 2 pixels, evenly in log. The grid lies inside the
    plane, has at most as many points as it, and draws from torch's own generator (one state to save and
    restore).
    """
    step = LARGEST_ZOOM ** (2 * torch.rand(()).item() - 1)
    return _axis(height, step, device), _axis(width, step, device)


def _axis(size: int, step: float, device: torch.device | None) -> Tensor:
    count = min(size, int((size - 1) / step) + 1)
    slack = size - 1 - step * (count - 1)
    return torch.rand(()).item() * slack + step * torch.arange(count, device=device, dtype=torch.float32)
