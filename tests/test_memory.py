"""Batches that fit, and what happens when they do not."""

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hmf_networks.engines import SliceSynthesisInferer, memory
from hmf_networks.engines.memory import PlanesAtATime, batch_for_memory, free_bytes, free_of_cgroups, is_out_of_memory
from hmf_networks.nets import HMFMambaINR
from torch import Tensor, nn

CPU = torch.device("cpu")
NO_MEMORY = RuntimeError("[enforce fail at alloc_cpu.cpp:132] DefaultCPUAllocator: can't allocate memory: you tried")


class Greedy(nn.Module):
    """Fails with more planes at a time than it is said to bear."""

    def __init__(self, bears: int, error: Exception = NO_MEMORY) -> None:
        super().__init__()
        self.bears, self.error, self.batches = bears, error, []

    def forward(self, image: Tensor, coordinates: tuple[Tensor, Tensor]) -> Tensor:
        if len(image) > self.bears:
            raise self.error
        self.batches.append(len(image))
        return image[:, :1, : len(coordinates[0]), : len(coordinates[1])]


def synthesise(network: nn.Module, **options) -> Tensor:
    torch.manual_seed(0)
    inferer = SliceSynthesisInferer(size=(16, 16), **options)
    return inferer(torch.rand(1, 2, 16, 16, 11), network)


@pytest.mark.parametrize("error", [NO_MEMORY, MemoryError("selective scan"), torch.OutOfMemoryError("CUDA")])
def test_a_batch_too_large_is_halved_with_one_warning_and_the_same_result(error, caplog):
    network = Greedy(bears=3, error=error)
    with caplog.at_level(logging.WARNING):
        halved = synthesise(network, batch_size=8)
    assert network.batches == [2, 2, 2, 2, 2, 1]
    assert [record.message for record in caplog.records] == [
        "short of memory: 2 plane(s) at a time, not 8; the result is the same"
    ]
    assert torch.equal(halved, synthesise(Greedy(bears=8), batch_size=8))


@pytest.mark.parametrize("batch_size", [0, -4])
def test_a_batch_of_nothing_is_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size must be at least 1, or null"):
        SliceSynthesisInferer(batch_size=batch_size)


def test_the_next_volume_starts_with_what_was_learned():
    network, inferer = Greedy(bears=2), SliceSynthesisInferer(size=(16, 16), batch_size=4)
    for _ in range(2):
        inferer(torch.rand(1, 2, 16, 16, 4), network)
    assert network.batches == [2, 2, 2, 2]


def test_memory_is_asked_for_the_plane_that_really_runs_in_every_volume_and_said_to_be_short_once(monkeypatch, caplog):
    plane = memory.BYTES_PER_PIXEL * 16 * 16
    monkeypatch.setattr(memory, "free_bytes", lambda _: 8 * plane)
    network, inferer = Greedy(bears=4), SliceSynthesisInferer(size=(16, 16))
    for side in (16, 32, 16, 32):
        network.batches.clear()
        inferer(torch.rand(1, 2, side, 16, 4), network)
        assert network.batches == ([4] if side == 16 else [2, 2])
    assert [record.message for record in caplog.records] == [
        "short of memory: 2 plane(s) at a time, not 4; the result is the same"
    ]


def test_what_was_learned_of_large_planes_is_no_limit_for_small_ones():
    together = PlanesAtATime(8)
    together.ran_out(NO_MEMORY, 4, (32, 32))
    assert [together.number(size, CPU) for size in [(32, 32), (32, 16), (16, 16), (64, 64)]] == [2, 4, 8, 1]


def test_a_plane_that_is_too_large_by_itself_is_an_error_that_tells_the_cure():
    with pytest.raises(MemoryError, match="single plane: take a narrower network"):
        synthesise(Greedy(bears=0), batch_size=2)


def test_any_other_error_is_not_taken_for_a_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes"):
        synthesise(Greedy(bears=1, error=RuntimeError("shapes do not match")), batch_size=2)
    with pytest.raises(ValueError, match="odd"):
        synthesise(Greedy(bears=1, error=ValueError("odd")), batch_size=2)


def test_a_batch_takes_half_of_the_free_memory_and_is_never_empty(monkeypatch):
    plane = memory.BYTES_PER_PIXEL * 100 * 50
    for free, batch in [(0, 1), (2 * plane, 1), (4 * plane, 2), (7 * plane, 3), (10**12, 4), (None, 4)]:
        monkeypatch.setattr(memory, "free_bytes", lambda _, free=free: free)
        assert batch_for_memory((100, 50), CPU) == batch


