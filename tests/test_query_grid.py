import math

import pytest
import torch
from hmf_networks.engines.query_grid import random_query_grid

SIZES = [(256, 256), (17, 40), (8, 8)]


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_grid_lies_inside_the_plane_and_has_no_more_points_than_it(height, width):
    for _ in range(200):
        for size, positions in zip((height, width), random_query_grid(height, width), strict=True):
            assert positions[0] >= 0
            assert positions[-1] <= size - 1 + 1e-4
            assert 1 <= len(positions) <= size


def test_the_step_is_one_for_both_axes_and_even():
    for _ in range(50):
        rows, columns = random_query_grid(64, 48)
        steps = torch.cat([rows.diff(), columns.diff()])
        torch.testing.assert_close(steps, steps[:1].expand_as(steps), atol=1e-4, rtol=0)


def test_steps_spread_evenly_in_log_between_a_half_and_two():
    steps = torch.tensor([random_query_grid(64, 64)[0].diff()[0].item() for _ in range(400)])
    assert steps.min() > 0.499
    assert steps.max() < 2.001
    shares = torch.histc(steps.log2(), bins=4, min=-1, max=1) / 400
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.09, rtol=0)


def test_every_sub_pixel_phase_is_asked_for():
    phases = torch.tensor([random_query_grid(64, 64)[0][0].item() % 1 for _ in range(400)])
    shares = torch.histc(phases, bins=4, min=0, max=1) / 400
    assert shares.min() > 0.1


def test_the_same_random_state_gives_the_same_grid():
    state = torch.get_rng_state()
    rows, columns = random_query_grid(32, 32)
    torch.set_rng_state(state)
    again_rows, again_columns = random_query_grid(32, 32)
    assert torch.equal(rows, again_rows)
    assert torch.equal(columns, again_columns)
    assert not math.isclose(rows[0], random_query_grid(32, 32)[0][0])
