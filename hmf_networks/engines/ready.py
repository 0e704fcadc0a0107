"""A network made ready for inference: norms folded into convolutions, channels last, compiled on request."""

import copy
import weakref
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.parametrize import is_parametrized


def fold_batch_norms(network: nn.Module) -> nn.Module:
    """A copy for evaluation that computes the same: norms after convolutions in a Sequential go into them."""
    folded = copy.deepcopy(network).eval().requires_grad_(False)
    for block in folded.modules():
        if not isinstance(block, nn.Sequential):
            continue
        for number, (first, second) in enumerate(pairwise(block)):
            if _can_be_folded(first, second):
                transposed = isinstance(first, nn.ConvTranspose2d)
                block[number] = fuse_conv_bn_eval(first, second, transpose=transposed)  # type: ignore[arg-type, type-var]
                block[number + 1] = nn.Identity()
    return folded


def _can_be_folded(first: nn.Module, second: nn.Module) -> bool:
    """Not a norm by the batch, not weights that are computed anew at each call, nothing that looks on."""
    if not isinstance(first, (nn.Conv2d, nn.ConvTranspose2d)) or not isinstance(second, nn.BatchNorm2d):
        return False
    return second.running_mean is not None and not any(
        module._forward_hooks or module._forward_pre_hooks or is_parametrized(module) for module in (first, second)
    )


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


class Kept(NamedTuple):
    """A network made ready, of which one, and in which state that was."""

    ready: nn.Module
    of: weakref.ref[nn.Module]
    tensors: list[tuple[weakref.ref[Tensor], int, int]]  # with their place and their version
    settings: list[float]

    def is_of(self, network: nn.Module) -> bool:
        """The same network in the same state."""
        tensors = _tensors(network)
        return (
            self.of() is network
            and len(tensors) == len(self.tensors)
            and all(
                kept() is x and place == x.data_ptr() and version == x._version
                for x, (kept, place, version) in zip(tensors, self.tensors, strict=True)
            )
            and self.settings == _settings(network)
        )


class Ready:
    """Makes the networks it is called with ready, once for every state of their weights.

    What cannot be made so is handed on as it is: a function, a scripted network, a network with a part in
    training, tensors made in inference mode (they do not tell when they change). Not seen is what torch does
    not count: writing into `x.data`, and a hook or an attribute set after the first call.

    Args:
        compile: also compile: minutes at the first plane, for many subjects.
    """

    def __init__(self, *, compile: bool = False) -> None:
        self.compile = compile
        self._kept: Kept | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}  # a copy makes its own

    def __call__(self, network: Callable[..., Tensor]) -> Callable[..., Tensor]:
        if isinstance(network, DistributedDataParallel):
            network = network.module
        if not isinstance(network, nn.Module) or isinstance(network, torch.jit.ScriptModule):
            return network
        if torch.is_grad_enabled() or any(module.training for module in network.modules()):
            return network
        has_norms = any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
        if not (has_norms or self.compile) or any(x.is_inference() for x in _tensors(network)):
            return network
        if self._kept is None or not self._kept.is_of(network):
            self._kept = None  # two at once would take the memory of three
            self._kept = self._made_ready(network)
        return self._kept.ready

    def _made_ready(self, network: nn.Module) -> Kept:
        tensors, settings = _tensors(network), _settings(network)
        state = [(weakref.ref(x), x.data_ptr(), x._version) for x in tensors]
        ready = fold_batch_norms(network)
        # so are the weights of inference, MONAI Label's too: the same numbers
        ready = ready.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.compile:
            ready = compiled(ready, tensors[0].device if tensors else torch.device("cpu"))
        return Kept(ready, weakref.ref(network), state, settings)


def _tensors(network: nn.Module) -> list[Tensor]:
    return [*network.parameters(), *network.buffers()]


def _settings(network: nn.Module) -> list[float]:
    return [module.eps for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
