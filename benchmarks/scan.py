"""The selective scan against its definition, its other backends and two limits of the machine; its cost law.

    python benchmarks/scan.py [--length 4096] [--channels 256] [--states 16] [--threads 1] [--json OUT.json]
    python benchmarks/scan.py --law [--json OUT.json]

Times are processor time, the least of several runs; what counts are the ratios, all measured in this one run.
Freed memory is kept, as in a run of the bundle. Limits: moving inputs and outputs once through memory, and
one exponential for each step, channel and state. Errors are against the loop in float64, in parts of the
largest number of a tensor; of gradients the worst. The law changes one size at a time.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hmf_networks.engines.memory import keep_freed_memory
from hmf_networks.ops._scan_native_build import instruction_sets
from hmf_networks.ops.selective_scan import available_backends, selective_scan
from machine import report
from torch import Tensor


class Size(NamedTuple):
    """Of one group."""

    batch: int = 1
    channels: int = 256
    length: int = 4096
    states: int = 16


LAW = {
    "twice the steps": Size(length=8192),
    "four times": Size(length=16384),
    "twice the channels": Size(channels=512),
    "a batch of four": Size(batch=4),
    "1 state": Size(states=1),
    "4 states": Size(states=4),
    "8 states": Size(states=8),
    "32 states": Size(states=32),
    "64 states": Size(states=64),
}


def inputs(size: Size, *, gradient: bool) -> dict[str, Tensor]:
    """Ordinary step sizes."""
    torch.manual_seed(0)
    batch, channels, length, states = size
    tensors = {
        "u": torch.randn(batch, channels, length),
        "delta": torch.randn(batch, channels, length),
        "A": -torch.arange(1.0, states + 1).repeat(channels, 1),
        "B": torch.randn(batch, 1, states, length),
        "C": torch.randn(batch, 1, states, length),
        "D": torch.ones(channels),
        "delta_bias": torch.randn(channels) - 4,
    }
    return {name: tensor.requires_grad_(gradient) for name, tensor in tensors.items()}


def value_and_gradients(leaves: dict[str, Tensor], towards: Tensor, backend: str) -> list[Tensor]:
    y = selective_scan(**leaves, delta_softplus=True, backend=backend)
    return [y.detach(), *torch.autograd.grad(y, list(leaves.values()), towards)]


def least_ms(work: Callable[[], object], *, seconds: float = 2.0) -> float:
    """Processor time of the quickest run in about `seconds`, at least three runs."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def time_backend(size: Size, backend: str) -> dict[str, float]:
    """Milliseconds of forward, and of forward and backward."""
    plain, leaves = inputs(size, gradient=False), inputs(size, gradient=True)
    towards = torch.randn_like(plain["u"])
    return {
        "forward ms": least_ms(lambda: selective_scan(**plain, delta_softplus=True, backend=backend)),
        "both ms": least_ms(lambda: value_and_gradients(leaves, towards, backend)),
    }


def exact_results(size: Size) -> list[Tensor]:
    leaves = {name: x.detach().double().requires_grad_() for name, x in inputs(size, gradient=False).items()}
    return value_and_gradients(leaves, torch.ones_like(leaves["u"]), "reference")


def errors(size: Size, backend: str, exact: list[Tensor]) -> dict[str, float]:
    """Of the value, and the largest of all gradients; relative to the largest number of each tensor."""
    leaves = inputs(size, gradient=True)
    found = value_and_gradients(leaves, torch.ones_like(leaves["u"]), backend)
    relative = [float((x - wanted).abs().max() / wanted.abs().max()) for x, wanted in zip(found, exact, strict=True)]
    return {"error": relative[0], "error of gradients": max(relative[1:])}


def peak_extra_mb(size: Size, backend: str) -> float:
    """Peak resident memory that forward and backward add, in a process of their own."""
    sizes = [f"--{name}={value}" for name, value in size._asdict().items()]
    command = [sys.executable, __file__, "--only-memory", backend, *sizes]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def print_memory(size: Size, backend: str) -> None:
    """Linux only: the peak is reset once everything is loaded and the kernel was called."""
    for leaves in (inputs(size._replace(length=2), gradient=True), inputs(size, gradient=True)):
        Path("/proc/self/clear_refs").write_text("5")
        before = memory_mb("VmRSS")
        value_and_gradients(leaves, torch.ones_like(leaves["u"]), backend)
    print(memory_mb("VmHWM") - before)


def memory_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def limits_ms(size: Size) -> dict[str, float]:
    """Memory traffic of the forward pass, and its exponentials as torch computes them."""
    batch, channels, length, states = size
    floats = batch * length * (3 * channels + 2 * states)
    source = torch.ones(floats // 2)
    target = torch.empty_like(source)
    block = torch.rand(4096)
    result = torch.empty_like(block)
    times = 256
    per_block = least_ms(lambda: [torch.exp(block, out=result) for _ in range(times)]) / times
    return {
        "limit of memory": least_ms(lambda: target.copy_(source)),
        "of exponentials": per_block * batch * channels * length * states / len(block),
    }


def compare_backends(size: Size, path: Path | None) -> None:
    exact = exact_results(size)
    rows: dict[str, dict[str, float]] = {}
    for backend in available_backends():
        for instructions in instruction_sets() if backend == "native" else [""]:
            os.environ["HMF_SCAN_INSTRUCTIONS"] = instructions
            try:
                row = time_backend(size, backend) | errors(size, backend, exact)
                rows[f"{backend} {instructions}".strip()] = row | {"extra MB": peak_extra_mb(size, backend)}
            except RuntimeError as error:
                print(f"{backend} {instructions}: {error}")
    for row in rows.values():
        for way in ("forward", "both"):
            row[f"{way}, times chunked"] = rows["chunked"][f"{way} ms"] / row[f"{way} ms"]
    columns = ["forward ms", "both ms", "forward, times chunked", "both, times chunked", "extra MB"]
    limits = ", ".join(f"{name} {limit:.2f} ms" for name, limit in limits_ms(size).items())
    report(f"{size}; {limits}", [*columns, "error", "error of gradients"], rows, path)


def show_law(path: Path | None) -> None:
    base = measure(Size())
    rows = {"256 channels, 4096 steps, 16 states": dict.fromkeys(base, 1.0)}
    for name, size in LAW.items():
        rows[name] = {column: value / base[column] for column, value in measure(size).items()}
    report("the default backend, times the first row", list(base), rows, path)


def measure(size: Size) -> dict[str, float]:
    times = time_backend(size, "auto")
    return {
        "forward": times["forward ms"],
        "forward and backward": times["both ms"],
        "extra memory": peak_extra_mb(size, "auto"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in Size()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--law", action="store_true", help="how time and memory grow with each size")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only-memory", metavar="BACKEND", help=argparse.SUPPRESS)
    options: Any = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    size = Size(*(getattr(options, name) for name in Size._fields))
    if options.only_memory:
        print_memory(size, options.only_memory)
    elif options.law:
        show_law(options.json)
    else:
        compare_backends(size, options.json)


if __name__ == "__main__":
    main()
