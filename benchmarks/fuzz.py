"""Seeded damage to headers and gzip streams: nothing but the reader's own error may come out of the reader.

    python benchmarks/fuzz.py [--cases 50000] [--seed 0]

Prints how many damaged files were read, refused and by which code; any other error ends it. A case is a small
volume with 1 to 8 places of its header or of its gzip stream changed, removed, filled or cut off.
"""

import argparse
import collections
import gzip
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

import nibabel
import numpy as np
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.nifti.read import examine

SLOWEST_SECONDS = 1.0
MOST_BYTES = 200e6


def seeds(rng: np.random.Generator) -> list[bytes]:
    """Good files of several kinds, uncompressed."""
    values = rng.integers(0, 1000, (6, 7, 5)).astype(np.int16)
    affine = np.diag([1.0, -2.0, 3.0, 1.0])
    files = []
    for cls, extended in ((nibabel.Nifti1Image, False), (nibabel.Nifti2Image, False), (nibabel.Nifti1Image, True)):
        image = cls(values, affine)
        image.header["scl_slope"], image.header["scl_inter"] = 2.0, 1.0
        if extended:
            image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"a word"))
        files.append(image.to_bytes())
    return files


def damaged(content: bytes, rng: np.random.Generator, length: int) -> bytes:
    """Some of the first `length` bytes changed, or the whole shortened or lengthened."""
    changed = bytearray(content)
    for _ in range(rng.integers(1, 9)):
        place = int(rng.integers(min(length, len(changed)))) if changed else 0
        kind = rng.integers(6)
        if kind < 3 and changed:
            changed[place] = rng.choice([0, 1, 127, 128, 255, int(rng.integers(256))])
        elif kind == 3 and changed:
            del changed[place : place + int(rng.integers(1, 5))]
        elif kind == 4:
            changed[place:place] = rng.bytes(int(rng.integers(1, 5)))
        else:
            field = rng.choice([4, 8])
            changed[place : place + field] = rng.choice(
                [b"\xff" * 8, b"\x7f" * 8, b"\0" * 8, np.float32(np.nan).tobytes() * 2, b"\0\0\x80\x7f" * 2]
            )[:field]
    if rng.random() < 0.1:
        changed = changed[: int(rng.integers(len(changed) + 1))]
    return bytes(changed)


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--cases", type=int, default=50_000)
    options.add_argument("--seed", type=int, default=0)
    options = options.parse_args()
    rng = np.random.default_rng(options.seed)
    files = seeds(rng)
    outcomes: collections.Counter[str] = collections.Counter()
    slowest = 0.0
    tracemalloc.start()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.cases):
            content = files[number % len(files)]
            in_stream = number % 2 == 1
            content = damaged(gzip.compress(content, 1), rng, 10**6) if in_stream else damaged(content, rng, 600)
            if number % 4 == 2:
                content = gzip.compress(content, 1)
            path = Path(folder) / ("a.nii.gz" if number % 4 else "a.nii")
            path.write_bytes(content)
            start = time.perf_counter()
            try:
                read = examine(path)
                if not np.isfinite(read.values).all() or not np.isfinite(read.header.affine).all():
                    raise AssertionError("values or affine are not finite")
                outcomes["warn" if read.warnings else "read"] += 1
            except VolumeError as error:
                outcomes[error.code] += 1
            except BaseException:
                kept = Path(tempfile.gettempdir()) / f"fuzz-{options.seed}-{number}-{path.name}"
                kept.write_bytes(content)
                print(f"case {number} broke out of the reader; kept as {kept}", file=sys.stderr)
                raise
            slowest = max(slowest, time.perf_counter() - start)
    peak = tracemalloc.get_traced_memory()[1]
    print(f"{options.cases} damaged files, seed {options.seed}: no error but VolumeError")
    print(", ".join(f"{name} {count}" for name, count in outcomes.most_common()))
    print(f"slowest {slowest:.2f} s, at most {peak / 1e6:.0f} MB")
    return int(slowest > SLOWEST_SECONDS or peak > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
