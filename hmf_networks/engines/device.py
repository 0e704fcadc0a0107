"""Where the network computes."""

import os

import torch


def choose_device(name: str = "auto") -> torch.device:
    """A device by its name; "auto" is CUDA where there is some, and for each process of torchrun its own.

    Apple's "mps" is taken on request only: not every operation of the network has been tried there.

    Raises:
        ValueError: a name that torch does not know, or a device that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device {name!r} is not known; take auto, cpu, cuda or mps") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device {name!r}: torch finds no CUDA here; take --device auto or cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(f"device {name!r}: torch finds no MPS here; take --device auto or cpu")
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return device
