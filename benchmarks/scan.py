"""The selective scan against its definition, its other backends and two limits of the machine.

    python benchmarks/scan.py [--length 4096] [--channels 256] [--states 16] [--threads 1] [--json OUT.json]

Times are processor time, the least of several runs; what counts are the ratios, all measured in this one run.
Freed memory is kept, as in a run of the bundle. Limits: moving inputs and outputs once through memory, and
one exponential for each step, channel and state.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import report
from torch import Tensor

from hmf_networks.engines.memory import keep_freed_memory
from hmf_networks.ops._scan_native_build import instruction_sets
from hmf_networks.ops.selective_scan import available_backends, selective_scan


def inputs(channels: int, states: int, length: int, *, gradient: bool) -> dict[str, Tensor]:
    """One batch entry, one group, ordinary step sizes."""
    torch.manual_seed(0)
    tensors = {
        "u": torch.randn(1, channels, length),
        "delta": torch.randn(1, channels, length),
        "A": -torch.arange(1.0, states + 1).repeat(channels, 1),
        "B": torch.randn(1, 1, states, length),
        "C": torch.randn(1, 1, states, length),
        "D": torch.ones(channels),
        "delta_bias": torch.randn(channels) - 4,
    }
    return {name: tensor.requires_grad_(gradient) for name, tensor in tensors.items()}


def least_ms(work: Callable[[], object], *, seconds: float = 2.0) -> float:
    """Processor time of the quickest run in about `seconds`, at least three runs."""
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return 1000 * min(times)


def time_backend(options: argparse.Namespace, backend: str) -> dict[str, float]:
    """Milliseconds of forward, and of forward and backward."""
    plain = inputs(options.channels, options.states, options.length, gradient=False)
    leaves = inputs(options.channels, options.states, options.length, gradient=True)
    towards = torch.randn_like(plain["u"])

    def both() -> None:
        y = selective_scan(**leaves, delta_softplus=True, backend=backend)
        torch.autograd.grad(y, list(leaves.values()), towards)

    return {
        "forward ms": least_ms(lambda: selective_scan(**plain, delta_softplus=True, backend=backend)),
        "both ms": least_ms(both),
    }


def peak_extra_mb(backend: str) -> float:
    """Peak resident memory that forward and backward add, in a process of their own."""
    command = [sys.executable, __file__, "--only-memory", backend, *sys.argv[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def print_memory(options: argparse.Namespace, backend: str) -> None:
    """Linux only: the peak is reset once everything is loaded and the kernel was called."""
    leaves = inputs(options.channels, options.states, options.length, gradient=True)
    short = inputs(options.channels, options.states, 2, gradient=True)
    for tensors in (short, leaves):
        Path("/proc/self/clear_refs").write_text("5")
        before = memory_mb("VmRSS")
        y = selective_scan(**tensors, delta_softplus=True, backend=backend)
        torch.autograd.grad(y.sum(), list(tensors.values()))
    print(memory_mb("VmHWM") - before)


def memory_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def limits_ms(options: argparse.Namespace) -> dict[str, float]:
    """Memory traffic of the forward pass, and its exponentials as torch computes them."""
    floats = 3 * options.channels * options.length + 2 * options.states * options.length
    source = torch.ones(floats // 2)
    target = torch.empty_like(source)
    block = torch.rand(4096)
    exponentials = options.channels * options.length * options.states
    result = torch.empty_like(block)
    times = 256
    per_block = least_ms(lambda: [torch.exp(block, out=result) for _ in range(times)]) / times
    return {
        "limit of memory": least_ms(lambda: target.copy_(source)),
        "of exponentials": per_block * exponentials / len(block),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=4096)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--states", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only-memory", metavar="BACKEND", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    if options.only_memory:
        print_memory(options, options.only_memory)
        return
    rows = {}
    for backend in available_backends():
        for instructions in instruction_sets() if backend == "native" else [""]:
            os.environ["HMF_SCAN_INSTRUCTIONS"] = instructions
            try:
                rows[f"{backend} {instructions}".strip()] = time_backend(options, backend) | {
                    "extra MB": peak_extra_mb(backend)
                }
            except RuntimeError as error:
                print(f"{backend} {instructions}: {error}")
    for row in rows.values():
        for way in ("forward", "both"):
            row[f"{way}, times chunked"] = rows["chunked"][f"{way} ms"] / row[f"{way} ms"]
    columns = ["forward ms", "both ms", "forward, times chunked", "both, times chunked", "extra MB"]
    title = f"1 x {options.channels} channels, {options.length} steps, {options.states} states; "
    title += ", ".join(f"{name} {limit:.2f} ms" for name, limit in limits_ms(options).items())
    report(title, columns, rows, options.json)


if __name__ == "__main__":
    main()
