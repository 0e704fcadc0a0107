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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import nibabel
import numpy as np
from machine import describe

from hmf_networks.data.folder import find_subjects
from hmf_networks.data.pair_check import Finding, compare_contrasts
from hmf_networks.data.phantom import simulate_subject
from hmf_networks.naming import CONTRASTS, subject_name

SHIFT_MM = 5.0
NUMBER_WITHIN_MM = 2.5  # of 5 mm: real subjects are 2 mm apart before anything is planted
Volumes = dict[str, np.ndarray]
Subject = tuple[str, Volumes, tuple[float, ...]]
Counts = defaultdict[tuple[str, str], list[bool]]


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
    tables = {
        f"simulated, seed {options.seed}": measure(simulated(options.subjects, options.seed, spacing_mm))
    }
    tables |= {folder: measure(real(folder)) for folder in options.real}
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": describe(), "tables": tables}, indent=1) + "\n")


def simulated(num_subjects: int, seed: int, spacing_mm: tuple[float, ...]) -> Iterator[Subject]:
    """Drawn at the finest of the three voxel sizes; slices averaged along the others."""
    finest = min(spacing_mm)
    blocks = [round(mm / finest) for mm in spacing_mm]
    for number in range(1, num_subjects + 1):
        images = simulate_subject(seed, number, spacing_mm=finest).images
        volumes = {
            name: averaged(image[::-1, ::-1].astype(np.float32), blocks) for name, image in images.items()
        }
        yield f"{seed}/{number}", volumes, tuple(finest * block for block in blocks)


def real(folder: str) -> Iterator[Subject]:
    for record in find_subjects(folder, []):
        images = {
            name: nibabel.as_closest_canonical(nibabel.load(record[name]))
            for name in CONTRASTS
            if name in record
        }
        volumes = {name: np.asarray(image.dataobj, dtype=np.float32) for name, image in images.items()}
        yield subject_name(record), volumes, next(iter(images.values())).header.get_zooms()[:3]


def measure(subjects: Iterator[Subject]) -> dict[str, object]:
    """Counts over all subjects, printed as tables when done."""
    pairs: Counts = defaultdict(list)
    whole: Counts = defaultdict(list)
    alarms: dict[str, list[str]] = {}
    seconds = []
    for name, volumes, spacing_mm in subjects:
        start = time.perf_counter()
        findings = compare_contrasts(volumes, spacing_mm)
        seconds.append(time.perf_counter() - start)
        alarms[name] = [finding.message for finding in findings]
        plant_in_pairs(volumes, spacing_mm, pairs)
        plant_in_whole(volumes, spacing_mm, whole)
    print_table("faults in pairs", pairs)
    print_table("faults in whole subjects, the right contrast named", whole)
    spoken = {name: messages for name, messages in alarms.items() if messages}
    print(f"\nuntouched, with findings: {len(spoken)}/{len(alarms)}; {np.median(seconds):.1f} s a subject")
    for name, messages in spoken.items():
        print(f"  {name}: {'; '.join(messages)}")
    counts = {kind: {" ".join(key): found for key, found in table.items()} for kind, table in
              (("pairs", pairs), ("whole", whole))}  # fmt: skip
    return counts | {"alarms": spoken}


def plant_in_pairs(volumes: Volumes, spacing_mm: tuple[float, ...], counts: Counts) -> None:
    for first, second in itertools.combinations(volumes, 2):
        one, other = volumes[first], volumes[second]

        def judge(fault: str, code: str, one: np.ndarray, other: np.ndarray, pair=(first, second)) -> None:
            findings = compare_contrasts(dict(zip(pair, (one, other), strict=True)), spacing_mm)
            right = lambda found: found.code == code and (code != "W_SHIFT" or near(found.number))  # noqa: E731
            counts[" ".join(pair), fault].append(any(map(right, findings)))

        for axis, sign in itertools.product(range(3), (-1, 1)):
            judge("shift", "W_SHIFT", one, moved(other, axis, sign * SHIFT_MM / spacing_mm[axis]))
        judge("flip", "W_FLIP", one, other[::-1])
        judge("duplicate", "E_DUPLICATE", one, one.copy())
        judge("scaled duplicate", "E_DUPLICATE", one, np.rint(one * 0.37 + 12))
        judge("exchange", "W_SWAP", other, one)


def plant_in_whole(volumes: Volumes, spacing_mm: tuple[float, ...], counts: Counts) -> None:
    if len(volumes) < 3:
        return

    def judge(who: str, fault: str, changed: Volumes, right: Callable[[Finding], bool]) -> None:
        findings = compare_contrasts(volumes | changed, spacing_mm)
        counts[who, fault].append(any(map(right, findings)))
        counts[who, f"{fault}, nothing else said"].append(len(findings) == 1)

    for number, name in enumerate(volumes):
        axis, sign = number % 3, (-1) ** number
        shifted = {name: moved(volumes[name], axis, sign * SHIFT_MM / spacing_mm[axis])}
        judge(name, "shift", shifted, lambda found, who=name: found[:2] == ("W_SHIFT", (who,)))
        flipped = {name: volumes[name][::-1]}
        judge(name, "flip", flipped, lambda found, who=name: found[:2] == ("W_FLIP", (who,)))
    for pair in itertools.combinations(volumes, 2):
        exchanged = {pair[0]: volumes[pair[1]], pair[1]: volumes[pair[0]]}
        judge(
            " ".join(pair),
            "exchange",
            exchanged,
            lambda found, who=pair: found.code == "W_SWAP" and set(found.contrasts) == set(who),
        )


def near(number_mm: float) -> bool:
    return abs(number_mm - SHIFT_MM) < NUMBER_WITHIN_MM


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


def print_table(title: str, counts: Mapping[tuple[str, str], list[bool]]) -> None:
    faults = list(dict.fromkeys(fault for _, fault in counts))
    print(f"\n| {title} | {' | '.join(faults)} |\n|---|{'--:|' * len(faults)}")
    for row in dict.fromkeys(row for row, _ in counts):
        cells = [counts.get((row, fault)) for fault in faults]
        shown = ["" if found is None else f"{sum(found)}/{len(found)}" for found in cells]
        print(f"| {row} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
