import itertools

import pytest
import torch
from hmf_networks.engines.handlers import (
    StopWithoutProgress,
    ValidateLastEpoch,
    flat_then_linear,
    losses,
    shown_inputs,
    shown_output,
    upright,
)
from ignite.engine import Engine
from monai.data import MetaTensor
from torch import nn


def rates(flat_epochs: int, decay_epochs: int) -> list[float]:
    """The learning rate of every epoch, and of the one after the last, when it starts at 1."""
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    scheduler = flat_then_linear(optimizer, flat_epochs=flat_epochs, decay_epochs=decay_epochs)
    seen = []
    for _ in range(flat_epochs + decay_epochs + 1):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


@pytest.mark.parametrize(("flat_epochs", "decay_epochs"), [(30, 30), (4, 5), (1, 1), (0, 7)])
def test_the_rate_is_flat_then_falls_in_a_straight_line_to_zero_after_the_last_epoch(flat_epochs, decay_epochs):
    seen = rates(flat_epochs, decay_epochs)
    assert seen[:flat_epochs] == [1.0] * flat_epochs
    assert seen[-2] > 0
    assert seen[-1] == pytest.approx(0, abs=1e-9)
    fall = [1.0, *seen[flat_epochs:]]
    steps = [before - after for before, after in itertools.pairwise(fall)]
    assert steps == pytest.approx([1 / (decay_epochs + 1)] * len(steps))


def test_without_decay_the_rate_stays():
    assert rates(5, 0)[:5] == [1.0] * 5


@pytest.mark.parametrize(
    ("best_epochs", "patience", "last"), [([1, 2, 2, 2, 2, 2], 3, 5), ([0, 0, 0, 0], 1, 4), ([1, 1], 1, 2)]
)
def test_training_ends_when_the_best_epoch_is_patience_epochs_old(best_epochs, patience, last):
    """Before the first validation there is no best epoch, and nothing to lose patience with."""
    evaluator = Engine(lambda *_: None)
    evaluator.state.best_metric_epoch = 0

    def train(engine: Engine, _batch: int) -> None:
        evaluator.state.best_metric_epoch = best_epochs[engine.state.epoch - 1]

    trainer = Engine(train)
    StopWithoutProgress(evaluator, patience).attach(trainer)
    assert trainer.run([0], max_epochs=len(best_epochs)).epoch == last


def test_the_patients_front_right_is_shown_top_left():
    image = torch.full((1, 10, 12), -1.0)
    image[0, 8, 11] = 1.0  # RAS: far to the right, at the very front
    shown = upright(image)
    assert shown.shape == (1, 12, 10)
    assert (shown == 1).nonzero().tolist() == [[0, 0, 1]]
    assert shown.min() == 0


def test_of_a_volume_the_middle_slice_is_shown():
    volume = torch.rand(2, 10, 12, 7)
    assert torch.equal(upright(volume), upright(volume[..., 3]))


def test_losses_are_plain_numbers_of_the_step():
    parts = {"pixel_loss": 2.0, "adversarial_loss": 0.75, "side_loss": 0.25, "discriminator_loss": 0.5}
    step = {"loss": torch.tensor(3.0), **parts, "pred": 0}
    wanted = {"loss": 3.0, **parts}
    assert losses([step, step]) == wanted


def test_sources_target_and_prediction_are_shown_for_every_sample():
    samples = [
        {"image": MetaTensor(torch.rand(2, 6, 8)), "label": torch.rand(1, 6, 8), "pred": torch.rand(1, 6, 8)}
        for _ in range(3)
    ]
    images, labels = shown_inputs(samples)
    for sample, image, label, pred in zip(samples, images, labels, shown_output(samples), strict=True):
        assert torch.equal(image, upright(sample["image"]))
        assert torch.equal(label, upright(sample["label"]))
        assert torch.equal(pred, upright(sample["pred"]))


@pytest.mark.parametrize(("epochs", "interval", "validated"), [(5, 2, [5]), (4, 2, []), (1, 3, [1]), (3, 1, [])])
def test_the_last_epoch_is_validated_where_the_interval_passes_over_it(epochs, interval, validated):
    seen: list[int] = []
    validator = Engine(lambda *_: None)
    validator.run = seen.append
    trainer = Engine(lambda *_: None)
    ValidateLastEpoch(validator, interval).attach(trainer)
    trainer.run([0], max_epochs=epochs)
    assert seen == validated
