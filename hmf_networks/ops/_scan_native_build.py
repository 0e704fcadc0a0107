"""Compile `_scan_native.cpp` into one shared library: on installation, or on first use into the user's cache.

Only the standard library is known here, so that `setup.py` can load this file by itself.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("_scan_native.cpp")
COMMON_FLAGS = [*("-std=c++17", "-O3", "-fno-math-errno", "-fno-trapping-math"), *("-fno-exceptions", "-fPIC", "-w")]
# Instruction set -> (floats in a register, flags); best first. "plain" is SSE2 on x86 and NEON on ARM.
X86_SETS = {"avx512": (16, ["-mavx512f", "-mavx512dq", "-mfma"]), "avx2": (8, ["-mavx2", "-mfma"])}
PLAIN_SET: dict[str, tuple[int, list[str]]] = {"plain": (4, [])}


def instruction_sets() -> dict[str, tuple[int, list[str]]]:
    """What the library holds on this kind of machine."""
    on_x86 = platform.machine().lower() in ("x86_64", "amd64")
    return X86_SETS | PLAIN_SET if on_x86 else PLAIN_SET


def source_hash() -> str:
    """Of the source and of how it is compiled: a library of another hash is stale."""
    recipe = repr((COMMON_FLAGS, instruction_sets()))
    return hashlib.sha256(SOURCE.read_bytes() + recipe.encode()).hexdigest()[:16]


def compiler() -> str | None:
    """The C++ compiler: $CXX, or the first of the usual names; None when there is none."""
    names = [os.environ.get("CXX", ""), "c++", "g++", "clang++"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


def build(library: Path) -> None:
    """Write `library`, whole or not at all.

    Raises:
        RuntimeError: no compiler, or its complaint; a folder that cannot be written.
    """
    program = compiler()
    if program is None:
        raise RuntimeError("no C++ compiler found: install g++ or clang++, or set CXX")
    try:
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent, prefix=".building-") as folder:
            unfinished = Path(folder, library.name)
            try:
                _compile(program, unfinished, ["-fopenmp"])
            except RuntimeError:  # a compiler without OpenMP, as Apple's: one thread
                _compile(program, unfinished, [])
            unfinished.replace(library)
    except OSError as error:
        raise RuntimeError(f"{library} cannot be written ({error}): set XDG_CACHE_HOME") from error


def _compile(program: str, library: Path, openmp: list[str]) -> None:
    objects = []
    for name, (lanes, flags) in instruction_sets().items():
        objects.append(str(library.with_name(f"{name}.o")))
        defines = [f"-DHMF_ISA={name}", f"-DHMF_LANES={lanes}"]
        if name == "plain":  # it tells for all
            defines.append(f'-DHMF_HASH="{source_hash()}"')  # noqa: B907
        _run([program, *COMMON_FLAGS, *openmp, *flags, *defines, "-c", str(SOURCE), "-o", objects[-1]])
    _run([program, "-shared", *openmp, *objects, "-o", str(library)])


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise RuntimeError(f"{command[0]} failed: {lines[0] if lines else error}") from error
