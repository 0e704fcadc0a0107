"""The library behind `_scan_native.py`: found, compiled if need be, loaded, and its interface.

It is sought beside this file, where the installation put it, then in the user's cache, where it is compiled
on first use. Without either the chunked backend serves.
"""

import ctypes
import functools
import logging
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hmf_networks.ops import _scan_native_build

logger = logging.getLogger(__name__)


class Strided(ctypes.Structure):
    """`struct Strided` of the source: a tensor and its strides in elements."""

    _fields_ = [("data", ctypes.c_void_p)] + [(name, ctypes.c_int64) for name in ("batch", "group", "token", "channel")]


class Scan(ctypes.Structure):
    """`struct Scan` of the source, field by field."""

    SIZES = (
        *("batch", "groups", "group_channels", "states", "length"),
        *("width", "segments", "softplus", "bfloat16", "threads"),
    )
    INPUTS = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")
    STRIDED = (*("u", "delta", "z", "B", "C", "y", "grad_y"), *("grad_u", "grad_delta", "grad_z", "grad_B", "grad_C"))
    PARAMETERS = ("A", "D", "delta_bias", "starts", "grad_A", "grad_D", "grad_delta_bias")
    _fields_ = [
        *((name, ctypes.c_int64) for name in SIZES),
        *((name, Strided) for name in STRIDED),
        *((name, ctypes.c_void_p) for name in PARAMETERS),
    ]


class Kernel(NamedTuple):
    """The two entry points of one instruction set; both return 0, or 1 when memory ran out."""

    forward: Callable[[Any], int]
    backward: Callable[[Any], int]


def is_available() -> bool:
    """True where the kernel is there or could be compiled; says once when it is not."""
    try:
        kernel()
    except RuntimeError as error:
        _say_absent(str(error))
        return False
    return True


@functools.cache
def _say_absent(reason: str) -> None:
    logger.warning("no compiled selective scan, the slower 'chunked' serves: %s", reason)


def kernel() -> Kernel:
    return load_kernel(os.environ.get("HMF_SCAN_INSTRUCTIONS", ""))


@functools.cache
def load_kernel(instructions: str = "") -> Kernel:
    """The kernel for an instruction set, e.g. "avx2"; the best this CPU has by default.

    Raises:
        RuntimeError: an unknown set, or no library and none could be compiled.
    """
    usable = _usable_sets()
    if instructions and instructions not in usable:
        raise RuntimeError(f"HMF_SCAN_INSTRUCTIONS {instructions!r}: this CPU runs {', '.join(usable)}")
    library = _library()
    name = instructions or usable[0]
    kernel = Kernel(*(getattr(library, f"hmf_scan_{way}_{name}") for way in ("forward", "backward")))
    for function in kernel:
        function.argtypes, function.restype = [ctypes.POINTER(Scan)], ctypes.c_int  # type: ignore[attr-defined]
    return kernel


def _usable_sets() -> list[str]:
    """Instruction sets that are compiled here and that this CPU has, best first."""
    capability = torch.backends.cpu.get_cpu_capability()
    beyond = {"AVX512": [], "AVX2": ["avx512"]}.get(capability, ["avx512", "avx2"])
    return [name for name in _scan_native_build.instruction_sets() if name not in beyond]


def _library() -> ctypes.CDLL:
    library = _library_or_reason()
    if isinstance(library, str):
        raise RuntimeError(library)
    return library


@functools.cache
def _library_or_reason() -> ctypes.CDLL | str:
    """Also what cannot be compiled is tried once and not at every scan."""
    try:
        return _found_or_compiled()
    except RuntimeError as error:
        return str(error)


def _found_or_compiled() -> ctypes.CDLL:
    for path in sorted(Path(__file__).parent.glob("_scan_native_library*")):
        if (library := _load(path)) is not None:
            return library
    path = _cache_path()
    if (library := _load(path)) is not None:
        return library
    logger.info("compiling the selective scan for this machine, once: %s", path)
    _scan_native_build.build(path)
    if (library := _load(path)) is None:
        raise RuntimeError(f"{path} was compiled but does not load")
    return library


def _load(path: Path) -> ctypes.CDLL | None:
    """The library at `path`; None when it is not there, does not load, or belongs to another source."""
    try:
        library = ctypes.CDLL(str(path))
        library.hmf_scan_hash.restype = ctypes.c_char_p
        return library if library.hmf_scan_hash().decode() == _scan_native_build.source_hash() else None
    except (OSError, AttributeError):
        return None


def _cache_path() -> Path:
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "hmf_networks" / f"scan-{_scan_native_build.source_hash()}-{platform.machine()}.so"
