"""What `compare_contrasts` finds: every fault planted in every subject, and what it says of untouched ones.

    python benchmarks/pair_check.py --subjects 12 --seed 11 --real ../shared/data/real/bids

Faults in pairs: one of two contrasts shifted 5 mm in each of six directions, mirrored, replaced by the other,
or both exchanged. Faults in whole subjects: found when the right contrast is named. Found/planted.
"""

import argparse
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from hmf_networks.data.folder import find_subjects
from hmf_networks.data.pair_check import Finding, compare_contrasts
from hmf_networks.data.phantom import simulate_subject
from hmf_networks.naming import CONTRASTS, subject_name
from machine import describe

SHIFT_MM = 5.0
NUMBER_WITHIN_MM = 2.5  # of 5 mm: real subjects are up to 2 mm apart before anything is planted
DIRECTIONS = list(itertools.product(range(3), (-1, 1)))
Volumes = dict[str, np.ndarray]
Subject = tuple[str, Volumes, tuple[float, ...]]
Found = defaultdict[tuple[str, str], list[bool]]  # of (contrasts, fault)


class Planted(NamedTuple):
    """A fault: the volumes that have it and the finding that is right; `odd` must be named, None: anyone.

    Without a code nothing is planted, and every finding counts as told: a false alarm.
    """

    contrasts: str
    fault: str
    volumes: Volumes
    code: str
    odd: set[str] | None = None

    def is_told(self, finding: Finding) -> bool:
        length_right = self.code != "W_SHIFT" or abs(finding.number - SHIFT_MM) < NUMBER_WITHIN_MM
        named = self.odd is None or self.odd == set(finding.contrasts)
        return finding.code == (self.code or finding.code) and length_right and named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--real", nargs="*", default=[], metavar="FOLDER", help="folders of real subjects")
    parser.add_argument("--subjects", type=int, default=12, help="simulated (default %(default)s)")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--spacing", type=float, nargs=3, default=(2.0, 2.0, 2.0), metavar="MM")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{__doc__.splitlines()[0]}\n{describe()}")
    spacing_mm = tuple(options.spacing)
    sources = {folder: real(folder) for folder in options.real}
    if options.subjects:
        sources[f"simulated, seed {options.seed}"] = simulated(options.subjects, options.seed, spacing_mm)
    tables = {}
    for title, subjects in sources.items():
        print(f"\n{title}")
        tables[title] = measure(subjects)
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": describe(), "tables": tables}, indent=1) + "\n")


def simulated(num_subjects: int, seed: int, spacing_mm: tuple[float, ...]) -> Iterator[Subject]:
    """Drawn at the finest of the three voxel sizes; slices averaged along the others."""
    finest = min(spacing_mm)
    blocks = [round(mm / finest) for mm in spacing_mm]
    for number in range(1, num_subjects + 1):
        images = simulate_subject(seed, number, spacing_mm=finest).images
        volumes = {name: averaged(image[::-1, ::-1].astype(np.float32), blocks) for name, image in images.items()}
        yield f"{seed}/{number}", volumes, tuple(finest * block for block in blocks)


def real(folder: str) -> Iterator[Subject]:
    for record in find_subjects(folder, []):
        images = {
            name: nibabel.as_closest_canonical(nibabel.load(record[name])) for name in CONTRASTS if name in record
        }
        volumes = {name: np.asarray(image.dataobj, dtype=np.float32) for name, image in images.items()}
        yield subject_name(record), volumes, next(iter(images.values())).header.get_zooms()[:3]


