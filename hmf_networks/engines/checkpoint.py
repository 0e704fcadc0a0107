"""`last.pt`, all of a training run, from which it goes on.

MONAI's CheckpointSaver writes in place, so a killed run leaves a broken file, and forgets the best metric on
resume (docs/decisions.md#checkpoints). This file is written whole or not at all and holds tensors and plain
numbers only.
"""

import itertools
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from hmf_networks.atomic import write_whole
from hmf_networks.engines.weights import MODEL_FILES, is_first_process, to_bytes
from hmf_networks.naming import check_switch
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd
from torch.optim.lr_scheduler import LambdaLR

EPOCH_STRIDE = 10_007  # apart from the seeds of other processes

logger = logging.getLogger(__name__)


class TrainingCheckpoint:
    """Handler of the trainer: save everything after each epoch, and on request go on from there.

    Args:
        path: e.g. "<ckpt_dir>/last.pt".
        objects: name -> network, discriminator, optimiser, scheduler, ...: whatever has a state_dict.
        evaluator: its best metric is kept, so that a worse epoch after a resume does not pass for the best.
        resume: load `path` before the first step. Without it, what an earlier run left is set aside.
    """

    def __init__(
        self, path: str, objects: Mapping[str, Any], *, evaluator: Engine | None = None, resume: bool = False
    ) -> None:
        self.path = Path(path)
        self.objects = {name: getattr(thing, "module", thing) for name, thing in objects.items()}
        self.evaluator = evaluator
        self.resume = check_switch("resume", resume)
        self.is_ours = False  # what lies at `path` was written by this run

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.load if self.resume else self.set_aside)
        engine.add_event_handler(Events.EPOCH_STARTED, self.draw_anew)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def draw_anew(self, engine: Engine) -> None:
        """What is random in the data follows from seed and epoch: so it is the same after a stop as without one."""
        drawn_from = torch.initial_seed() + EPOCH_STRIDE * (engine.state.epoch - 1)
        set_rnd(getattr(engine.state.dataloader, "dataset", None), drawn_from)

    def set_aside(self, _engine: Engine) -> None:
        """Move the files of an earlier run to `earlier-1`, `earlier-2`, ...: nothing is overwritten."""
        files = [self.path.with_name(name) for name in (self.path.name, *MODEL_FILES)]
        files = [path for path in files if path.exists()]
        if self.is_ours or not files or not is_first_process():
            return
        folder = next(path for n in itertools.count(1) if not (path := self.path.with_name(f"earlier-{n}")).exists())
        folder.mkdir()
        for path in files:
            path.rename(folder / path.name)
        logger.warning("%s held an earlier run: moved to %s", self.path.parent, folder)

    def save(self, engine: Engine) -> None:
        if not is_first_process():
            return
        content = {name: thing.state_dict() for name, thing in self.objects.items()}
        progress = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        if self.evaluator is not None:
            progress["best_metric"] = float(self.evaluator.state.best_metric)
            progress["best_metric_epoch"] = int(self.evaluator.state.best_metric_epoch)
        content |= {"progress": progress, "random_state": torch.get_rng_state()}
        write_whole(self.path, to_bytes(content))
        self.is_ours = True

    def load(self, engine: Engine) -> None:
        if not self.path.is_file():
            raise FileNotFoundError(
                f"resume: no checkpoint {self.path}; train first, or drop resume or correct ckpt_dir"
            )
        content = torch.load(self.path, map_location="cpu", weights_only=True)
        for name, thing in self.objects.items():
            if name not in content:
                raise KeyError(f"resume: {self.path} holds no {name!r}, only {', '.join(content)}")
            thing.load_state_dict(content[name])
        for thing in self.objects.values():  # the rate of the next epoch, should the schedule have changed
            if isinstance(thing, LambdaLR):
                factors = (factor(thing.last_epoch) for factor in thing.lr_lambdas)
                for group, base, factor in zip(thing.optimizer.param_groups, thing.base_lrs, factors, strict=True):
                    group["lr"] = base * factor
        progress = content["progress"]
        engine.state.epoch, engine.state.iteration = progress["epoch"], progress["iteration"]
        if engine.state.epoch_length is not None:  # other than before, with another batch or more processes
            engine.state.iteration = engine.state.epoch * engine.state.epoch_length
        if self.evaluator is not None and "best_metric" in progress:
            self.evaluator.state.best_metric = progress["best_metric"]
            self.evaluator.state.best_metric_epoch = progress["best_metric_epoch"]
        if is_first_process():  # the state is its own; the others go on with draws of theirs
            torch.set_rng_state(content["random_state"])
        logger.info("resumed from %s after epoch %d", self.path, engine.state.epoch)
        if engine.state.max_epochs is not None and engine.state.epoch >= engine.state.max_epochs:
            logger.warning("all %d epochs are done; raise flat_epochs or decay_epochs", engine.state.max_epochs)
        self.is_ours = True
