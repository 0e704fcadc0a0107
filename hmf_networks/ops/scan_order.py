"""A feature map as sequences in up to four directions, and back. Paper section 3.2, "multiple directions".

Directions: 0 along the rows, 1 the same backwards, 2 along the columns, 3 the same backwards.
Shapes: B batch, K directions, d channels, H x W tokens, L = H*W.
"""

import torch
from torch import Tensor

DIRECTIONS = (1, 2, 4)


def image_to_sequences(image: Tensor, directions: int) -> Tensor:
    """(B, d, H, W) -> (B, K, d, L)."""
    rows = image.flatten(2)
    if directions == 1:
        return rows.unsqueeze(1)
    if directions == 2:
        return torch.stack([rows, rows.flip(-1)], dim=1)
    columns = image.transpose(2, 3).flatten(2)
    return torch.stack([rows, rows.flip(-1), columns, columns.flip(-1)], dim=1)


def sequences_to_image(sequences: Tensor, height: int, width: int) -> Tensor:
    """(B, K, d, L) -> (B, d, H, W): every direction brought back to its place, then summed."""
    batch, directions, channels, _ = sequences.shape
    rows = sequences[:, 0]
    if directions > 1:
        rows = rows + sequences[:, 1].flip(-1)
    image = rows.reshape(batch, channels, height, width)
    if directions > 2:
        columns = sequences[:, 2] + sequences[:, 3].flip(-1)
        image = image + columns.reshape(batch, channels, width, height).transpose(2, 3)
    return image
