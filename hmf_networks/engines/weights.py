"""`model.pt`, the best generator so far, and `model.json` beside it: what it is for, and its hash.

Both are written whole or not at all. Who loads the weights is held to task and hash, and gets tensors only.
"""

import hashlib
import io
import json
import logging
import pickle
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from hmf_networks.atomic import write_whole
from hmf_networks.hashing import file_hash
from hmf_networks.naming import check_switch, check_weights
from ignite.engine import Engine, Events
from monai.inferers import Inferer
from torch import Tensor

logger = logging.getLogger(__name__)

MODEL_FILES = ("model.pt", "model.json")


class BestModel:
    """Handler of the evaluator: write the network's weights whenever the key metric is the best so far.

    Args:
        path: "<ckpt_dir>/model.pt"; what the weights are for goes into model.json beside it.
        network: whose weights.
        task: plain data, e.g. sources, target and pixel_mm; who loads the weights is held to it.
        hints: more plain data, for whoever builds a workflow around the weights.
        half: matrices and kernels in half precision, for half the bytes; norms, biases, statistics are kept.

    model.json also holds the network's arguments and the weights' SHA-256.
    """

    def __init__(
        self,
        path: str,
        network: torch.nn.Module,
        *,
        task: Mapping[str, Any] | None = None,
        hints: Mapping[str, Any] | None = None,
        half: bool = False,
    ) -> None:
        self.path = Path(path)
        self.network = getattr(network, "module", network)
        self.task = task or {}
        self.hints = hints or {}
        self.half = check_switch("half", half)

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.COMPLETED, self.save_best)

    def save_best(self, engine: Engine) -> None:
        if engine.state.best_metric_epoch == engine.state.epoch:
            self.save()
            logger.info("best so far, %.4f: %s", engine.state.best_metric, self.path)

    def save(self) -> None:
        if not is_first_process():
            return
        state = self.network.state_dict()
        weights = to_bytes({name: _halved(value) for name, value in state.items()} if self.half else state)
        hashes = [hashlib.sha256(weights).hexdigest()]
        if self.path.exists():  # killed between the two files, the weights of before are still good
            hashes.append(file_hash(self.path))
        about = {
            **self.task,
            **self.hints,
            "network": getattr(self.network, "arguments", None),
            "network_class": type(self.network).__name__,
            "sha256": hashes,
        }
        write_whole(_task_path(self.path), json.dumps(about, indent=2) + "\n")
        write_whole(self.path, weights)


def _halved(value: Tensor) -> Tensor:
    return value.half() if value.is_floating_point() and value.dim() > 1 else value


class SaveUnvalidated:
    """Handler of the trainer: at its end, save the last weights where no validation chose any."""

    def __init__(self, evaluator: Engine, best_model: BestModel) -> None:
        self.evaluator = evaluator
        self.best_model = best_model
        self.has_trained = False  # a finished run that is started again keeps what was measured of its weights

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.note)
        engine.add_event_handler(Events.COMPLETED, self)

    def note(self, _engine: Engine) -> None:
        self.has_trained = True

    def __call__(self, _engine: Engine) -> None:
        if self.has_trained and self.evaluator.state.best_metric_epoch < 1:
            self.best_model.save()
            logger.warning("no subject to validate on: %s is of the last epoch", self.best_model.path)


class LoadWeights:
    """Handler of an evaluator: `load_weights` before the first step; a config can be read without weights.

    Their hash becomes `engine.state.weights_hash`.
    """

    def __init__(self, network: torch.nn.Module, path: str, *, task: Mapping[str, Any] | None = None) -> None:
        self.network = getattr(network, "module", network)
        self.path = path
        self.task = task

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        engine.state.weights_hash = load_weights(self.network, self.path, self.task)


def load_weights(network: torch.nn.Module, path: str, task: Mapping[str, Any] | None = None) -> str:
    """Give the network the weights of `path`, tensors only, nothing is unpickled; returns their SHA-256.

    Raises:
        FileNotFoundError, ValueError: no such file; no plain tensors in it, weights of another network, or
            of another task than `task` or other bytes than the model.json beside them tells of.
    """
    check_weights(path)
    about = what_for(path)
    content = Path(path).read_bytes()  # once: what is loaded is what was judged
    content_hash = hashlib.sha256(content).hexdigest()
    _check_hash(path, content_hash, about)
    _check_task(path, about, task or {})
    try:
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise ValueError(f"ckpt_path {path} is no file of plain tensors, or a broken one") from error
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"ckpt_path {path} holds more than plain tensors; give the weights of a network alone")
    try:
        network.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        reason = textwrap.shorten(str(error).splitlines()[-1], 200)
        raise ValueError(
            f"ckpt_path {path} holds weights of another network than network_def ({reason}); "
            "name the config file of its training, or of its network"
        ) from error
    return content_hash


def what_for(path: str | Path) -> dict[str, Any]:
    """What model.json says of the weights beside it: task, network, hash. Empty where there is none.

    Raises:
        ValueError: it cannot be read.
    """
    task_path = _task_path(Path(path))
    if not task_path.is_file():
        return {}
    try:
        content = json.loads(task_path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{task_path} cannot be read ({error}); fetch it again with its weights") from error
    if not isinstance(content, dict):
        raise ValueError(f"{task_path} does not tell what the weights beside it are for; fetch it again")
    return content


def measured_of(path: str | Path, what: str) -> Any:
    """What was measured with these weights, "calibration" or "familiar"; None where model.json has none."""
    return what_for(path).get(what)


def add_measured(path: str | Path, **measured: Any) -> None:
    """Write it into the model.json beside the weights, whole or not at all.

    Raises:
        ValueError: there is none, or it is of other weights.
    """
    about = what_for(path)
    if file_hash(path) not in about.get("sha256", []):
        raise ValueError(f"{_task_path(Path(path))} does not tell of {path}; fetch both again")
    write_whole(_task_path(Path(path)), json.dumps({**about, **measured}, indent=2) + "\n")


def _check_hash(path: str | Path, content_hash: str, about: Mapping[str, Any]) -> None:
    if "sha256" not in about:
        logger.warning("%s: no hash is pinned beside it, so nobody can tell whether it was changed", path)
    elif content_hash not in about["sha256"]:
        raise ValueError(
            f"ckpt_path {path} is not the file that {_task_path(Path(path)).name} tells of: "
            "its SHA-256 differs; fetch both again"
        )


def _check_task(path: str | Path, about: Mapping[str, Any], task: Mapping[str, Any]) -> None:
    """Weights do not show what they were trained for, and a wrong contrast may look like a right one."""
    for key, wanted in task.items():
        if key in about and about[key] != wanted:
            raise ValueError(
                f"ckpt_path {path} was trained with {key} {about[key]}, not {wanted}: "
                f"name the config files of the training, or set {key} ({_task_path(Path(path)).name} says so)"
            )


def _task_path(path: Path) -> Path:
    return path.with_suffix(".json")


def trained_network(
    network: torch.nn.Module, path: str, inferer: Inferer, device: torch.device, task: Mapping[str, Any] | None = None
) -> Callable[[Tensor], Tensor] | None:
    """Volumes through a network with its weights, ready to be called; None, logged, without weights."""
    if not Path(path).is_file():
        logger.info("no weights %s: that method is left out", path)
        return None
    load_weights(network, path, task)
    network = network.to(device).eval()
    return lambda image: inferer(image.to(device), network)


def to_bytes(content: Mapping[str, Any]) -> bytes:
    """What torch would write to a file."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    return buffer.getvalue()


def is_first_process() -> bool:
    return not torch.distributed.is_initialized() or torch.distributed.get_rank() == 0
