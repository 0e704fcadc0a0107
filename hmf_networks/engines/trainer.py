"""Train the generator against a conditional discriminator: the losses of paper section 3.6.

L_G = w_pixel |y - G(x)|_1 + w_adversarial (D(x, G(x)) - 1)^2,   L_D = 1/2 (D(x, y) - 1)^2 + 1/2 D(x, G(x))^2.

MONAI's AdversarialTrainer takes the source for the real image and has no weights (docs/decisions.md#trainer).
"""

from collections.abc import Callable
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.losses import PatchAdversarialLoss
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.optim import Optimizer

from hmf_networks.engines.query_grid import random_query_grid
from hmf_networks.naming import check_switch
from hmf_networks.ops.coordinates import sample_plane

LOSS_NAMES = ("loss", "pixel_loss", "adversarial_loss", "discriminator_loss")


class ConditionalGANTrainer(SupervisedTrainer):
    """A `SupervisedTrainer` whose network is the generator; handlers see no difference.

    Args:
        network: generator; called as network(image) or network(image, coordinates=(rows, columns)).
        loss_function: pixel loss of prediction and target.
        discriminator: called with [sources, image] as channels; MONAI's PatchDiscriminator.
        d_optimizer: its optimiser.
        pixel_weight, adversarial_weight: weights of the two losses; an adversarial weight of 0 trains no
            discriminator.
        query_grid_share: share of the steps in which the generator is asked at a random grid.
        arguments: all others are those of `SupervisedTrainer`.

    The output of a step holds `loss` and its parts (LOSS_NAMES) beside MONAI's image, label and pred.
    """

    def __init__(
        self,
        *,
        discriminator: nn.Module,
        d_optimizer: Optimizer,
        pixel_weight: float = 100.0,
        adversarial_weight: float = 1.0,
        query_grid_share: float = 0.0,
        **arguments: Any,
    ) -> None:
        check_switch("amp", arguments.get("amp", False))
        super().__init__(**arguments)
        self.discriminator = discriminator
        self.d_optimizer = d_optimizer
        self.d_scaler = torch.amp.GradScaler("cuda") if self.amp and torch.cuda.is_available() else None
        self.adversarial_loss = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
        self.pixel_weight = pixel_weight
        self.adversarial_weight = adversarial_weight
        self.query_grid_share = query_grid_share

    def _iteration(self, engine: Any, batchdata: dict[str, Tensor]) -> dict[str, Any]:
        sources, target = engine.prepare_batch(
            batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs
        )
        sources, target = sources.as_subclass(Tensor), target.as_subclass(Tensor)
        self.network.train()
        self.discriminator.train()

        with self._autocast():
            if torch.rand(()).item() < self.query_grid_share:
                grid = random_query_grid(sources.shape[2], sources.shape[3], sources.device)
                fake = self.inferer(sources, self.network, coordinates=grid)
                sources, target = sample_plane(sources, *grid), sample_plane(target, *grid)
            else:
                fake = self.inferer(sources, self.network)
        output: dict[str, Any] = {Keys.IMAGE: sources, Keys.LABEL: target, Keys.PRED: fake}
        output["discriminator_loss"] = self._train_discriminator(sources, target, fake.detach())
        output |= self._train_generator(sources, target, fake)
        engine.state.output = output
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _train_discriminator(self, sources: Tensor, target: Tensor, fake: Tensor) -> Tensor:
        if self.adversarial_weight == 0:
            return torch.zeros(())
        with self._autocast():
            real_loss = self._verdict_loss(self.discriminator, sources, target, is_real=True)
            fake_loss = self._verdict_loss(self.discriminator, sources, fake, is_real=False)
            loss = (real_loss + fake_loss) / 2
        self._step(loss, self.d_optimizer, self.d_scaler)
        return loss.detach()

    def _train_generator(self, sources: Tensor, target: Tensor, fake: Tensor) -> dict[str, Tensor]:
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        with self._autocast():
            pixel = self.pixel_weight * self.loss_function(fake, target)
            adversarial = torch.zeros_like(pixel)
            if self.adversarial_weight:
                # The bare module with frozen weights: the generator's step must not touch the discriminator,
                # nor wake the gradient reducer of its DistributedDataParallel wrapper.
                judge = getattr(self.discriminator, "module", self.discriminator).requires_grad_(False)
                adversarial = self.adversarial_weight * self._verdict_loss(judge, sources, fake, is_real=True)
                judge.requires_grad_(True)
            loss = pixel + adversarial
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self._step(loss, self.optimizer, self.scaler)
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        return {
            Keys.LOSS: loss.detach(),
            "pixel_loss": pixel.detach(),
            "adversarial_loss": adversarial.detach(),
        }

    def _verdict_loss(
        self, judge: Callable[..., Any], sources: Tensor, image: Tensor, *, is_real: bool
    ) -> Tensor:
        verdict = judge(torch.cat([sources, image], dim=1))[
            -1
        ]  # MONAI returns all feature maps, the logits last
        return self.adversarial_loss(
            verdict, target_is_real=is_real, for_discriminator=True
        )  # True: as told, not forced

    def _step(self, loss: Tensor, optimizer: Optimizer, scaler: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        if scaler is None:
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        else:
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.state.device.type, enabled=self.amp, **self.amp_kwargs)
