"""Small handlers and the functions that configs hand to MONAI's own."""

from collections.abc import Sequence
from typing import Any

from hmf_networks.engines.trainer import LOSS_NAMES
from ignite.engine import Engine, Events
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def flat_then_linear(optimizer: Optimizer, *, flat_epochs: int, decay_epochs: int) -> LambdaLR:
    """The full rate for `flat_epochs`, then linearly to zero over `decay_epochs` (pix2pix, I2I-Mamba)."""

    def factor(epoch: int) -> float:
        return min(1.0, max(0.0, 1 - (epoch + 1 - flat_epochs) / (decay_epochs + 1)))

    return LambdaLR(optimizer, factor)


def losses(output: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The losses of a training step, for StatsHandler and TensorBoardStatsHandler."""
    return {name: float(output[0][name]) for name in LOSS_NAMES}


def shown_inputs(batch: Sequence[dict[str, Any]]) -> tuple[list[Tensor], list[Tensor]]:
    """Sources and target of every sample as upright planes, for TensorBoardImageHandler's batch_transform."""
    return [upright(sample["image"]) for sample in batch], [upright(sample["label"]) for sample in batch]


def shown_output(output: Sequence[dict[str, Any]]) -> list[Tensor]:
    """The prediction of every sample as an upright plane, for TensorBoardImageHandler's output_transform."""
    return [upright(sample["pred"]) for sample in output]


def upright(image: Tensor) -> Tensor:
    """(C, X, Y), or the middle slice of (C, X, Y, Z), in RAS order -> (C, rows, columns) of a picture."""
    plane = image.as_subclass(Tensor).float()
    if plane.dim() == 4:
        plane = plane[..., plane.shape[-1] // 2]
    return (plane.flip(1, 2).transpose(1, 2) + 1) / 2


class ValidateLastEpoch:
    """Handler of the trainer: validate after the last epoch too where the interval passes over it."""

    def __init__(self, validator: Engine, interval: int) -> None:
        self.validator = validator
        self.interval = interval

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        if engine.state.epoch == engine.state.max_epochs and engine.state.epoch % self.interval:
            self.validator.run(engine.state.epoch)


class StopWithoutProgress:
    """Handler of the trainer: end when the evaluator's key metric has not improved for `patience` epochs.

    It stands behind the ValidationHandler in the list. MONAI's EarlyStopHandler needs the trainer inside the
    evaluator's handlers, a circle that a config cannot build.
    """

    def __init__(self, evaluator: Engine, patience: int) -> None:
        self.evaluator = evaluator
        self.patience = patience

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        best_epoch = self.evaluator.state.best_metric_epoch
        if best_epoch > 0 and engine.state.epoch - best_epoch >= self.patience:
            engine.logger.info("no progress for %d epochs: stop", engine.state.epoch - best_epoch)
            engine.terminate()
