"""Two files of a training run: `last.pt`, from which it goes on, and `model.pt`, the best generator so far.

MONAI's CheckpointSaver writes in place, so a killed run leaves a broken file, and forgets the best metric on
resume (docs/decisions.md#checkpoints). Both files are written whole or not at all and hold tensors and plain
numbers only.
"""

import io
import logging
import pickle
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from ignite.engine import Engine, Events
from monai.inferers import Inferer
from torch import Tensor

from hmf_networks.atomic import write_whole
from hmf_networks.naming import check_switch

logger = logging.getLogger(__name__)


class TrainingCheckpoint:
    """Handler of the trainer: save everything after each epoch, and on request go on from there.

    Args:
        path: e.g. "<ckpt_dir>/last.pt".
        objects: name -> network, discriminator, optimiser, scheduler, ...: whatever has a state_dict.
        evaluator: its best metric is kept, so that a worse epoch after a resume does not pass for the best.
        resume: load `path` before the first step.
    """

    def __init__(
        self, path: str, objects: Mapping[str, Any], *, evaluator: Engine | None = None, resume: bool = False
    ) -> None:
        self.path = Path(path)
        self.objects = {name: getattr(thing, "module", thing) for name, thing in objects.items()}
        self.evaluator = evaluator
        self.resume = check_switch("resume", resume)

    def attach(self, engine: Engine) -> None:
        if self.resume:
            engine.add_event_handler(Events.STARTED, self.load)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.save)

    def save(self, engine: Engine) -> None:
        if not _is_first_process():
            return
        content = {name: thing.state_dict() for name, thing in self.objects.items()}
        progress = {"epoch": engine.state.epoch, "iteration": engine.state.iteration}
        if self.evaluator is not None:
            progress["best_metric"] = float(self.evaluator.state.best_metric)
            progress["best_metric_epoch"] = int(self.evaluator.state.best_metric_epoch)
        content |= {"progress": progress, "random_state": torch.get_rng_state()}
        write_whole(self.path, _to_bytes(content))

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
        progress = content["progress"]
        engine.state.epoch, engine.state.iteration = progress["epoch"], progress["iteration"]
        if self.evaluator is not None and "best_metric" in progress:
            self.evaluator.state.best_metric = progress["best_metric"]
            self.evaluator.state.best_metric_epoch = progress["best_metric_epoch"]
        if _is_first_process():  # the state is its own; the others go on with draws of theirs
            torch.set_rng_state(content["random_state"])
        logger.info("resumed from %s after epoch %d", self.path, engine.state.epoch)


class BestModel:
    """Handler of the evaluator: write the network's weights whenever the key metric is the best so far."""

    def __init__(self, path: str, network: torch.nn.Module) -> None:
        self.path = Path(path)
        self.network = getattr(network, "module", network)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self.save)

    def save(self, engine: Engine) -> None:
        if _is_first_process() and engine.state.best_metric_epoch == engine.state.epoch:
            write_whole(self.path, _to_bytes(self.network.state_dict()))
            logger.info("best so far, %.4f: %s", engine.state.best_metric, self.path)


class LoadWeights:
    """Handler of an evaluator: `load_weights` before the first step; a config can be read without weights."""

    def __init__(self, network: torch.nn.Module, path: str) -> None:
        self.network = getattr(network, "module", network)
        self.path = path

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda: load_weights(self.network, self.path))


def load_weights(network: torch.nn.Module, path: str) -> torch.nn.Module:
    """The network with the weights of `path`: tensors only, nothing is unpickled.

    Raises:
        FileNotFoundError, ValueError: no such file; no plain tensors in it, or weights of another network.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"ckpt_path {path}: no weights there; train first, or point ckpt_path to a model.pt"
        )
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(f"ckpt_path {path} is no file of plain tensors, or a broken one") from error
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        reason = textwrap.shorten(str(error).splitlines()[-1], 200)
        raise ValueError(
            f"ckpt_path {path} holds weights of another network than network_def: {reason}"
        ) from error
    return network


def trained_network(
    network: torch.nn.Module, path: str, inferer: Inferer, device: torch.device
) -> Callable[[Tensor], Tensor] | None:
    """Volumes through a network with its weights, ready to be called; None, logged, without weights."""
    if not Path(path).is_file():
        logger.info("no weights %s: that method is left out", path)
        return None
    network = load_weights(network, path).to(device).eval()
    return lambda image: inferer(image.to(device), network)


def _to_bytes(content: Mapping[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def _is_first_process() -> bool:
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