@pytest.mark.parametrize(
    ("message", "lacks"),
    [
        ("std::bad_alloc", True),
        ("could not create a primitive", True),
        ("could not create a memory object", True),
        ("could not execute a primitive", True),
        ("Cannot allocate memory", True),
        ("Resource temporarily unavailable", True),
        ("could not create a primitive descriptor for the inner product forward propagation", False),
    ],
)
def test_every_way_to_say_that_memory_is_short_is_understood(message, lacks):
    assert is_out_of_memory(RuntimeError(message)) is lacks


def test_a_container_has_what_the_tightest_limit_about_it_leaves_and_the_files_it_can_forget(tmp_path):
    own, inner = tmp_path / "cgroup", tmp_path / "slice" / "job"
    inner.mkdir(parents=True)
    own.write_text("0::/slice/job\n")
    assert free_of_cgroups(tmp_path, own) is None
    for folder, limit, taken in [(inner, "max", 30), (inner.parent, "100", 50)]:
        for name, text in [("max", limit), ("current", taken), ("stat", "anon 1\ninactive_file 7")]:
            (folder / f"memory.{name}").write_text(f"{text}\n")
    assert free_of_cgroups(tmp_path, own) == 100 - 50 + 7


def test_a_container_of_the_first_version_is_asked_too(tmp_path):
    own, top = tmp_path / "cgroup", tmp_path / "memory"
    top.mkdir()
    own.write_text("3:cpu,cpuacct:/docker/1\n2:memory:/docker/1\n")  # as seen from outside: not there
    for name, text in [("limit_in_bytes", "100"), ("usage_in_bytes", "90"), ("stat", "total_inactive_file 5")]:
        (top / f"memory.{name}").write_text(text)
    assert free_of_cgroups(tmp_path, own) == 100 - 90 + 5


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
def test_free_memory_is_some_megabytes_at_least():
    assert 2**24 < free_bytes(CPU) < 2**50


def synthesised_256(batch_size: int | None) -> Tensor:
    """Three planes of 256 x 256 through a small network of ours."""
    torch.manual_seed(0)
    network = HMFMambaINR(2, 2, 1, width=16, num_residual_blocks=1).eval()
    volume = torch.rand(1, 2, 256, 256, 3) * 2 - 1
    with torch.inference_mode():
        return SliceSynthesisInferer(size=(256, 256), batch_size=batch_size)(volume, network)


LIMITED = """
import resource, sys, torch
from pathlib import Path
torch.set_num_threads(1)
folder, result, batch_size = sys.argv[1:]
sys.path.insert(0, folder)
from test_memory import synthesised_256
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200 * 2**20,) * 2)
torch.save(synthesised_256(int(batch_size) or None), result)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc")
@pytest.mark.parametrize("batch_size", [8, 0], ids=["eight", "null"])
def test_under_a_limit_of_the_address_space_one_warning_is_all_that_changes(batch_size, tmp_path):
    command = [sys.executable, "-c", LIMITED, Path(__file__).parent, tmp_path / "y.pt", str(batch_size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert [line for line in done.stderr.splitlines() if "memory" in line] == [
        "short of memory: 1 plane(s) at a time, not 3; the result is the same"
    ]
    torch.testing.assert_close(torch.load(tmp_path / "y.pt"), synthesised_256(3), atol=2e-5, rtol=0)


KEEP = """
import resource, torch
from hmf_networks.engines.memory import keep_freed_memory
torch.set_num_threads(1)
keep_freed_memory()
faults = [0]
for _ in range(8):
    tensors = [torch.ones(8_000_000) for _ in range(3)]
    del tensors
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(min(after - before for before, after in zip(faults[1:], faults[2:])))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="an option of glibc")
@pytest.mark.slow
def test_freed_memory_is_not_given_back_page_by_page():
    """96 MB are 23,000 pages; a system that hands out larger pages has fewer faults at once."""
    done = subprocess.run([sys.executable, "-c", KEEP], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000


@pytest.mark.skipif(sys.platform != "linux", reason="an option of glibc")
@pytest.mark.parametrize(
    ("most_mb", "asked"),
    [
        (None, ["mmap 2047", "trim", "arenas"]),
        (32, ["mmap 2047", "mmap 32", "trim", "arenas"]),
        (0, ["mmap 2047", "mmap 32"]),  # alone, a trim threshold would send every block to the system
    ],
    ids=["new", "old", "none"],
)
def test_a_c_library_that_keeps_no_large_blocks_is_asked_for_what_it_does_keep(most_mb, asked, monkeypatch):
    calls = []

    def mallopt(option: int, value: int) -> int:
        megabytes = value >> 20
        names = {-1: "trim", -3: f"mmap {megabytes}", -8: "arenas"}
        calls.append(names[option])
        return int(most_mb is None or option != -3 or megabytes <= most_mb)

    monkeypatch.setattr(memory.ctypes, "CDLL", lambda _: SimpleNamespace(mallopt=mallopt))
    memory.keep_freed_memory()
    assert calls == asked
