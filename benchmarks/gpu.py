"""Everything about speed that needs an NVIDIA GPU, in one run: fills "On a GPU" of docs/performance.md.

    python benchmarks/gpu.py --json gpu.json

Backends against the loop in value and gradients; scan times against two limits of the card; four directions
over a map with Triton's kernel, and with mamba-ssm and the copies it needs; a training step; a brain. What
fails is noted and the rest goes on; the file is written after every step.

mamba-ssm has no wheel on PyPI. From its sdist, with the CUDA toolkit of the installed torch: unpack it, put
a line `cc_flag = ["-gencode", "arch=compute_90,code=sm_90"]` (H100, H200) after those of its setup.py that
fill `cc_flag`, or nine architectures are compiled, and run `MAMBA_FORCE_BUILD=TRUE pip install
--no-build-isolation --no-deps .`
"""

import argparse
import functools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from hmf_networks.engines import SliceSynthesisInferer
from hmf_networks.nets import HMFMambaINR
from hmf_networks.ops.selective_scan import available_backends, selective_scan
from hmf_networks.ops.selective_scan_2d import selective_scan_2d
from hmf_networks.reports.cost import scans_left_out
from monai.networks.nets import PatchDiscriminator
from network import training_step
from scan import Size, errors, exact_results, inputs, value_and_gradients
from torch import Tensor

CUDA = torch.device("cuda")
SHORT, LONG = Size(batch=2, channels=40, length=200, states=16), Size()
MAP = {"batch": 16, "height": 64, "width": 64, "directions": 4, "channels": 512, "states": 16}
FASTEST = ("triton", "mamba_ssm", "chunked")
SLICES = 155


def milliseconds(work: Callable[[], object], *, repeats: int = 10) -> float:
    """The least of several runs, after three to warm up."""
    for _ in range(3):
        work()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end))
    return min(times)


def there(names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name in available_backends()]


def equality() -> dict[str, Any]:
    """Errors of the value and of the worst gradient, relative to the largest number."""
    torch.set_default_device(CUDA)
    try:
        exact = exact_results(SHORT)
        return {name: errors(SHORT, name, exact) for name in there(FASTEST)}
    finally:
        torch.set_default_device("cpu")


def memory() -> dict[str, float]:
    """Gigabytes a second of a copy, read and written."""
    source = torch.ones(2**28, device=CUDA)
    target = torch.empty_like(source)
    return {"GB/s": 2 * 4 * len(source) / milliseconds(lambda: target.copy_(source)) / 1e6}


def exponentials() -> dict[str, float]:
    """10^9 exponentials a second of a kernel that does little else: a chain of them for each number."""
    chain = 256
    code = f"template <typename T> T chain(T x) {{ for (int i = 0; i < {chain}; ++i) x = exp2f(-x); return x; }}"
    kernel = torch.cuda.jiterator._create_jit_fn(code)
    numbers = torch.rand(2**22, device=CUDA)
    return {"10^9 exp/s": chain * len(numbers) / milliseconds(lambda: kernel(numbers)) / 1e6}


