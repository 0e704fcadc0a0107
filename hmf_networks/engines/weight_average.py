"""The average of the generator over its last steps: what is validated, saved and handed to users."""

from collections.abc import Sequence

from ignite.engine import Engine, Events
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

# Power function averaging with sigma_rel = 0.1, Karras et al., CVPR 2024, section 3.1: the average looks back
# over about a tenth of the training so far, however long that is.
POWER = 6.94


class WeightAverage:
    """Handler of the trainer: average the weights and the BatchNorm statistics after each step.

    Small batches of slices, some nearly empty, leave both jittering from step to step.

    Args:
        network: the generator in training, wrapped for several processes or not.
    """

    def __init__(self, network: nn.Module) -> None:
        self._training = getattr(network, "module", network)
        self._average = AveragedModel(self._training, multi_avg_fn=power_average, use_buffers=True)

    @property
    def network(self) -> nn.Module:
        """The averaged network, a module like the one in training."""
        return self._average.module

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.update)

    def update(self) -> None:
        self._average.update_parameters(self._training)

    def state_dict(self) -> dict[str, Tensor]:
        return self._average.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._average.load_state_dict(state)


def power_average(averages: Sequence[Tensor], currents: Sequence[Tensor], num_averaged: Tensor | int) -> None:
    """In place: the t-th value counts with t to the power POWER, relative to those before it."""
    weight = 1 - (1 - 1 / (float(num_averaged) + 1)) ** (POWER + 1)
    for average, current in zip(averages, currents, strict=True):
        if average.is_floating_point():
            average.lerp_(current, weight)
        else:  # BatchNorm's count of batches
            average.copy_(current)
