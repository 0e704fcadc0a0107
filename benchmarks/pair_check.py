"""Faults planted between the contrasts of a subject: how many are found, and how often a good one is accused.

    python benchmarks/pair_check.py [--subjects 12] [--seed 11] [--real FOLDER ...]

In every subject, simulated and of the folders, each contrast is shifted by 5 mm along each axis both ways,
mirrored, given twice, and each two of t1, t2, flair are exchanged. Untouched subjects tell the false alarms.
"""

import argparse
import collections
import itertools
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import machine
import nibabel
import numpy as np

from hmf_networks.data.folder import find_subjects
from hmf_networks.data.pair_check import compare_contrasts
from hmf_networks.data.phantom import simulate_subjects
from hmf_networks.naming import CONTRASTS, subject_name
from hmf_networks.nifti.read import examine

SHIFT_MM = 5.0
Volumes = dict[str, np.ndarray]


def upright(paths: dict[str, str]) -> tuple[Volumes, list[float]]:
    volumes = {}
    for name, path in paths.items():
        read = examine(path)
        orientation = nibabel.io_orientation(read.header.affine)
        volumes[name] = nibabel.apply_orientation(read.values, orientation)
        sizes = np.linalg.norm(read.header.affine[:3, :3], axis=0)
    return volumes, [float(sizes[int(axis)]) for axis in np.argsort(orientation[:, 0])]


def shifted(volume: np.ndarray, axis: int, by: int) -> np.ndarray:
    moved = np.roll(volume, by, axis)
    edge = [slice(None)] * 3
    edge[axis] = slice(0, by) if by > 0 else slice(by, None)
    moved[tuple(edge)] = volume.flat[0]
    return moved


def faults(volumes: Volumes, spacing_mm: list[float]) -> Iterator[tuple[str, str, set[str], Volumes]]:
    """Kind, expected code, contrasts one of which must be named, and the volumes with the fault."""
    for name, volume in volumes.items():
        for axis, sign in itertools.product(range(3), (1, -1)):
            by = sign * max(1, round(SHIFT_MM / spacing_mm[axis]))
            yield f"{name} shifted", "W_SHIFT", {name}, volumes | {name: shifted(volume, axis, by)}
        yield f"{name} mirrored", "W_FLIP", {name}, volumes | {name: volume[::-1]}
    for one, other in itertools.combinations(volumes, 2):
        yield "the same image twice", "E_DUPLICATE", {one, other}, volumes | {other: volumes[one]}
        rescaled = (volumes[one] * 0.37 + 12).astype(np.float32)
        yield "the same, rescaled", "E_DUPLICATE", {one, other}, volumes | {other: rescaled}
    for one, other in (("t1", "t2"), ("t2", "flair"), ("t1", "flair")):
        if {one, other} <= volumes.keys():
            exchanged = volumes | {one: volumes[other], other: volumes[one]}
            yield f"{one} and {other} exchanged", "W_SWAP", {one, other}, exchanged


def judge(folder: Path) -> None:
    found: collections.Counter[str] = collections.Counter()
    planted: collections.Counter[str] = collections.Counter()
    num_pairs = num_subjects = 0
    seconds = 0.0
    for record in find_subjects(folder, []):
        volumes, spacing_mm = upright({name: record[name] for name in CONTRASTS if name in record})
        start = time.perf_counter()
        accused = compare_contrasts(volumes, spacing_mm)
        seconds += time.perf_counter() - start
        num_subjects += 1
        num_pairs += len(volumes) * (len(volumes) - 1) // 2
        for finding in accused:
            print(f"  untouched {subject_name(record)}: {finding.code} {finding.message}")
        for kind, code, names, changed in faults(volumes, spacing_mm):
            planted[kind] += 1
            told = compare_contrasts(changed, spacing_mm)
            found[kind] += any(finding.code == code and names & set(finding.contrasts) for finding in told)
    print(
        f"{folder}: {num_subjects} subjects, {num_pairs} pairs, {seconds / max(num_subjects, 1):.1f} s each"
    )
    print("| fault | found |\n|---|---:|")
    for kind, number in planted.items():
        print(f"| {kind} | {found[kind]} of {number} |")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--subjects", type=int, default=12)
    options.add_argument("--seed", type=int, default=11)
    options.add_argument("--real", type=Path, nargs="*", default=[])
    options = options.parse_args()
    print(machine.describe())
    with tempfile.TemporaryDirectory() as folder:
        if options.subjects:
            simulate_subjects(Path(folder), num_subjects=options.subjects, seed=options.seed, spacing_mm=2.0)
            judge(Path(folder))
    for real in options.real:
        judge(real)


if __name__ == "__main__":
    main()
