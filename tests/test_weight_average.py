import copy

import pytest
import torch
from hmf_networks.engines import WeightAverage
from hmf_networks.engines.weight_average import POWER
from ignite.engine import Engine
from torch import nn


def averaged_steps(steps: list[float]) -> WeightAverage:
    network = nn.Linear(1, 1, bias=False)
    average = WeightAverage(network)
    for value in steps:
        nn.init.constant_(network.weight, value)
        average.update()
    return average


def test_the_average_weighs_each_step_by_a_power_of_its_number():
    steps = torch.arange(1, 201, dtype=torch.float64)
    for marked in (50, 120, 199):
        one = (steps == marked).float()
        share = averaged_steps(one.tolist()).network.weight.item()
        assert share == pytest.approx((marked**POWER / (steps**POWER).sum()).item(), rel=0.05)


def test_the_first_step_replaces_the_untrained_network():
    assert averaged_steps([3.0]).network.weight.item() == 3.0


def test_what_never_changes_is_its_own_average():
    assert averaged_steps([0.7] * 20).network.weight.item() == pytest.approx(0.7)


def test_statistics_are_averaged_and_batches_counted():
    network = nn.BatchNorm2d(1, momentum=1.0)
    average = WeightAverage(network)
    for mean in (0.0, 1.0):
        network(torch.full((2, 1, 4, 4), mean))
        average.update()
    assert average.network.running_mean.item() == pytest.approx(1 - 0.5 ** (POWER + 1))
    assert average.network.num_batches_tracked.item() == 2


def test_an_average_goes_on_where_it_was_saved():
    whole = averaged_steps([1.0, 5.0, 2.0])
    half = averaged_steps([1.0, 5.0])
    other = averaged_steps([9.0])
    other.load_state_dict(copy.deepcopy(half.state_dict()))
    nn.init.constant_(other._training.weight, 2.0)
    other.update()
    assert torch.equal(other.network.weight, whole.network.weight)


def test_every_step_of_an_engine_counts_and_the_network_in_training_is_left_alone():
    network = nn.Linear(1, 1, bias=False)
    average = WeightAverage(network)
    engine = Engine(lambda _engine, value: nn.init.constant_(network.weight, value))
    average.attach(engine)
    engine.run([1.0, 5.0, 2.0])
    assert torch.equal(average.network.weight, averaged_steps([1.0, 5.0, 2.0]).network.weight)
    assert network.weight.item() == 2.0
