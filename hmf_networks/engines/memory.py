"""Memory: as many planes at a time as there is room for, fewer when it runs out; freed pages are kept."""

import ctypes
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

logger = logging.getLogger(__name__)

LARGEST_BATCH = {"cpu": 4, "cuda": 16}  # planes; beyond, nothing gets faster
BYTES_PER_PIXEL = 8192  # what a plane needs on its way, width 64 and float32; `benchmarks/volume.py` shows it
SHARE = 0.5  # of the free memory
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
OLD_LARGEST_MB = 32  # glibc before 2.35 refuses to keep larger blocks


def batch_for_memory(size: Sequence[int], device: torch.device) -> int:
    """Planes of `size` pixels that fit into half of the free memory, at least one."""
    largest = LARGEST_BATCH.get(device.type, 1)
    free = free_bytes(device)
    if free is None:
        return largest
    return max(1, min(largest, int(SHARE * free) // (BYTES_PER_PIXEL * size[0] * size[1])))


def free_bytes(device: torch.device) -> int | None:
    """What can still be had of the device's memory; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    information = Path("/proc/meminfo")
    lines = information.read_text().splitlines() if information.exists() else []
    available = next((line for line in lines if line.startswith("MemAvailable:")), None)
    return 1024 * int(available.split()[1]) if available else None


def smaller_batch(error: BaseException, batch_size: int) -> int:
    """Half of a batch that was too large for the memory, with a warning.

    Raises:
        MemoryError: a single plane was too large.
        the error itself: it was no lack of memory.
    """
    if not _is_out_of_memory(error):
        raise error
    if batch_size == 1:
        raise MemoryError(
            "out of memory with a single plane: take a narrower network, or a machine with more memory"
        ) from error
    logger.warning("out of memory with %d planes at a time: going on with %d", batch_size, batch_size // 2)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return batch_size // 2


def _is_out_of_memory(error: BaseException) -> bool:
    """Torch raises a type of its own on CUDA, a plain RuntimeError on CPUs."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def keep_freed_memory(largest_mb: int = 2047) -> None:
    """Let the C library keep what is freed for the next tensor of that size, on Linux.

    By default it hands large blocks back to the system, which fills every page with zeros before it gives it
    out again: a fifth of the time of a training on a CPU. What a user has set by the environment stands.

    Args:
        largest_mb: blocks larger than this are given back all the same: in inference whole volumes, so that
            memory does not grow from subject to subject.
    """
    if sys.platform != "linux" or {"MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys():
        return
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if set_option is None:
        return
    if any(set_option(M_MMAP_THRESHOLD, megabytes * 2**20) for megabytes in (largest_mb, OLD_LARGEST_MB)):
        set_option(M_TRIM_THRESHOLD, 2**31 - 1)
        set_option(M_ARENA_MAX, 1)  # what one thread has freed serves the others: memory does not grow
