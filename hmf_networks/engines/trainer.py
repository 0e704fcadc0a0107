"""Train the generator against a conditional discriminator: the losses of paper section 3.6.

L_G = w_pixel |y - G(x)|_1 + w_adversarial (D(x, G(x)) - 1)^2,   L_D = 1/2 (D(x, y) - 1)^2 + 1/2 D(x, G(x))^2.

MONAI's AdversarialTrainer takes the source for the real image and has no weights (docs/decisions.md#trainer).
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hmf_networks.engines.precision import has_bfloat16
from hmf_networks.engines.query_grid import random_query_grid
from hmf_networks.losses import feature_matching
from hmf_networks.naming import check_switch
from hmf_networks.ops.availability import wanted_targets
from hmf_networks.ops.coordinates import sample_plane
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.losses import PatchAdversarialLoss
from monai.utils.enums import CommonKeys as Keys
from torch import Tensor, nn
from torch.optim import Optimizer

LOSS_NAMES = ("loss", "pixel_loss", "adversarial_loss", "side_loss", "discriminator_loss")


class Judged:
    """What the discriminator is shown of a batch: the same condition with the true and with the made image.

    Args:
        sources: (B, S, H, W), with the masks.
        wanted: (B, T), boolean.
        num_masks: 0 for a network with one target.
    """

    def __init__(self, sources: Tensor, wanted: Tensor, num_masks: int) -> None:
        self.sources, self.wanted = sources, wanted
        self.drawn = torch.multinomial(wanted.float(), 1)[:, 0] if num_masks else None

    def with_image(self, images: Tensor) -> Tensor:
        """(B, T, H, W) -> the channels for the discriminator."""
        if self.drawn is None:
            return torch.cat([self.sources, images], dim=1)
        image = images[torch.arange(len(images)), self.drawn].unsqueeze(1)
        which = F.one_hot(self.drawn, images.shape[1]).to(images)[:, :, None, None].expand_as(images)
        return torch.cat([self.sources, image, which], dim=1)


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
        keep_norm_statistics: normalise by the averages that the generator came with, as in evaluation. For
            fine-tuning: statistics of small batches of several kinds of images fit none of them.
        num_masks: so many of the sources' channels, the last, are masks (any-to-any). Then the generator
            learns the targets that are there and not given. The discriminator judges one of them, drawn at
            random; it sees [sources, masks, image, one constant channel a contrast, 1 for that of the image].
        side_loss: of a method that makes more than the target: called with its side outputs, the sources and the
            target. The generator is then called with `side_outputs=True` (`baselines/`), never at another grid.
        feature_matching_weight: of the difference of the discriminator's feature maps; part of the side loss.
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
        keep_norm_statistics: bool = False,
        num_masks: int = 0,
        side_loss: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        feature_matching_weight: float = 0.0,
        **arguments: Any,
    ) -> None:
        check_switch("amp", arguments.get("amp", False))
        super().__init__(**arguments)
        device = self.state.device
        if self.amp and device.type == "cpu" and not has_bfloat16(device):
            warnings.warn(
                "amp: this processor has no bfloat16 and imitates it, many times slower: --amp False", stacklevel=2
            )
        self.discriminator = discriminator
        self.d_optimizer = d_optimizer
        self.d_scaler = torch.amp.GradScaler("cuda") if self.amp and torch.cuda.is_available() else None
        self.adversarial_loss = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
        self.pixel_weight = pixel_weight
        self.adversarial_weight = adversarial_weight
        self.query_grid_share = query_grid_share
        self.keep_norm_statistics = check_switch("keep_norm_statistics", keep_norm_statistics)
        self.num_masks = num_masks
        if side_loss is not None and query_grid_share:
            raise ValueError("side outputs are made at the input's own pixels: set query_grid_share to 0")
        if feature_matching_weight and not adversarial_weight:
            raise ValueError("feature matching needs a discriminator that learns: set adversarial_weight above 0")
        self.side_loss, self.feature_matching_weight = side_loss, feature_matching_weight
        self.with_sides = {} if side_loss is None else {"side_outputs": True}

    def _iteration(self, engine: Any, batchdata: dict[str, Tensor]) -> dict[str, Any]:
        sources, target = engine.prepare_batch(batchdata, engine.state.device, engine.non_blocking, **engine.to_kwargs)
        sources, target = sources.as_subclass(Tensor), target.as_subclass(Tensor)
        self.network.train()
        if self.keep_norm_statistics:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        self.discriminator.train()

        finer = target.shape[2] // sources.shape[2]  # a simulated label: places to a pixel, along each axis
        wanted = wanted_targets(sources, target, self.num_masks)
        with self._autocast():
            if torch.rand(()).item() < self.query_grid_share:
                grid = random_query_grid(sources.shape[2], sources.shape[3], sources.device)
                fake = self.inferer(sources, self.network, coordinates=grid)
                target = sample_plane(target, *(finer * place + (finer - 1) / 2 for place in grid))
                sources = sample_plane(sources, *grid)
            else:
                fake = self.inferer(sources, self.network, **self.with_sides)
                target = F.avg_pool2d(target, finer)
        fake, sides = fake[:, : target.shape[1]], fake[:, target.shape[1] :]
        judged = Judged(sources, wanted, self.num_masks)
        output: dict[str, Any] = {Keys.IMAGE: sources, Keys.LABEL: target, Keys.PRED: fake}
        output["discriminator_loss"] = self._train_discriminator(judged, target, fake.detach())
        output |= self._train_generator(judged, target, fake, sides)
        engine.state.output = output
        self.fire_event(IterationEvents.MODEL_COMPLETED)
        return engine.state.output

    def _train_discriminator(self, judged: Judged, target: Tensor, fake: Tensor) -> Tensor:
        if self.adversarial_weight == 0:
            return torch.zeros(())
        with self._autocast():
            *_, of_real = self.discriminator(
                judged.with_image(target)
            )  # MONAI returns all feature maps, the logits last
            *_, of_fake = self.discriminator(judged.with_image(fake))
            loss = (self._verdict_loss(of_real, is_real=True) + self._verdict_loss(of_fake, is_real=False)) / 2
        self._step(loss, self.d_optimizer, self.d_scaler)
        return loss.detach()

    def _train_generator(self, judged: Judged, target: Tensor, fake: Tensor, sides: Tensor) -> dict[str, Tensor]:
        self.fire_event(IterationEvents.FORWARD_COMPLETED)
        with self._autocast():
            pixel = self.pixel_weight * self.loss_function(fake[judged.wanted], target[judged.wanted])
            adversarial, side = torch.zeros_like(pixel), torch.zeros_like(pixel)
            if self.side_loss is not None:
                side = self.side_loss(sides, judged.sources, target)
            if self.adversarial_weight:
                # The bare module with frozen weights: the generator's step must not touch the discriminator,
                # nor wake the gradient reducer of its DistributedDataParallel wrapper.
                judge = getattr(self.discriminator, "module", self.discriminator).requires_grad_(False)
                *features, verdict = judge(judged.with_image(fake))
                adversarial = self.adversarial_weight * self._verdict_loss(verdict, is_real=True)
                if self.feature_matching_weight:
                    *real_features, _ = judge(judged.with_image(target))
                    side = side + self.feature_matching_weight * feature_matching(real_features, features)
                judge.requires_grad_(True)
            loss = pixel + adversarial + side
        self.fire_event(IterationEvents.LOSS_COMPLETED)
        self._step(loss, self.optimizer, self.scaler)
        self.fire_event(IterationEvents.BACKWARD_COMPLETED)
        parts = {"pixel_loss": pixel, "adversarial_loss": adversarial, "side_loss": side, Keys.LOSS: loss}
        return {name: part.detach() for name, part in parts.items()}

    def _verdict_loss(self, verdict: Tensor, *, is_real: bool) -> Tensor:
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
