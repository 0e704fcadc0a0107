"""How sure is the network? A small ensemble of one: the volume mirrored, and each source left out in turn.

Where its members differ, the synthesis hangs on chance or on a single scan. What is written stays the
network's own answer: the members only tell their spread.

Shapes: volumes (1, S, X, Y, Z) in [-1, 1], X to the right.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from hmf_networks.naming import check_switch
from hmf_networks.ops.availability import available
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.engines import IterationEvents
from monai.inferers import Inferer
from monai.networks import eval_mode
from torch import Tensor

Synthesis = Callable[[Tensor], Tensor]
LEFT_RIGHT = 2


def members(image: Tensor, synthesise: Synthesis, *, drop: bool) -> Iterator[Tensor]:
    """Further answers to the same question.

    Args:
        image: (1, S, X, Y, Z), missing sources at -1.
        synthesise: the network, volume to volume.
        drop: it knows missing sources; where two or more are given, each is left out in turn.
    """
    yield synthesise(image.flip(LEFT_RIGHT)).flip(LEFT_RIGHT)
    given = torch.nonzero(available(image.as_subclass(Tensor))[0]).flatten().tolist()
    for source in given if drop and len(given) > 1 else []:
        fewer = image.clone()
        fewer[:, source] = -1
        yield synthesise(fewer)


def ensemble_spread(answer: Tensor, others: Iterator[Tensor]) -> Tensor:
    """Standard deviation over the answer and the others, of every voxel; no two are kept at a time."""
    mean, squares, count = answer.as_subclass(Tensor).clamp(-1, 1), torch.zeros_like(answer), 1
    squares = squares.as_subclass(Tensor)
    for other in others:
        count += 1
        clipped = other.as_subclass(Tensor).clamp(-1, 1)
        step = clipped - mean
        mean = mean + step / count
        squares += step * (clipped - mean)
    return (squares / count).clamp(min=0).sqrt()


class EnsembleSpread:
    """Handler of an evaluator: puts `spread` beside its `pred`, of the same shape and units.

    Args:
        inferer: as the evaluator's.
        network: as the evaluator's.
        drop: also leave sources out; only for networks that were trained with fewer.
        enabled: without it nothing is done.
    """

    def __init__(self, inferer: Inferer, network: torch.nn.Module, *, drop: bool, enabled: bool = True) -> None:
        self.inferer, self.network = inferer, network
        self.drop, self.enabled = check_switch("drop", drop), check_switch("uncertainty", enabled)

    def attach(self, engine: Engine) -> None:
        if self.enabled:
            engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        output: dict[str, Any] = engine.state.output
        image, answer = output["image"], output["pred"]
        with eval_mode(self.network):
            others = members(image, lambda volume: self.inferer(volume, self.network), drop=self.drop)
            spread = ensemble_spread(answer, others)
        is_placed = isinstance(answer, MetaTensor)  # Invertd passes over plain tensors
        output["spread"] = MetaTensor(spread).copy_meta_from(answer) if is_placed else spread