def measure(subjects: Iterator[Subject]) -> dict[str, object]:
    """Counts over all subjects, printed as tables when done."""
    tables: dict[str, Found] = {title: defaultdict(list) for title in PLANTERS}
    alarms: dict[str, list[str]] = {}
    seconds = []
    for name, volumes, spacing_mm in subjects:
        start = time.perf_counter()
        alarms[name] = [finding.message for finding in compare_contrasts(volumes, spacing_mm)]
        seconds.append(time.perf_counter() - start)
        for title, planter in PLANTERS.items():
            for planted in planter(volumes, spacing_mm):
                findings = compare_contrasts(planted.volumes, spacing_mm)
                told = any(map(planted.is_told, findings))
                tables[title][planted.contrasts, planted.fault].append(told)
                tables[title][planted.contrasts, "more said"].append(len(findings) > 1)
    for title, found in tables.items():
        print_table(title, found)
    spoken = {name: messages for name, messages in alarms.items() if messages}
    print(f"\nuntouched, with findings: {len(spoken)}/{len(alarms)}; {np.median(seconds):.1f} s a subject")
    for name, messages in spoken.items():
        print(f"  {name}: {'; '.join(messages)}")
    counts = {title: {" ".join(key): told for key, told in found.items()} for title, found in tables.items()}
    return counts | {"alarms": spoken}


def in_pairs(volumes: Volumes, spacing_mm: tuple[float, ...]) -> Iterator[Planted]:
    for first, second in itertools.combinations(volumes, 2):
        one, other = volumes[first], volumes[second]
        scaled = np.rint(one * np.float32(0.37) + 12)
        shifted = [moved(other, axis, sign * SHIFT_MM / spacing_mm[axis]) for axis, sign in DIRECTIONS]
        faults = [("shift", "W_SHIFT", one, volume) for volume in shifted] + [
            ("flip", "W_FLIP", one, other[::-1]),
            ("duplicate", "E_DUPLICATE", one, one.copy()),
            ("scaled duplicate", "E_DUPLICATE", one, scaled),
            ("exchange", "W_SWAP", other, one),
            ("none", "", one, other),
        ]
        for fault, code, *pair in faults:
            yield Planted(f"{first} {second}", fault, dict(zip((first, second), pair, strict=True)), code)


def in_whole_subjects(volumes: Volumes, spacing_mm: tuple[float, ...]) -> Iterator[Planted]:
    """One direction of shift for each contrast, and all else; nothing for subjects of two contrasts."""
    if len(volumes) < 3:
        return
    for number, (name, volume) in enumerate(volumes.items()):
        axis, sign = DIRECTIONS[number % len(DIRECTIONS)]
        shifted = moved(volume, axis, sign * SHIFT_MM / spacing_mm[axis])
        yield Planted(name, "shift", volumes | {name: shifted}, "W_SHIFT", {name})
        yield Planted(name, "flip", volumes | {name: volume[::-1]}, "W_FLIP", {name})
    for first, second in itertools.combinations(volumes, 2):
        exchanged = volumes | {first: volumes[second], second: volumes[first]}
        yield Planted(f"{first} {second}", "exchange", exchanged, "W_SWAP", {first, second})


PLANTERS = {"faults in pairs": in_pairs, "faults in whole subjects, the right one named": in_whole_subjects}


def moved(volume: np.ndarray, axis: int, steps: float) -> np.ndarray:
    """Shifted by any number of voxels along one axis, linear in between, the corner's value beyond."""
    whole = int(np.floor(steps))
    share = np.float32(steps - whole)
    return (1 - share) * rolled(volume, axis, whole) + share * rolled(volume, axis, whole + 1)


def rolled(volume: np.ndarray, axis: int, steps: int) -> np.ndarray:
    turned = np.roll(volume, steps, axis)
    ends = slice(0, steps) if steps >= 0 else slice(steps, None)
    turned[(slice(None),) * axis + (ends,)] = volume[0, 0, 0]
    return turned


def averaged(volume: np.ndarray, blocks: list[int]) -> np.ndarray:
    for axis, block in enumerate(blocks):
        lines = np.moveaxis(volume, axis, 0)[: volume.shape[axis] // block * block]
        volume = np.moveaxis(lines.reshape(-1, block, *lines.shape[1:]).mean(1), 0, axis)
    return np.ascontiguousarray(volume)


def print_table(title: str, found: Found) -> None:
    faults = list(dict.fromkeys(fault for _, fault in found))
    print(f"\n| {title} | {' | '.join(faults)} |\n|---|{'--:|' * len(faults)}")
    for row in dict.fromkeys(row for row, _ in found):
        cells = [found.get((row, fault), []) for fault in faults]
        shown = [f"{sum(cell)}/{len(cell)}" if cell else "" for cell in cells]
        print(f"| {row} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
