"""Implicit neural representation block (INRB): a feature map becomes a continuous image. Paper section 3.5, figure 4.

I(x) = sum over the four nearest cells t of (S_t / S) MLP([z_t ; phi(x - x_t)]), S_t the opposite rectangle.

Shapes: B batch, C channels, h x w cells at `stride` input pixels, R x Q query rows and columns.
"""

import torch
from torch import Tensor, nn

from hmf_networks.ops.coordinates import periodic_encoding, two_nearest

NUM_FREQUENCIES = 10  # L of section 3.5; our reading, docs/decisions.md#frequencies


class INRB(nn.Module):
    """Four neighbours, periodic encoding, one shared MLP, area weights, tanh.

    Args:
        in_channels: C.
        out_channels: channels of the image.
        stride: input pixels a cell of the feature map is wide.
        hidden_channels: width of the MLP.
        num_hidden: hidden layers of the MLP.
        num_frequencies: L.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 2,
        hidden_channels: int = 64,
        num_hidden: int = 3,
        num_frequencies: int = NUM_FREQUENCIES,
    ) -> None:
        super().__init__()
        self.stride = stride
        self.num_frequencies = num_frequencies
        layers: list[nn.Module] = []
        channels = in_channels + 2 * (1 + 2 * num_frequencies)
        for _ in range(num_hidden):
            layers += [nn.Conv2d(channels, hidden_channels, 1), nn.ReLU()]  # 1x1: the MLP of every query
            channels = hidden_channels
        self.mlp = nn.Sequential(*layers, nn.Conv2d(channels, out_channels, 1))

    def forward(self, features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Decode at rows x columns, positions in input pixels (`ops/coordinates.py`): (B, out_channels, R, Q)."""
        row_cells, row_offsets, row_areas = two_nearest(rows, self.stride, features.shape[2])
        column_cells, column_offsets, column_areas = two_nearest(columns, self.stride, features.shape[3])
        predictions: list[Tensor] = []
        for r in range(2):
            nearest_rows = features.index_select(2, row_cells[r])
            for q in range(2):
                nearest = nearest_rows.index_select(3, column_cells[q])               # B C R Q
                encoding = self._encode(row_offsets[r], column_offsets[q]).to(features.dtype)
                encoding = encoding.expand(features.shape[0], -1, -1, -1)             # B 4L+2 R Q
                area = (row_areas[r].unsqueeze(-1) * column_areas[q]).to(features.dtype)
                predictions.append(area * self.mlp(torch.cat([nearest, encoding], dim=1)))
        return torch.tanh(torch.stack(predictions).sum(dim=0))

    def _encode(self, row_offset: Tensor, column_offset: Tensor) -> Tensor:
        size = (-1, row_offset.shape[0], column_offset.shape[0])
        along_rows = periodic_encoding(row_offset, self.num_frequencies).unsqueeze(-1).expand(size)
        along_columns = periodic_encoding(column_offset, self.num_frequencies).unsqueeze(1).expand(size)
        return torch.cat([along_rows, along_columns]).unsqueeze(0)  # 1 4L+2 R Q
