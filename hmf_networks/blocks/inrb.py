"""Implicit neural representation block (INRB): features to a continuous image. Paper section 3.5, figure 4.

I(x) = sum over the four nearest cells t of (S_t / S) MLP([z_t ; phi(x - x_t)]), S_t the opposite rectangle.

Shapes: B batch, C channels, E hidden channels, h x w cells of `stride` input pixels, R x Q queried points.
"""

import torch
import torch.nn.functional as F
from hmf_networks.ops.coordinates import PhaseTable, periodic_encoding, phase_table, two_nearest
from hmf_networks.ops.narrow import linear_relu
from torch import Tensor, nn

QUERIES_AT_ONCE = 2**13  # points of one image decoded together: 2 MB a layer at 64 channels, so it stays in cache
MAX_PHASES = 64  # pixels of the image in a cell of the map; beyond, codes are no small table
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
        # First layer of the MLP, split by what it reads: features are embedded once and not per query;
        # its output layer is linear and therefore waits until after the weighted mean.
        self.embed_features = nn.Linear(in_channels, hidden_channels)
        self.embed_row = nn.Linear(1 + 2 * num_frequencies, hidden_channels, bias=False)
        self.embed_column = nn.Linear(1 + 2 * num_frequencies, hidden_channels, bias=False)
        hidden: list[nn.Module] = [nn.ReLU(inplace=True)]
        for _ in range(num_hidden - 1):
            hidden += [nn.Linear(hidden_channels, hidden_channels), nn.ReLU(inplace=True)]
        self.hidden = nn.Sequential(*hidden)
        self.output = nn.Linear(hidden_channels, out_channels)
        for layer in (self.embed_features, *self.hidden):
            if isinstance(layer, nn.Linear):  # torch's own default lets the signal fade before it is an image
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Decode at rows x columns, in input pixels (`ops/coordinates.py`): (B, out_channels, R, Q)."""
        embedded = self.embed_features(features.permute(0, 2, 3, 1))  # B h w E
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            tables = _phase_tables(embedded, rows, columns, self.stride)
            if tables is not None:
                return self._decode_phases(embedded, *tables, len(rows), len(columns))
        blocks = [self._decode(embedded, block, columns) for block in self._row_blocks(rows, columns)]
        return torch.cat(blocks, dim=2)  # B out R Q

    def _decode(self, embedded: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        row_cells, row_offsets, row_areas = two_nearest(rows, self.stride, embedded.shape[1])
        column_cells, column_offsets, column_areas = two_nearest(columns, self.stride, embedded.shape[2])
        row_codes = self.embed_row(self._encode(row_offsets))  # 2 R E
        column_codes = self.embed_column(self._encode(column_offsets))  # 2 Q E
        mean = embedded.new_zeros(1)
        for r in range(2):
            if self._weightless(row_areas[r]):
                continue
            nearest_rows = embedded.index_select(1, row_cells[r])  # B R w E
            for q in range(2):
                if self._weightless(column_areas[q]):
                    continue
                nearest = nearest_rows.index_select(2, column_cells[q])  # B R Q E
                codes = row_codes[r].unsqueeze(1) + column_codes[q]  # R Q E
                area = (row_areas[r].unsqueeze(-1) * column_areas[q]).unsqueeze(-1)  # R Q 1
                mean = mean + area.to(embedded.dtype) * self.hidden(nearest + codes.to(embedded.dtype))
        return self._image(self.output(mean))

    def _image(self, decoded: Tensor) -> Tensor:
        """(B, R, Q, out) -> (B, out, R, Q) in [-1, 1], in the type of the weights, whichever the sums had."""
        return torch.tanh(decoded).permute(0, 3, 1, 2).to(self.output.weight.dtype)

    @torch.jit.unused
    def _decode_phases(
        self, embedded: Tensor, rows: PhaseTable, columns: PhaseTable, num_rows: int, num_columns: int
    ) -> Tensor:
        """The same where positions repeat from cell to cell, P phases of rows and P' of columns.

        Codes are a table then, and what is near is found by slicing. The MLP answers once for every cell,
        phase and neighbour, through its last layer, which is narrow; a query is the weighted sum of four.
        """
        cells = embedded.index_select(1, rows.cells).index_select(2, columns.cells)  # B h w E
        row_codes = self.embed_row(self._encode(rows.offsets))[:, None, :, None]
        column_codes = self.embed_column(self._encode(columns.offsets))[None, :, None]
        codes = (row_codes + column_codes).to(cells.dtype)  # 2 2 P P' E
        answers = self._answers(cells, codes)  # B h w 2 2 P P' out
        decoded = answers.new_empty(len(cells), num_rows, num_columns, answers.shape[-1])
        for i, row in enumerate(rows.starts):
            for j, column in enumerate(columns.starts):
                queries = decoded[:, i :: len(rows.starts), j :: len(columns.starts)]
                height, width = queries.shape[1:3]
                corners = [
                    answers[:, row + r : row + r + height, column + q : column + q + width, r, q, i, j]
                    * (rows.weights[r, i] * columns.weights[q, j])
                    for r in range(2)
                    for q in range(2)
                ]
                queries.copy_(corners[0] + corners[1] + corners[2] + corners[3])
        return self._image(decoded + self.output.bias)

    def _answers(self, cells: Tensor, codes: Tensor) -> Tensor:
        """(B, h, w, E) cells with (..., E) codes through the MLP but its last bias: (B, h, w, ..., out)."""
        table = codes.flatten(0, -2)
        size = max(1, QUERIES_AT_ONCE // (cells.shape[2] * len(table)))
        blocks = [cells] if torch.is_grad_enabled() else cells.split(size, dim=1)  # type: ignore[no-untyped-call]
        layers = [layer for layer in self.hidden.children() if isinstance(layer, nn.Linear)]
        answers = []
        for block in blocks:
            hidden = F.relu_(block.unsqueeze(3) + table)
            for layer in layers:
                hidden = linear_relu(hidden, layer.weight, layer.bias)
            answers.append(F.linear(hidden, self.output.weight))
        answer = torch.cat(answers, dim=1).to(torch.promote_types(cells.dtype, torch.float32))
        answer = answer.reshape(cells.shape[:3] + codes.shape[:-1] + answer.shape[-1:])
        # A fused ReLU makes zeros of what is no number; it is not to be hidden.
        no_number = 0 * cells.sum(-1)[(..., *[None] * (codes.dim() - 1))] + 0 * codes.sum(-1)
        for layer in layers:
            no_number = no_number + 0 * (layer.weight.sum() + layer.bias.sum())
        return answer + no_number.unsqueeze(-1)

    def _row_blocks(self, rows: Tensor, columns: Tensor) -> list[Tensor]:
        """All rows where a graph is recorded; else so few that what lies between layers stays in cache."""
        if torch.is_grad_enabled() or torch.jit.is_scripting() or _is_recorded():  # type: ignore[attr-defined]
            return [rows]
        size = max(1, QUERIES_AT_ONCE // columns.shape[0])
        return list(rows.split(size))  # type: ignore[no-untyped-call]

    def _encode(self, offsets: Tensor) -> Tensor:
        return periodic_encoding(offsets, self.num_frequencies).to(self.embed_row.weight.dtype)

    def _weightless(self, areas: Tensor) -> bool:
        """No query leans on these cells: at stride 1 and the own pixel centres, three neighbours of four."""
        return False if torch.jit.is_scripting() else _all_zero(areas)  # type: ignore[attr-defined]


@torch.jit.unused
def _phase_tables(embedded: Tensor, rows: Tensor, columns: Tensor, stride: int) -> tuple[PhaseTable, PhaseTable] | None:
    """Where they pay: on a CPU, as they need numbers at hand, and not while a graph is being recorded."""
    if embedded.device.type != "cpu" or rows.device.type != "cpu" or _is_recorded():
        return None
    if rows.requires_grad or columns.requires_grad:  # the table holds one cell's
        return None
    try:
        tables = phase_table(rows, stride, embedded.shape[1]), phase_table(columns, stride, embedded.shape[2])
    except RuntimeError:  # a tensor without numbers (fake), as cost counters use them
        return None
    row_table, column_table = tables
    if row_table is None or column_table is None:
        return None
    few = len(row_table.starts) * len(column_table.starts) <= MAX_PHASES
    all_count = all(table.weights.any(dim=1).all() for table in (row_table, column_table))
    return (row_table, column_table) if few and all_count else None  # else neighbours are left out instead


@torch.jit.unused
def _is_recorded() -> bool:
    return torch.jit.is_tracing() or torch.compiler.is_compiling()  # type: ignore[attr-defined,no-untyped-call]


@torch.jit.unused
def _all_zero(areas: Tensor) -> bool:
    """Only asked where the answer is at hand: on the CPU, and not while a graph is being recorded."""
    if areas.is_cuda or _is_recorded() or areas.requires_grad:  # no weight, but a slope
        return False
    try:
        return not bool(areas.any())
    except RuntimeError:  # a tensor without numbers (meta, fake), as cost counters use them
        return False
