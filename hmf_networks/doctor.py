"""`hmf doctor`: what is installed here, and whether it works together, from packages to one plane.

It must be able to say that torch or MONAI is missing, so nothing here needs them before that is known.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

LEAST = {"monai": (1, 6, 1), "torch": (2, 6)}  # what pyproject.toml asks for, where it matters most
OPTIONAL = {
    "mamba-ssm": "cuda",
    "itk": "prepare",
    "onnxruntime": "export",
    "openvino": "export",
    "nilearn": "demo",
}  # package -> extra
SIZE = (160, 192)
BYTES_NEEDED = 2 * 2**30
MISSING = "not installed"
USUAL_STATES = 16  # N of the paper; the backend is the same for all that networks here have


class Check(NamedTuple):
    """What was looked at, what there is, and the cure where that is not well."""

    what: str
    found: str
    cure: str = ""

    def __str__(self) -> str:
        return f"{self.what:<15} {self.found}" + (f"\n{'':<15} -> {self.cure}" if self.cure else "")


def examine(bundle: Path) -> Iterator[Check]:
    """Everything, in the order in which one would look; packages alone where one of them is missing."""
    yield Check("python", f"{platform.python_version()}, {platform.system()} on {platform.machine()}")
    packages = list(_packages(bundle))
    yield from packages
    if any(check.found == MISSING for check in packages):
        return

    from hmf_networks.engines.device import choose_device

    device = choose_device()
    yield _device(device)
    yield _memory(device)
    yield _scan(device)
    yield from _weights(bundle, device)


def _packages(bundle: Path) -> Iterator[Check]:
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    tested = {"torch": metadata["pytorch_version"], "monai": metadata["monai_version"]}
    tested |= {"numpy": metadata["numpy_version"], **metadata["required_packages_version"]}
    for name, version in tested.items():
        here = _version(name)
        if here is None:
            yield Check(name, MISSING, f"pip install {name}=={version}")
            continue
        least = LEAST.get(name, ())
        numbers = tuple(int(part) for part in here.split("+")[0].split(".")[: len(least)] if part.isdigit())
        cure = f"pip install {name}=={version}" if numbers < least else ""
        yield Check(name, here if here.startswith(version) else f"{here} (tested with {version})", cure)
    for name, extra in OPTIONAL.items():
        yield Check(name, _version(name) or f"not installed; only for the extra [{extra}]")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device(device: torch.device) -> Check:
    import torch
    from hmf_networks.engines.precision import has_bfloat16

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    numbers = "bfloat16" if has_bfloat16(device) else "float32"
    return Check("device", f"{device}, {name}, {torch.get_num_threads()} of {os.cpu_count()} cores, {numbers}")


def _memory(device: torch.device) -> Check:
    from hmf_networks.engines.memory import free_bytes

    free = free_bytes(device)
    if free is None:
        return Check("memory", "not known")
    cure = "close other programs: a brain takes two" if free < BYTES_NEEDED else ""
    return Check("memory", f"{free / 2**30:.1f} GiB free", cure)


def _scan(device: torch.device) -> Check:
    import torch
    from hmf_networks.ops.selective_scan import available_backends, resolve_backend

    chosen = resolve_backend(torch.empty(0, device=device), USUAL_STATES, "auto")
    cure = "slow: install a C++ compiler (g++ or clang++), then try again" if chosen == "chunked" else ""
    return Check("scan", f"{chosen}, of {', '.join(available_backends())}", cure if device.type == "cpu" else "")


def _weights(bundle: Path, device: torch.device) -> Iterator[Check]:
    import torch
    from hmf_networks.engines.needed import network_with
    from hmf_networks.hashing import file_hash

    path = bundle / "models" / "model.pt"
    try:
        network, _ = network_with(bundle, path)
    except (ValueError, OSError) as error:
        yield Check("weights", str(error), "fetch them again, with the model.json beside them")
        return
    yield Check("weights", f"{path}, sha256 {file_hash(path)[:16]}..., as its model.json tells")
    arguments: Any = network.arguments
    plane = torch.full((1, arguments["in_channels"], *SIZE), -1.0)
    plane[:, 0, 40:-40, 40:-40] = torch.linspace(-0.9, 0.9, SIZE[1] - 80)
    start = time.perf_counter()
    with torch.no_grad():
        answer = network.to(device)(plane.to(device)).cpu()
    is_well = bool(torch.isfinite(answer).all()) and float(answer.std()) > 0
    seconds = time.perf_counter() - start
    cure = "" if is_well else "the network gives nothing: set HMF_SCAN_BACKEND=chunked, and tell us"
    yield Check("one plane", f"{SIZE[0]} x {SIZE[1]} in {seconds:.2f} s, the first", cure)
