"""Coordinates of the implicit representation: pixel centres, periodic encoding, four nearest features.

One frame for all: a position is measured in pixels of the input plane, the centre of pixel (0, 0) is (0, 0),
so an H x W plane reaches from -0.5 to H - 0.5. Query grids are separable: a vector of rows, one of columns.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


def pixel_centres(length: int, size: int, device: torch.device | None = None) -> Tensor:
    """Centres of `size` equal pixels that cover an axis of `length` input pixels; shape (size,)."""
    return (torch.arange(size, device=device, dtype=torch.float32) + 0.5) * (length / size) - 0.5


def periodic_encoding(offset: Tensor, num_frequencies: int) -> Tensor:
    """phi(x) = (x, sin 2^0 pi x, ..., sin 2^(L-1) pi x, cos 2^0 pi x, ..., cos 2^(L-1) pi x), section 3.5.

    Args:
        offset: signed distances in [-1, 1], (...).
        num_frequencies: L.

    Returns:
        (..., 1 + 2L).
    """
    frequencies = math.pi * 2.0 ** torch.arange(num_frequencies, device=offset.device, dtype=torch.float32)
    angle = offset.unsqueeze(-1) * frequencies
    return torch.cat([offset.unsqueeze(-1), torch.sin(angle), torch.cos(angle)], dim=-1)


def two_nearest(positions: Tensor, stride: int, num_cells: int) -> tuple[Tensor, Tensor, Tensor]:
    """The feature cells below and above every position on one axis.

    Cell j of a feature map of `stride` has its centre at stride * j + (stride - 1) / 2 input pixels. Beyond
    the border the outermost cell is repeated on virtual cells: all border phases look like those inside.

    Returns:
        indices (2, Q), signed offsets from the cells in cell units (2, Q), weights (2, Q) that sum to one:
        the length of the interval to the opposite cell.
    """
    position = _in_cells(positions, stride)
    below = torch.floor(position)
    offsets = torch.stack([position - below, position - below - 1])
    indices = torch.stack([below, below + 1]).clamp(0, num_cells - 1).long()
    weights = torch.stack([-offsets[1], offsets[0]])  # sizes, with a slope at zero too
    return indices, offsets, weights


def _in_cells(positions: Tensor, stride: int) -> Tensor:
    return (positions - (stride - 1) / 2) / stride


class PhaseTable(NamedTuple):
    """Positions on one axis that repeat from cell to cell: P phases, each at its own place in the cell."""

    cells: Tensor  # (h,) the cells that are needed, in a row, the border repeated
    starts: list[int]  # (P,) which of them is below the first position of every phase
    offsets: Tensor  # (2, P) as of `two_nearest`
    weights: Tensor  # (2, P)


@torch.jit.unused
def phase_table(positions: Tensor, stride: int, num_cells: int) -> PhaseTable | None:
    """None where positions do not rise, or do not repeat: every P-th must lie exactly one cell further."""
    if len(positions) < 2:
        return None
    step = float(positions[1] - positions[0])
    count = round(stride / step) if step > 0 else 0
    if not 0 < count < len(positions) or not bool((positions.diff() > 0).all()):
        return None
    if bool((positions[count:] - positions[:-count] != stride).any()):
        return None
    below = torch.floor(_in_cells(positions, stride)).long()
    first, last = int(below[0]), int(below[-1]) + 1
    cells = torch.arange(first, last + 1).clamp(0, num_cells - 1)
    _, offsets, weights = two_nearest(positions[:count], stride, num_cells)
    return PhaseTable(cells, (below[:count] - first).tolist(), offsets, weights)


def sample_plane(plane: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Linear interpolation of (B, C, H, W) at rows x columns (pixels, border repeated): (B, C, R, Q)."""
    row_index, _, row_weight = two_nearest(rows, 1, plane.shape[2])
    column_index, _, column_weight = two_nearest(columns, 1, plane.shape[3])
    row_weight, column_weight = row_weight.to(plane.dtype), column_weight.to(plane.dtype)
    lines = torch.zeros_like(plane[:, :, :1]).expand(-1, -1, rows.shape[0], -1)
    for side in range(2):
        lines = lines + row_weight[side].unsqueeze(-1) * plane.index_select(2, row_index[side])
    sampled = torch.zeros_like(lines[..., :1]).expand(-1, -1, -1, columns.shape[0])
    for side in range(2):
        sampled = sampled + column_weight[side] * lines.index_select(3, column_index[side])
    return sampled
