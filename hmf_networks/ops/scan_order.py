"""A map as sequences in up to four directions, and back. Paper section 3.2, "multiple directions".

Directions: 0 along the rows, 1 the same backwards, 2 along the columns, 3 the same backwards.
Shapes: B batch, H x W tokens, L = H*W, K directions, c channels.
"""

import torch
from torch import Tensor

DIRECTIONS = (1, 2, 4)


def maps_to_sequences(maps: Tensor) -> Tensor:
    """(B, H, W, K, c) -> (B, K, c, L): the k-th map is walked in direction k."""
    maps = maps.permute(0, 3, 4, 1, 2)  # B K c H W
    directions = maps.shape[1]
    sequences = [maps[:, 0].flatten(2)]
    if directions > 1:
        sequences.append(maps[:, 1].flatten(2).flip(-1))
    if directions > 2:
        columns = maps[:, 2:].transpose(3, 4).flatten(3)
        sequences += [columns[:, 0], columns[:, 1].flip(-1)]
    return torch.stack(sequences, dim=1)


def sequences_to_map(sequences: Tensor, height: int, width: int) -> Tensor:
    """(B, K, c, L) -> (B, H, W, c): every direction brought back to its place, then summed."""
    batch, directions, channels, _ = sequences.shape
    rows = sequences[:, 0]
    if directions > 1:
        rows = rows + sequences[:, 1].flip(-1)
    summed = rows.reshape(batch, channels, height, width)
    if directions > 2:
        columns = sequences[:, 2] + sequences[:, 3].flip(-1)
        summed = summed + columns.reshape(batch, channels, width, height).transpose(2, 3)
    return summed.permute(0, 2, 3, 1)
