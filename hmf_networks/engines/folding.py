"""A network made ready for inference: batch normalisation folded into the convolutions before it."""

import copy
import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """A copy for evaluation that computes the same: a norm after a convolution goes into it."""
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    for block in folded.modules():
        if not isinstance(block, nn.Sequential):
            continue
        for number, (first, second) in enumerate(pairwise(block)):
            if isinstance(first, (nn.Conv2d, nn.ConvTranspose2d)) and isinstance(second, nn.BatchNorm2d):
                transposed = isinstance(first, nn.ConvTranspose2d)
                block[number] = fuse_conv_bn_eval(first, second, transpose=transposed)
                block[number + 1] = nn.Identity()
    return folded


class Folded:
    """Folds the networks it is called with, once for every state of their weights.

    What cannot be folded is handed on as it is: a function, a scripted network, a network in training.
    """

    def __init__(self) -> None:
        self._of: Callable[[], Any] = lambda: None
        self._state: list[tuple[int, int]] = []
        self._folded: nn.Module | None = None

    def __call__(self, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if isinstance(network, DistributedDataParallel):
            network = network.module
        is_foldable = isinstance(network, nn.Module) and not isinstance(network, torch.jit.ScriptModule)
        if not is_foldable or network.training or torch.is_grad_enabled():  # type: ignore[attr-defined]
            return network
        if not any(isinstance(module, nn.BatchNorm2d) for module in network.modules()):  # type: ignore[attr-defined]
            return network
        state = [(x.data_ptr(), x._version) for x in network.state_dict(keep_vars=True).values()]  # type: ignore[attr-defined]
        if self._folded is None or self._of() is not network or state != self._state:
            self._of, self._state = weakref.ref(network), state
            self._folded = fold_batch_norms(network)  # type: ignore[arg-type]
        return self._folded
