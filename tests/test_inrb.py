"""A feature map becomes a continuous image. Paper section 3.5."""

import pytest
import torch
from hmf_networks.blocks.inrb import INRB
from hmf_networks.ops.coordinates import periodic_encoding, pixel_centres
from torch import Tensor, nn

strides = pytest.mark.parametrize("stride", [1, 2])


def ramp(rows: Tensor, columns: Tensor) -> Tensor:
    rows, columns = rows.unsqueeze(-1), columns.unsqueeze(0)
    return 0.02 * rows - 0.03 * columns + 0.001 * rows * columns + 0.1


def linear_inrb(stride: int) -> INRB:
    """One whose MLP hands its one feature through: ReLU kept in its linear range, no positional code."""
    inrb = INRB(1, 1, stride=stride, hidden_channels=4, num_hidden=3)
    for name, parameter in inrb.named_parameters():
        nn.init.eye_(parameter) if parameter.dim() > 1 else nn.init.zeros_(parameter)
        if name in ("embed_row.weight", "embed_column.weight"):
            nn.init.zeros_(parameter)
    nn.init.constant_(inrb.embed_features.bias, 3.0)
    nn.init.constant_(inrb.output.bias, -3.0)
    return inrb


QUERIES = {
    "own grid": (torch.arange(1.0, 14), torch.arange(1.0, 18)),
    "shifted by a fraction": (torch.arange(1.0, 14) + 0.37, torch.arange(1.0, 18) - 0.21),
    "finer": (torch.linspace(0.5, 14.5, 41), torch.linspace(0.5, 18.5, 67)),
    "coarser, stretched": (torch.linspace(0.6, 14, 5), torch.linspace(1, 18.2, 3)),
}


@strides
@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_a_linear_mlp_reproduces_a_bilinear_ramp_inside_the_plane(query, stride):
    cells = [torch.arange(size / stride) * stride + (stride - 1) / 2 for size in (16, 20)]
    decoded = linear_inrb(stride)(ramp(*cells)[None, None], *query)
    torch.testing.assert_close(torch.atanh(decoded[0, 0]), ramp(*query), rtol=0, atol=3e-6)


@strides
def test_a_constant_is_constant_even_beyond_the_border(stride):
    features = torch.full((1, 1, 5, 6), 0.4)
    decoded = linear_inrb(stride)(features, torch.linspace(-3, 14, 23), torch.linspace(-3, 14, 19))
    torch.testing.assert_close(decoded, torch.full((1, 1, 23, 19), 0.4).tanh())


