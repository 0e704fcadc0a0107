"""What the methods of a study cost, in one run: Table 3 of the paper, with scans counted and dead weights told."""

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from hmf_networks.reports.cost import live_parameters, network_cost
from hmf_networks.reports.table import aligned
from hmf_networks.studies.runs import configs_of
from hmf_networks.studies.study import Run, Study
from monai.bundle import ConfigParser
from torch import nn

SLICES = 155  # of a BraTS volume
BATCH = 4  # planes at a time, of such a volume
SMALL = 64  # side of the plane by which live parameters are found
MEBIBYTE = 2**20


class Cost(NamedTuple):
    """Of one method; seconds are the least of the repeats, memory is what a forward pass takes beside the weights."""

    parameters: int
    live_parameters: int
    macs: int
    scan_macs: int
    peak_bytes: int
    slice_seconds: float
    volume_seconds: float


def costs_of(
    study: Study, bundle: Path, size: Sequence[int], *, repeats: int, device: str
) -> Iterator[tuple[str, Cost]]:
    """Method after method, each in a process of its own, so that none is charged with the memory of another."""
    task = next(iter(study.tasks))
    for name, method in study.methods.items():
        files = configs_of(Run(task, name, 0), study, bundle / "configs")
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            arguments = (files, method.overrides, tuple(size), repeats, device, torch.get_num_threads())
            yield name, pool.apply(measure, arguments)


def measure(
    files: Sequence[Path], overrides: dict[str, object], size: tuple[int, int], repeats: int, device: str, threads: int
) -> Cost:
    """In a fresh process: its peak memory is that of this network."""
    torch.set_num_threads(threads)
    network, channels = network_of(files, overrides)
    network = network.to(device).eval()
    plane = 2 * torch.rand(BATCH, channels, *size, device=device) - 1
    slice_seconds, peak_bytes = _timed(network, plane[:1], repeats)
    volume_seconds = _timed(network, plane, repeats)[0] * SLICES / BATCH
    network = network.cpu()
    cost = network_cost(network, (1, channels, *size))
    live = live_parameters(network, (2, channels, SMALL, SMALL))
    return Cost(cost["parameters"], live, cost["macs"], cost["scan_macs"], peak_bytes, slice_seconds, volume_seconds)


def network_of(files: Sequence[Path], overrides: dict[str, object]) -> tuple[nn.Module, int]:
    """The network that these configs describe, and how many channels it reads."""
    parser = ConfigParser()
    parser.read_config([str(path) for path in files])
    for key, value in overrides.items():
        parser[key] = value
    sources = parser.get_parsed_content("sources")
    return parser.get_parsed_content("network_def"), len(sources) * (1 + parser.get_parsed_content("any_subset"))


@torch.inference_mode()
def _timed(network: nn.Module, planes: torch.Tensor, repeats: int) -> tuple[float, int]:
    """Seconds of a call, the least of several, and bytes that it took beyond what was there."""
    is_cuda = planes.is_cuda
    before = _in_use(is_cuda)
    _forget_peak(is_cuda)
    network(planes)
    peak = torch.cuda.max_memory_allocated() if is_cuda else _status_kib("VmHWM") * 1024
    least = float("inf")
    for _ in range(repeats):
        start = _now(is_cuda)
        network(planes)
        least = min(least, _now(is_cuda) - start)
    return least, max(peak - before, 0)


def _now(is_cuda: bool) -> float:
    if is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def _in_use(is_cuda: bool) -> int:
    if is_cuda:
        return torch.cuda.memory_allocated()
    return _status_kib("VmRSS") * 1024


def _forget_peak(is_cuda: bool) -> None:
    """A process begins with the peak of the one that started it."""
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _status_kib(key: str) -> int:
    """Of Linux; "VmRSS" is in memory now, "VmHWM" was at most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def as_table(costs: dict[str, Cost]) -> str:
    head = ["method", "parameters M", "live M", "GMACs", "of scans", "peak MiB", "ms a slice", f"s for {SLICES}"]
    lines = [head]
    for name, cost in costs.items():
        millions = [f"{count / 1e6:.2f}" for count in (cost.parameters, cost.live_parameters)]
        giga = [f"{(cost.macs + cost.scan_macs) / 1e9:.1f}", f"{cost.scan_macs / 1e9:.2f}"]
        rest = [f"{cost.peak_bytes / MEBIBYTE:.0f}", f"{1e3 * cost.slice_seconds:.0f}", f"{cost.volume_seconds:.1f}"]
        lines.append([name, *millions, *giga, *rest])
    return aligned(lines)
