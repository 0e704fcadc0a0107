"""A network made ready for inference: norms folded into the convolutions before them, compiled on request."""

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
    """A copy for evaluation that computes the same: norms after convolutions in a Sequential go into them."""
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


def compiled(network: nn.Module, device: torch.device) -> nn.Module:
    """Compiled in place by torch; on CUDA with graphs, which replay a plane's kernels in one launch.

    Of a network with `features` only these: what decodes them reads coordinates.
    """
    options = {"mode": "reduce-overhead"} if device.type == "cuda" else {}
    if hasattr(network, "features"):
        network.features = torch.compile(network.features, **options)  # type: ignore[call-overload]
    else:
        network.compile(**options)
    return network


class Ready:
    """Makes the networks it is called with ready, once for every state of their weights.

    What cannot be made so is handed on as it is: a function, a scripted network, a network in training.

    Args:
        compile: also compile: minutes at the first plane, for many subjects.
    """

    def __init__(self, *, compile: bool = False) -> None:
        self.compile = compile
        self._of: Callable[[], Any] = lambda: None
        self._state: list[tuple[int, int]] = []
        self._ready: nn.Module | None = None

    def __call__(self, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if isinstance(network, DistributedDataParallel):
            network = network.module
        if not isinstance(network, nn.Module) or isinstance(network, torch.jit.ScriptModule):
            return network
        has_norms = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
        if network.training or torch.is_grad_enabled() or not (has_norms or self.compile):
            return network
        tensors = list(network.state_dict(keep_vars=True).values())
        state = [(x.data_ptr(), x._version) for x in tensors]
        if self._ready is None or self._of() is not network or state != self._state:
            self._of, self._state = weakref.ref(network), state
            self._ready = fold_batch_norms(network)
            if self.compile:
                self._ready = compiled(self._ready, tensors[0].device if tensors else torch.device("cpu"))
        return self._ready