def plain_inrb(inrb: INRB, features: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The equation, point by point: the whole MLP on [z_t ; phi(row) ; phi(column)] for each neighbour."""
    first = torch.cat([inrb.embed_features.weight, inrb.embed_row.weight, inrb.embed_column.weight], dim=1)

    def mlp(z: Tensor) -> Tensor:
        return inrb.output(inrb.hidden(first @ z + inrb.embed_features.bias))

    image = torch.zeros(features.shape[0], inrb.output.out_features, len(rows), len(columns)).to(features)
    height, width = features.shape[2:]
    for b, r, q in torch.cartesian_prod(*map(torch.arange, (len(image), len(rows), len(columns)))).tolist():
        row, column = ((x - (inrb.stride - 1) / 2) / inrb.stride for x in (rows[r], columns[q]))
        for i in (row.floor(), row.floor() + 1):
            for j in (column.floor(), column.floor() + 1):
                z = features[b, :, int(i.clamp(0, height - 1)), int(j.clamp(0, width - 1))]
                codes = [periodic_encoding(x, inrb.num_frequencies).to(z) for x in (row - i, column - j)]
                opposite = (1 - (row - i).abs()) * (1 - (column - j).abs())
                image[b, :, r, q] += opposite * mlp(torch.cat([z, *codes]))
    return torch.tanh(image)


@strides
@pytest.mark.parametrize("num_hidden", [1, 3])
def test_the_split_mlp_equals_the_equation_point_by_point(stride, num_hidden):
    inrb = INRB(5, 2, stride=stride, hidden_channels=8, num_hidden=num_hidden, num_frequencies=4)
    features, rows, columns = torch.randn(2, 5, 4, 3), torch.linspace(-2, 9, 7), torch.rand(5) * 6
    torch.testing.assert_close(inrb(features, rows, columns), plain_inrb(inrb, features, rows, columns))


REPEATING = {
    "own pixels": (torch.arange(12.0), torch.arange(16.0)),
    "a part, from an odd pixel": (torch.arange(3.0, 9), torch.arange(5.0, 12)),
    "twice as fine": (pixel_centres(12, 24), pixel_centres(16, 32)),
    "beyond the border": (torch.arange(-5.0, 15), torch.arange(-3.0, 21)),
    "fine and plain": (pixel_centres(12, 48), torch.arange(16.0)),
}


@pytest.mark.parametrize("query", REPEATING.values(), ids=REPEATING)
def test_where_positions_repeat_a_table_of_codes_gives_the_plain_form_in_value_and_gradient(query, monkeypatch):
    inrb = INRB(5, 2, hidden_channels=8, num_frequencies=4).double()
    features = torch.randn(2, 5, 6, 8).double().requires_grad_()
    leaves = [features, *inrb.parameters()]
    by_table = inrb(features, *query)
    found = torch.autograd.grad(by_table.square().sum(), leaves)
    monkeypatch.setattr("hmf_networks.blocks.inrb.MAX_PHASES", 0)
    plain = inrb(features, *query)
    wanted = torch.autograd.grad(plain.square().sum(), leaves)
    torch.testing.assert_close((by_table, *found), (plain, *wanted))
    with torch.no_grad():
        torch.testing.assert_close(inrb(features, *query), by_table)


def test_the_table_is_used_where_it_pays_and_only_there(monkeypatch):
    asked = []
    decode = INRB._decode_phases
    monkeypatch.setattr(INRB, "_decode_phases", lambda *arguments: asked.append(1) or decode(*arguments))
    features, positions = torch.randn(1, 3, 6, 6), torch.arange(12.0)
    scattered_inrb(2)(features, positions, positions)
    assert asked == [1]
    scattered_inrb(2)(features, positions * 0.7, positions)
    scattered_inrb(1)(features, torch.arange(6.0), torch.arange(6.0))  # three of four neighbours have no weight
    torch.jit.script(scattered_inrb(2))(features, positions, positions)
    assert asked == [1]


@pytest.mark.parametrize("step", [1.0, 0.7], ids=["table", "plain"])
@torch.no_grad()
def test_features_that_are_no_number_show_in_the_image_in_bfloat16_too(step):
    features, positions = torch.randn(1, 3, 8, 8).bfloat16(), torch.arange(12.0) * step
    features[0, 1, 2, 3] = float("nan")
    with torch.autocast("cpu", torch.bfloat16):
        decoded = scattered_inrb(2)(features, positions, positions)
    assert decoded[0, 0, round(4.5 / step), round(6.5 / step)].isnan()
    assert not decoded[0, 0, 0, 0].isnan()


@pytest.mark.parametrize("step", [1.0, 0.7], ids=["table", "plain"])
@pytest.mark.parametrize(
    "name", ["hidden.1.weight", "hidden.3.bias", "embed_row.weight", "embed_features.bias", "output.weight"]
)
@torch.no_grad()
def test_a_weight_that_is_no_number_shows_in_the_image_in_bfloat16_too(name, step):
    inrb, positions = scattered_inrb(2), torch.arange(12.0) * step
    inrb.get_parameter(name).view(-1)[3] = float("nan")
    with torch.autocast("cpu", torch.bfloat16):
        assert inrb(torch.randn(1, 3, 8, 8), positions, positions).isnan().all()


@strides
@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_image_has_the_type_of_the_weights_whichever_way_it_was_decoded(dtype, stride):
    inrb, features = scattered_inrb(stride).to(dtype), torch.randn(1, 3, 8, 8)
    for step in (1.0, 0.7):
        positions = torch.arange(12.0) * step
        assert inrb(features.to(dtype), positions, positions).dtype == dtype
        if dtype == torch.float32:
            with torch.autocast("cpu", torch.bfloat16):
                assert inrb(features, positions, positions).dtype == dtype


@strides
def test_the_gradient_of_a_coordinate_is_the_slope_of_the_image(stride):
    inrb, features = scattered_inrb(stride).double(), torch.randn(1, 3, 6, 6).double()
    rows = (torch.arange(6.0).double() + 0.25 * (stride == 2)).requires_grad_()
    columns = torch.arange(6.0).double().requires_grad_()
    found = torch.autograd.grad(inrb(features, rows, columns).sum(), (rows, columns))
    ahead = 1e-6  # at the very centre of a cell the slope is that towards the next
    with torch.no_grad():
        here = inrb(features, rows, columns).sum((0, 1))
        for gradient, axis, moved in [
            (found[0], 1, inrb(features, rows + ahead, columns)),
            (found[1], 0, inrb(features, rows, columns + ahead)),
        ]:
            slope = (moved.sum((0, 1)) - here).sum(axis) / ahead
            torch.testing.assert_close(gradient, slope, atol=1e-3, rtol=1e-3)


def scattered_inrb(stride: int) -> INRB:
    inrb = INRB(3, 1, stride=stride, hidden_channels=16, num_frequencies=4)
    for parameter in inrb.parameters():
        nn.init.normal_(parameter, std=0.4)
    return inrb


def test_at_stride_one_a_pixel_reads_its_own_cell_only():
    features = torch.randn(1, 3, 5, 6, requires_grad=True)
    decoded = scattered_inrb(1)(features, pixel_centres(5, 5), pixel_centres(6, 6))
    decoded[0, 0, 2, 3].backward()
    assert features.grad[0].abs().sum(0).nonzero().tolist() == [[2, 3]]


def test_at_stride_two_a_pixel_reads_the_four_cells_about_it():
    features = torch.randn(1, 3, 5, 6, requires_grad=True)
    decoded = scattered_inrb(2)(features, pixel_centres(10, 10), pixel_centres(12, 12))
    decoded[0, 0, 4, 7].backward()  # cells have their centres at 0.5, 2.5, 4.5, ...
    assert features.grad[0].abs().sum(0).nonzero().tolist() == [[1, 3], [1, 4], [2, 3], [2, 4]]


@strides
def test_a_part_of_the_grid_is_decoded_as_in_the_whole(stride):
    inrb, features = scattered_inrb(stride), torch.randn(2, 3, 8, 8)
    rows, columns = torch.linspace(-0.5, 15, 20), torch.linspace(0.1, 15.5, 17)
    whole = inrb(features, rows, columns)
    torch.testing.assert_close(inrb(features, rows[3:8], columns[5:6]), whole[:, :, 3:8, 5:6])


@strides
def test_the_image_has_no_jump_where_the_neighbours_change(stride):
    inrb, features = (INRB(3, 1, stride=stride, num_frequencies=1), torch.randn(1, 3, 8, 8))  # high ones are steep
    centres = stride * torch.arange(1.0, 7) + (stride - 1) / 2
    before, after = centres - 2e-5, centres + 1e-4
    others = torch.linspace(2, 5, 40)
    torch.testing.assert_close(inrb(features, before, others), inrb(features, after, others), rtol=0, atol=2e-4)
    torch.testing.assert_close(inrb(features, others, before), inrb(features, others, after), rtol=0, atol=2e-4)


def test_a_new_mlp_neither_damps_nor_swells_what_it_reads():
    inrb, hidden = INRB(64, 1, hidden_channels=256), torch.randn(500, 64)
    for layer in (inrb.embed_features, *(part for part in inrb.hidden if isinstance(part, nn.Linear))):
        hidden = layer(hidden).relu()
        assert 0.5 < hidden.square().mean() < 2


@strides
def test_features_moved_by_a_cell_move_the_image_by_a_stride(stride):
    inrb, features = scattered_inrb(stride), torch.randn(1, 3, 8, 8)
    rows = torch.linspace(3, 9, 13) if stride == 2 else torch.linspace(3, 5, 13)
    moved = inrb(features.roll((1, 1), (2, 3)), rows + stride, rows + stride)
    torch.testing.assert_close(moved, inrb(features, rows, rows), rtol=1e-4, atol=1e-4)


def test_rows_and_columns_are_coded_apart():
    inrb, features = scattered_inrb(2), torch.ones(1, 3, 4, 4)
    rows, columns = torch.tensor([2.9]), torch.tensor([3.3])
    assert (inrb(features, rows, columns) - inrb(features, columns, rows)).abs().max() > 1e-3


def test_the_image_stays_between_minus_one_and_one():
    inrb = INRB(3, 1)
    image = inrb(1e4 * torch.randn(1, 3, 4, 4), torch.arange(8.0), torch.arange(8.0))
    assert image.abs().max() <= 1
    assert image.abs().max() > 0.99


@strides
def test_every_parameter_gets_a_gradient(stride):
    inrb = INRB(3, 2, stride=stride)
    inrb(torch.randn(2, 3, 4, 4), torch.arange(4.0), torch.arange(4.0)).sum().backward()
    assert all(x.grad is not None and x.grad.abs().max() > 0 for x in inrb.parameters())


def test_the_defaults_are_ten_frequencies_and_three_layers_of_sixty_four():
    inrb = INRB(64, 1)
    assert inrb.embed_row.in_features == inrb.embed_column.in_features == 21
    linears = [(x.in_features, x.out_features) for x in inrb.hidden if isinstance(x, nn.Linear)]
    assert [inrb.embed_features.out_features, *linears, inrb.output.in_features] == [64, (64, 64), (64, 64), 64]
    assert inrb.stride == 2