def limits(found: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds that forward takes at least: its numbers moved once, an exponential for each state."""
    batch, channels, length, states = LONG
    needs = {"sequences": (4 * batch * length * (3 * channels + 2 * states), batch * length * channels * states)}
    batch, height, width, directions, channels, states = MAP.values()
    tokens = batch * height * width
    numbers = tokens * (2 * channels + directions * (channels + 2 * states))
    for dtype in (torch.float32, torch.bfloat16):
        needs[f"maps, {dtype}"] = dtype.itemsize * numbers, tokens * directions * channels * states
    return {
        name: {
            "memory ms": moved / found["memory"]["GB/s"] / 1e6,
            "exponentials ms": exponents / found["exponentials"]["10^9 exp/s"] / 1e6,
        }
        for name, (moved, exponents) in needs.items()
    }


def sequences() -> dict[str, Any]:
    """1 x 256 channels, 4096 steps, 16 states."""
    torch.set_default_device(CUDA)
    try:
        plain, leaves = inputs(LONG, gradient=False), inputs(LONG, gradient=True)
        towards = torch.randn_like(plain["u"])
        return {name: _times(name, plain, leaves, towards) for name in there(FASTEST)}
    finally:
        torch.set_default_device("cpu")


def _times(name: str, plain: dict[str, Tensor], leaves: dict[str, Tensor], towards: Tensor) -> dict[str, float]:
    return {
        "forward ms": milliseconds(lambda: selective_scan(**plain, delta_softplus=True, backend=name)),
        "both ms": milliseconds(lambda: value_and_gradients(leaves, towards, name)),
    }


def maps(name: str, dtype: torch.dtype) -> dict[str, float]:
    """Four directions at 64 x 64, batch 16, 512 channels; a backend with the copies that it needs."""
    torch.manual_seed(0)
    batch, height, width, directions, channels, states = MAP.values()
    of_tokens = (batch, height, width, directions)
    new = {"device": CUDA, "dtype": dtype}
    leaves = {
        "u": torch.randn(batch, height, width, channels, **new),
        "delta": torch.randn(*of_tokens, channels, **new),
        "A": -torch.arange(1.0, states + 1, device=CUDA).repeat(directions * channels, 1),
        "B": torch.randn(*of_tokens, states, **new),
        "C": torch.randn(*of_tokens, states, **new),
        "D": torch.ones(directions * channels, device=CUDA),
        "delta_bias": torch.randn(directions * channels, device=CUDA) - 4,
    }
    leaves = {name: x.requires_grad_() for name, x in leaves.items()}
    towards = torch.randn_like(leaves["u"])

    def forward() -> Tensor:
        return selective_scan_2d(**leaves, delta_softplus=True, backend=name)

    with torch.no_grad():
        alone = milliseconds(forward)
    both = milliseconds(lambda: torch.autograd.grad(forward(), list(leaves.values()), towards))
    return {"forward ms": alone, "both ms": both}


def training() -> dict[str, Any]:
    """A step of generator and discriminator at 16 x 256 x 256, autocast, with the scans and without."""
    network = HMFMambaINR(2, 2, 1).to(CUDA, memory_format=torch.channels_last).train()
    judge = PatchDiscriminator(spatial_dims=2, channels=64, in_channels=3, num_layers_d=3).to(CUDA)
    image = (torch.rand(16, 2, 256, 256, device=CUDA) * 2 - 1).to(memory_format=torch.channels_last)
    with torch.autocast("cuda", torch.bfloat16):
        whole = milliseconds(lambda: training_step(network, judge, network, image))
        with scans_left_out():
            without = milliseconds(lambda: training_step(network, judge, network, image))
    return {"images/s": 16e3 / whole, "share of the scans": 1 - without / whole}


def brain() -> dict[str, Any]:
    """155 slices of 240 x 240 through the inferer."""
    network = HMFMambaINR(2, 2, 1).to(CUDA, memory_format=torch.channels_last).eval()
    volume = torch.rand(1, 2, 240, 240, SLICES, device=CUDA) * 2 - 1
    rows = {}
    for name, options in {"as it is": {}, "compiled": {"compile": True}}.items():
        inferer = SliceSynthesisInferer(precision="auto", **options)
        seconds = []
        with torch.no_grad():
            for _ in range(3):
                start = time.perf_counter()
                inferer(volume, network)
                torch.cuda.synchronize()
                seconds.append(time.perf_counter() - start)
        rows[name] = {"first s": seconds[0], "then s": min(seconds)}
    return rows


def steps(found: dict[str, Any]) -> Iterator[tuple[str, Callable[[], Any]]]:
    yield "equal to the loop", equality
    yield "memory", memory
    yield "exponentials", exponentials
    yield "limits", lambda: limits(found)
    yield "sequences", sequences
    for dtype in (torch.float32, torch.bfloat16):
        for name in there(FASTEST):
            yield f"maps, {dtype}, {name}", functools.partial(maps, name, dtype)
    yield "training", training
    yield "brain", brain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, default=Path("gpu.json"))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs an NVIDIA GPU and a CUDA build of torch")
    found: dict[str, Any] = {
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "backends": available_backends(),
    }
    for name, step in steps(found):
        torch.cuda.reset_peak_memory_stats()
        try:
            found[name] = step() | {"peak GiB": torch.cuda.max_memory_allocated() / 2**30}
        except Exception as error:  # noqa: BLE001 -- device time is dear: the rest is measured all the same
            found[name] = {"failed": f"{type(error).__name__}: {error}"}
        print(f"{name}: {json.dumps(found[name], indent=1)}", flush=True)
        options.json.write_text(json.dumps(found, indent=1) + "\n")
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
