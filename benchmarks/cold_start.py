"""What a user waits for: `hmf synthesize` on one head in a process of its own, see `volume.py`.

Without a folder the head is an ellipsoid that fills 182 x 218 x 182 voxels of 1 mm, every slice of it: what
is in a voxel does not matter to the time, how many there are does.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from held_out import versions
from hmf_networks.data.phantom_files import write_nifti
from hmf_networks.hashing import file_hash
from hmf_networks.naming import check_contrasts, check_weights
from machine import describe, report
from scipy.ndimage import zoom

SHAPE = (182, 218, 182)  # of the MNI space that many brains are brought to, 1 mm
NUM_CORES = 2


def measure(options: argparse.Namespace) -> None:
    try:
        check_weights(options.weights)
        check_contrasts(options.sources)
    except (ValueError, OSError) as error:
        raise SystemExit(f"volume.py: {error}") from None
    cores = sorted(os.sched_getaffinity(0))[:NUM_CORES]
    machine = describe() | {"threads": len(cores)}
    with tempfile.TemporaryDirectory() as temporary:
        scans = Path(options.dataset_dir or ellipsoid_head(Path(temporary, "scans"), options.sources))
        runs = [
            run_cold(command(options, scans, Path(temporary, f"out{number}")), cores)
            for number in range(options.repeats)
        ]
    row = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    head = "one head" if options.dataset_dir else f"one head of {' x '.join(map(str, SHAPE))} voxels"
    made = f"{'+'.join(options.sources)} to {options.target or 'what is missing'}"
    settings = {
        "weights": options.weights.name,
        "weights_sha256": file_hash(options.weights),
        "sources": options.sources,
        "target": options.target,
        "precision": options.precision,
        "num_cores": len(cores),
        "repeats": options.repeats,
    }
    title = f"`hmf synthesize` from a cold start, {made}, {head}, {len(cores)} CPU cores"
    rows = {"hmf synthesize": row}
    about = {"settings": settings, "versions": versions(), "machine": machine, "runs": runs}
    report(title, list(row), rows, options.json, **about)


def command(options: argparse.Namespace, scans: Path, output: Path) -> list[str]:
    words = [sys.executable, "-m", "hmf_networks", "synthesize", str(scans), str(output), "--device", "cpu"]
    words += ["--weights", str(options.weights), "--precision", options.precision]
    words += ["--sources", *options.sources]
    return words + (["--target", options.target] if options.target else [])


def run_cold(words: Sequence[str], cores: Sequence[int]) -> dict[str, float]:
    """Seconds from start to end, and the peak of resident memory, of a process held to these cores."""
    environment = os.environ | {"OMP_NUM_THREADS": str(len(cores))}
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, cores)), *words], env=environment, stdout=said, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"volume.py: hmf synthesize failed:\n{said.read().decode()[-2000:]}")
    return {"seconds": seconds, "peak MB": usage.ru_maxrss / 1024}


def ellipsoid_head(folder: Path, contrasts: Sequence[str]) -> Path:
    """A subject of BIDS names, smooth within."""
    rng = np.random.default_rng(0)
    axes = [np.linspace(-1, 1, size, dtype=np.float32) for size in SHAPE]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    inside = x * x + y * y + (z * 0.9) ** 2 < 1
    suffixes: dict[str, Any] = {"t1": "T1w", "t2": "T2w", "flair": "FLAIR", "pd": "PDw"}
    suffixes["t1c"] = "ce-gadolinium_T1w"
    for contrast in contrasts:
        texture = zoom(rng.random([size // 8 + 1 for size in SHAPE]), 8, order=1)
        texture = texture[tuple(slice(size) for size in SHAPE)]
        path = folder / "sub-one" / "anat" / f"sub-one_{suffixes[contrast]}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_nifti(path, inside * (200 + 800 * texture), spacing_mm=1.0)
    return folder
