"""Memory: as many planes at a time as there is room for, fewer when it runs out; freed pages are kept."""

import ctypes
import logging
import os
import re
import sys
from math import prod
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

LARGEST_BATCH = {"cpu": 4, "cuda": 16}  # planes; beyond, nothing gets faster
BYTES_PER_PIXEL = 8192  # what a plane needs on its way, width 64 and float32; `benchmarks/volume.py` shows it
SHARE = 0.5  # of the free memory
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
CGROUP_FILES = {  # limit, taken, and what of it can be dropped; of version 1 or not
    False: ("memory.max", "memory.current", "inactive_file"),
    True: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
OUT_OF_MEMORY = re.compile(  # of torch, C++, the C library and oneDNN: `benchmarks/memory_limit.py`
    r"(?:can't|[Cc]annot) allocate memory|not enough memory|bad_alloc|Resource temporarily unavailable"
    r"|could not create a (?:primitive(?! descriptor)|memory)|could not execute a primitive"
)
CGROUPS, OWN_CGROUP = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
SMALL_BLOCK = 2**18  # bytes; larger ones are tensors
OLD_LARGEST_MB = 32  # glibc before 2.35 refuses to keep larger blocks


class PlanesAtATime:
    """How many planes to give a network together: as wished, or as memory holds; fewer when it runs out.

    Planes do not know of each other: the result is the same. That there are fewer is said once.

    Args:
        wish: planes; None for as many as fit into half of the free memory.
    """

    def __init__(self, wish: int | None = None) -> None:
        self.wish = wish
        self._fitting: dict[tuple[int, int], int] = {}  # asked once a size: what is freed may be kept
        self._most_pixels: int | None = None  # since memory ran out
        self._said = False

    def number(self, size: tuple[int, int], device: torch.device) -> int:
        """For planes of `size` pixels."""
        if not self._fitting:
            keep_nothing_under_a_limit()
        if size not in self._fitting:
            self._fitting[size] = self._wish_within_limit(size, device) or batch_for_memory(size, device)
        number = self._fitting[size]
        return number if self._most_pixels is None else min(number, max(1, self._most_pixels // prod(size)))

    def _wish_within_limit(self, size: tuple[int, int], device: torch.device) -> int | None:
        """Under `ulimit -v` no more than surely fit: a vain attempt leaves code in oneDNN's cache."""
        free = _free_address_space() if device.type == "cpu" else None
        if self.wish is None or free is None:
            return self.wish
        return max(1, min(self.wish, free // (BYTES_PER_PIXEL * prod(size))))

    def ran_out(self, error: BaseException, number: int, size: tuple[int, int]) -> None:
        """Take half the next time.

        Raises:
            MemoryError: a single plane was too large.
            the error itself: it was no lack of memory.
        """
        if not is_out_of_memory(error):
            raise error
        if number == 1:
            raise MemoryError(
                "out of memory with a single plane: take a narrower network, or a machine with more memory"
            ) from error
        self._most_pixels = number // 2 * prod(size)
        give_back_freed_memory()

    def served(self, size: tuple[int, int], device: torch.device, planes: int) -> None:
        """A first batch went well: warn if memory made it smaller than wished for `planes` in all."""
        number, wish = self.number(size, device), min(self.wish or _largest_batch(device), planes)
        if number < wish and not self._said:
            self._said = True
            logger.warning("short of memory: %d plane(s) at a time, not %d; the result is the same", number, wish)


def batch_for_memory(size: tuple[int, int], device: torch.device) -> int:
    """Planes of `size` pixels that fit into half of the free memory, at least one."""
    largest, free = _largest_batch(device), free_bytes(device)
    if free is None:
        return largest
    return max(1, min(largest, int(SHARE * free) // (BYTES_PER_PIXEL * prod(size))))


def _largest_batch(device: torch.device) -> int:
    return LARGEST_BATCH.get(device.type, 1)


def free_bytes(device: torch.device) -> int | None:
    """What can still be had of the device's memory; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    told = [free for free in (_free_of_machine(), _free_address_space(), free_of_cgroups()) if free is not None]
    return max(0, min(told)) if told else None


def _free_of_machine() -> int | None:
    information = Path("/proc/meminfo")
    lines = information.read_text().splitlines() if information.exists() else []
    available = next((line for line in lines if line.startswith("MemAvailable:")), None)
    return 1024 * int(available.split()[1]) if available else None


def _free_address_space() -> int | None:
    """Under `ulimit -v`, as clusters set it."""
    if sys.platform != "linux":
        return None
    import resource  # not on Windows

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return None if limit == resource.RLIM_INFINITY else limit - taken


def free_of_cgroups(root: Path = CGROUPS, own: Path = OWN_CGROUP) -> int | None:
    """The least that a container, or one around it, has left; files in its cache can be dropped."""
    free = []
    for line in own.read_text().splitlines() if own.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        limit_name, taken_name, dropped_name = CGROUP_FILES[bool(controllers)]
        top = root / "memory" if controllers else root
        for folder in (top / path.lstrip("/"), *(top / path.lstrip("/")).parents):
            try:
                limit, taken = ((folder / name).read_text().strip() for name in (limit_name, taken_name))
                counts = dict(row.split() for row in (folder / "memory.stat").read_text().splitlines())
            except OSError:  # the topmost has no limit; of others' only the names are known
                continue
            if limit != "max":
                free.append(int(limit) - int(taken) + int(counts.get(dropped_name, 0)))
    return min(free, default=None)


def is_out_of_memory(error: BaseException) -> bool:
    """Torch raises a type of its own on CUDA; on CPUs a plain RuntimeError with the words of who failed."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or bool(OUT_OF_MEMORY.search(str(error)))


def give_back_freed_memory() -> None:
    """To the system or the driver, for blocks of another size."""
    _ask_libc("malloc_trim", 0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def keep_nothing_under_a_limit() -> None:
    """Under `ulimit -v`, freed tensors leave the address space: kept, they are lost to all but tensors."""
    if _free_address_space() is not None and not _is_set_by_user():
        _ask_libc("mallopt", M_MMAP_THRESHOLD, SMALL_BLOCK)
        _ask_libc("mallopt", M_ARENA_MAX, 1)  # another takes 64 MB of it, whatever it holds
        _ask_libc("malloc_trim", 0)


def keep_freed_memory(largest_mb: int = 2047) -> None:
    """Let the C library keep what is freed for the next tensor of that size, on Linux.

    By default it hands large blocks back to the system, which fills every page with zeros before it gives it
    out again. What a user has set by the environment stands.

    Args:
        largest_mb: blocks larger than this are given back all the same: in inference whole volumes, so that
            memory does not grow from subject to subject.
    """
    if _is_set_by_user():
        return
    sizes = (largest_mb, OLD_LARGEST_MB)
    if any(_ask_libc("mallopt", M_MMAP_THRESHOLD, megabytes * 2**20) for megabytes in sizes):
        _ask_libc("mallopt", M_TRIM_THRESHOLD, 2**31 - 1)
        _ask_libc("mallopt", M_ARENA_MAX, 1)  # what one thread frees serves the others: memory does not grow


def _is_set_by_user() -> bool:
    return bool({"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys())


def _ask_libc(name: str, *values: int) -> int:
    """What a function of the GNU C library says; 0 for no, and where there is none, as with musl."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    return function(*values) if function is not None else 0
