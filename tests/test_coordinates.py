"""One frame for all positions: the centre of the first pixel is 0, pixels are one wide."""

import math

import pytest
import torch
from hmf_networks.ops.coordinates import periodic_encoding, phase_table, pixel_centres, sample_plane, two_nearest


def test_as_many_pixels_as_the_axis_is_long_are_its_own():
    assert torch.equal(pixel_centres(7, 7), torch.arange(7.0))


@pytest.mark.parametrize(("length", "size"), [(8, 8), (8, 4), (8, 16), (7, 20), (256, 356), (5, 1)])
def test_pixels_cover_the_axis_evenly_from_border_to_border(length, size):
    centres, width = pixel_centres(length, size), length / size
    torch.testing.assert_close(centres.mean().item(), (length - 1) / 2, rtol=0, atol=1e-4)
    torch.testing.assert_close(centres.diff(), torch.full((size - 1,), width), rtol=0, atol=1e-4)
    assert centres[0].item() - width / 2 == pytest.approx(-0.5)
    assert centres[-1].item() + width / 2 == pytest.approx(length - 0.5)


def test_periodic_encoding_of_a_quarter_is_known():
    root = math.sqrt(0.5)
    wanted = [0.25, root, 1, 0, root, 0, -1]  # x, sin of pi/4, pi/2, pi, cos of the same
    torch.testing.assert_close(periodic_encoding(torch.tensor(0.25), 3), torch.tensor(wanted))


def test_periodic_encoding_of_minus_one_and_zero_is_known():
    found = periodic_encoding(torch.tensor([-1.0, 0.0]), 2)
    torch.testing.assert_close(found, torch.tensor([[-1.0, 0, 0, -1, 1], [0, 0, 0, 1, 1]]))


def test_periodic_encoding_without_frequencies_is_the_offset():
    offsets = torch.rand(3, 4)
    assert torch.equal(periodic_encoding(offsets, 0), offsets.unsqueeze(-1))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_two_nearest_cells_share_a_weight_of_one_and_lie_within_one_cell(stride):
    positions = torch.linspace(-4, 30, 171)  # far beyond both borders of 8 cells
    indices, offsets, weights = two_nearest(positions, stride, 8)
    torch.testing.assert_close(weights.sum(0), torch.ones(171))
    assert weights.min() >= 0
    assert offsets.abs().max() <= 1
    assert indices.min() == 0
    assert indices.max() == 7


@pytest.mark.parametrize(("stride", "centres"), [(1, [0, 1, 2, 3]), (2, [0.5, 2.5, 4.5, 6.5])])
def test_at_its_own_centre_a_cell_has_all_the_weight_and_offset_zero(stride, centres):
    indices, offsets, weights = two_nearest(torch.tensor(centres), stride, 4)
    assert indices[0].tolist() == [0, 1, 2, 3]
    assert offsets[0].tolist() == [0, 0, 0, 0]
    assert weights.tolist() == [[1, 1, 1, 1], [0, 0, 0, 0]]


def test_the_nearer_cell_has_the_larger_weight_and_offsets_are_signed():
    indices, offsets, weights = two_nearest(torch.tensor([1.0]), 2, 4)  # between centres 0.5 and 2.5
    assert indices.flatten().tolist() == [0, 1]
    assert offsets.flatten().tolist() == [0.25, -0.75]
    assert weights.flatten().tolist() == [0.75, 0.25]


def test_beyond_the_border_offsets_go_on_as_inside():
    inside, beyond = two_nearest(torch.tensor([2.8]), 1, 4), two_nearest(torch.tensor([-7.2]), 1, 4)
    torch.testing.assert_close(beyond[1:], inside[1:])
    assert beyond[0].flatten().tolist() == [0, 0]


def test_a_plane_sampled_at_its_own_centres_is_itself():
    plane = torch.randn(2, 3, 5, 7)
    assert torch.equal(sample_plane(plane, pixel_centres(5, 5), pixel_centres(7, 7)), plane)


def ramp(rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    rows, columns = rows.unsqueeze(-1), columns.unsqueeze(0)
    return (0.7 * rows - 0.3 * columns + 0.1 * rows * columns + 2)[None, None]


@pytest.mark.parametrize(("num_rows", "num_columns"), [(3, 4), (10, 9), (41, 53)])
def test_a_ramp_is_sampled_without_error_inside_the_plane(num_rows, num_columns):
    plane = ramp(torch.arange(6.0), torch.arange(9.0))
    rows, columns = torch.rand(num_rows) * 5, torch.rand(num_columns) * 8
    torch.testing.assert_close(sample_plane(plane, rows, columns), ramp(rows, columns))


def test_beyond_the_border_the_outermost_pixels_are_repeated():
    plane = torch.randn(1, 2, 5, 7)
    found = sample_plane(plane, torch.tensor([-9.3, 4.5, 20.0]), torch.tensor([-0.5, 6.2]))
    torch.testing.assert_close(found, plane[:, :, [0, 4, 4]][..., [0, 6]])


def test_sampling_agrees_with_the_linear_interpolation_of_torch():
    plane = torch.randn(2, 3, 8, 6)
    found = sample_plane(plane, pixel_centres(8, 20), pixel_centres(6, 5))
    wanted = torch.nn.functional.interpolate(plane, (20, 5), mode="bilinear", align_corners=False)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_sampled_plane_keeps_its_type(dtype):
    plane = torch.randn(1, 1, 4, 4).to(dtype)
    assert sample_plane(plane, torch.rand(3), torch.rand(2)).dtype == dtype


def test_the_gradient_of_sampling_spreads_one_over_the_neighbours():
    plane = torch.zeros(1, 1, 4, 4, requires_grad=True)
    sample_plane(plane, torch.tensor([1.25]), torch.tensor([2.5])).sum().backward()
    wanted = torch.zeros(4, 4)
    wanted[1, 2:], wanted[2, 2:] = 0.375, 0.125
    torch.testing.assert_close(plane.grad[0, 0], wanted)


@pytest.mark.parametrize(("step", "start"), [(1.0, 8.0), (0.5, -0.25), (2.0, 3.0), (0.25, 1.375), (1.0, -3.0)])
@pytest.mark.parametrize("stride", [2, 4])
def test_a_phase_table_finds_the_cells_offsets_and_weights_of_every_position(stride, step, start):
    positions = start + step * torch.arange(45.0)
    table = phase_table(positions, stride, 9)
    indices, offsets, weights = two_nearest(positions, stride, 9)
    phases = len(table.starts)
    assert phases == stride / step
    for number in range(len(positions)):
        phase, further = number % phases, number // phases
        below = table.starts[phase] + further
        assert table.cells[[below, below + 1]].tolist() == indices[:, number].tolist()
        assert torch.equal(table.offsets[:, phase], offsets[:, number])
        assert torch.equal(table.weights[:, phase], weights[:, number])


@pytest.mark.parametrize(
    "positions",
    [
        torch.arange(20.0) * 0.719,  # no whole number of pixels in a cell
        torch.cat([torch.arange(8.0), torch.arange(8.0) + 8.5]),  # a jump
        torch.arange(20.0).flip(0),
        (torch.tensor([0, 0.5, -2, 3]) + torch.tensor([[0.0], [2], [4]])).flatten(),
        torch.arange(20.0) * 4,  # cells are left out
        torch.tensor([3.0]),
        torch.zeros(5),
    ],
    ids=["odd", "jump", "backwards", "back and forth", "coarse", "one", "the same"],
)
def test_positions_that_do_not_repeat_have_no_phases(positions):
    assert phase_table(positions, 2, 12) is None
