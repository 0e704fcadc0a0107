"""The four walks over a map, and the symmetries of the SSM that follow from them."""

import pytest
import torch
from hmf_networks.blocks.ssm2d import SSM2d
from hmf_networks.ops.scan_order import DIRECTIONS, maps_to_sequences, sequences_to_map

# Two rows, three columns:  0 1 2
#                           3 4 5
WALKS = [
    [0, 1, 2, 3, 4, 5],  # along the rows
    [5, 4, 3, 2, 1, 0],  # the same backwards
    [0, 3, 1, 4, 2, 5],  # along the columns
    [5, 2, 4, 1, 3, 0],  # the same backwards
]


def as_maps(image: torch.Tensor, directions: int) -> torch.Tensor:
    """(B, H, W, c), once for each direction."""
    return image.unsqueeze(3).expand(-1, -1, -1, directions, -1)


@pytest.mark.parametrize("directions", DIRECTIONS)
def test_each_direction_walks_as_documented(directions):
    maps = as_maps(torch.arange(6.0).reshape(1, 2, 3, 1), directions)
    assert maps_to_sequences(maps)[0, :, 0].tolist() == WALKS[:directions]


@pytest.mark.parametrize("directions", DIRECTIONS)
def test_the_way_there_and_back_is_as_many_images_as_directions(directions):
    image = torch.randint(-9, 10, (2, 5, 7, 3)).float()
    there_and_back = sequences_to_map(maps_to_sequences(as_maps(image, directions)), 5, 7)
    assert torch.equal(there_and_back, directions * image)


@pytest.mark.parametrize("direction", range(4))
def test_every_direction_alone_is_brought_back_to_its_place(direction):
    image = torch.randn(2, 5, 7, 3)
    sequences = maps_to_sequences(as_maps(image, 4))
    alone = torch.zeros_like(sequences)
    alone[:, direction] = sequences[:, direction]
    assert torch.equal(sequences_to_map(alone, 5, 7), image)


@pytest.mark.parametrize("direction", range(4))
def test_every_direction_walks_a_map_of_its_own(direction):
    maps = torch.randn(2, 5, 7, 4, 3)
    of_its_own = maps_to_sequences(as_maps(maps[:, :, :, direction], 4))[:, direction]
    assert torch.equal(maps_to_sequences(maps)[:, direction], of_its_own)


def random_ssm(directions: int = 4) -> SSM2d:
    """An SSM whose parameters differ in every direction, channel and state."""
    ssm = SSM2d(6, state_size=4, step_rank=3, directions=directions).double()
    for parameter in ssm.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return ssm


def with_directions(ssm: SSM2d, order: list[int]) -> SSM2d:
    """The same SSM with the parameters of its directions exchanged."""
    exchanged = random_ssm(len(order))
    for name, parameter in ssm.named_parameters():
        by_direction = parameter.data.unflatten(0, (len(order), -1))[order]
        getattr(exchanged, name).data = by_direction.flatten(0, 1)
    return exchanged


FORWARD_AND_BACKWARD, ROWS_AND_COLUMNS = [1, 0, 3, 2], [2, 3, 0, 1]


def test_the_parameters_of_every_direction_are_stacked_by_direction():
    for name, parameter in random_ssm().named_parameters():
        assert parameter.shape[0] % 4 == 0, name


def test_half_a_turn_of_the_input_turns_the_output_when_forward_and_backward_are_exchanged():
    ssm, x = random_ssm(), torch.randn(2, 6, 4, 5).double()
    turned = with_directions(ssm, FORWARD_AND_BACKWARD)(x.rot90(2, (2, 3)))
    torch.testing.assert_close(turned, ssm(x).rot90(2, (2, 3)))


def test_half_a_turn_is_a_symmetry_of_two_directions_as_well():
    ssm, x = random_ssm(2), torch.randn(2, 6, 4, 5).double()
    turned = with_directions(ssm, [1, 0])(x.rot90(2, (2, 3)))
    torch.testing.assert_close(turned, ssm(x).rot90(2, (2, 3)))


def test_a_transposed_input_transposes_the_output_when_rows_and_columns_are_exchanged():
    ssm, x = random_ssm(), torch.randn(2, 6, 4, 5).double()
    transposed = with_directions(ssm, ROWS_AND_COLUMNS)(x.transpose(2, 3))
    torch.testing.assert_close(transposed, ssm(x).transpose(2, 3))


@pytest.mark.parametrize(
    "move",
    [lambda x: x.flip(2), lambda x: x.flip(3), lambda x: x.rot90(2, (2, 3)), lambda x: x.transpose(2, 3)],
    ids=["flip rows", "flip columns", "half a turn", "transpose"],
)
def test_without_an_exchange_of_parameters_nothing_is_a_symmetry(move):
    ssm, x = random_ssm(), torch.randn(2, 6, 5, 5).double()
    still, moved = move(ssm(x)), ssm(move(x))
    assert (still - moved).abs().max() > 0.01 * still.abs().max()


@pytest.mark.parametrize("order", [FORWARD_AND_BACKWARD, ROWS_AND_COLUMNS], ids=["turn", "transpose"])
def test_a_flip_is_not_a_symmetry_even_when_parameters_are_exchanged(order):
    ssm, x = random_ssm(), torch.randn(2, 6, 5, 5).double()
    still, moved = ssm(x).flip(2), with_directions(ssm, order)(x.flip(2))
    assert (still - moved).abs().max() > 0.01 * still.abs().max()


@pytest.mark.parametrize("directions", DIRECTIONS)
def test_the_last_token_of_a_walk_hears_of_the_first(directions):
    x = torch.randn(1, 6, 4, 5).double().requires_grad_()
    random_ssm(directions)(x)[0, :, -1, -1].sum().backward()
    assert x.grad[0, :, 0, 0].abs().max() > 0


@pytest.mark.parametrize("directions", [2, 4])
def test_with_a_way_back_the_first_token_hears_of_the_last(directions):
    x = torch.randn(1, 6, 4, 5).double().requires_grad_()
    random_ssm(directions)(x)[0, :, 0, 0].sum().backward()
    assert x.grad[0, :, -1, -1].abs().max() > 0


def test_three_directions_are_refused():
    with pytest.raises(ValueError, match=r"one of \(1, 2, 4\), got 3"):
        SSM2d(6, directions=3)


def test_initial_steps_lie_between_a_thousandth_and_a_tenth_and_states_are_one_to_n():
    ssm = SSM2d(64, state_size=5)
    steps = torch.nn.functional.softplus(ssm.step_bias)
    assert steps.min() >= 0.999e-3
    assert steps.max() <= 1.001e-1
    torch.testing.assert_close(ssm.A_log.exp(), torch.arange(1.0, 6).expand(256, 5))
