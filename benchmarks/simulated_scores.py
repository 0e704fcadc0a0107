"""What `simulated_held_out.py` measures: every task, lesions against the rest, decoding at other grids.

Shapes: volumes (X, Y, Z) in RAS+, planes are perpendicular to the last axis.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from held_out_scores import PROTOCOLS, TASKS, Measurement, Scan, Task, read_scan, run_network, unfit, volumes_in
from hmf_networks.data.head_phantom import LESION as LESION_LABEL
from hmf_networks.engines.inferer import DECODE
from hmf_networks.engines.weights import what_for
from hmf_networks.metrics import psnr, to_unit
from hmf_networks.naming import Record
from hmf_networks.ops.coordinates import pixel_centres, sample_plane
from hmf_networks.outputs.failure import SubjectsFailed
from hmf_networks.reports.scoring import Truth, read_prediction, scale_by_fixed_map, score
from hmf_networks.reports.upright import Upright, read_upright
from hmf_networks.transforms.slices import resample_planes, resampled_size
from simulated_people import Person
from torch import Tensor

ALL_TASKS = (*TASKS, Task(("t1", "t2"), "pd"), Task(("t2",), "pd"))
DECODED_TASKS = (Task(("t1", "flair"), "t2"), Task(("t2", "flair"), "t1"))
FEWEST_VOXELS = 10  # of lesion, for a score of it
LESION, REST = "lesion", "rest"
BY_PIXELS = "truth"  # by way of the network's pixels: what resampling would leave of a perfect network


def measure_task(
    task: Task, people: Sequence[Person], fitting: Sequence[Person], folder: Path, **options: Any
) -> dict[str, Any]:
    """{"rows", "regressions", "skipped"}: network, regression and copies; groups are the kinds of people."""
    of_kind = {kind: tuple(p.name for p in fitting if p.kind == kind) for kind in {p.kind for p in people}}
    scans = [Scan(p.record(task), p.kind, "simulated", of_kind[p.kind]) for p in people]
    measurement = Measurement([p.record(task) for p in fitting], scans, folder, scorer=with_lesions, **options)
    measurement.measure(task)
    return {key: measurement.found[key] for key in ("rows", "regressions", "skipped")}


def with_lesions(prediction: Upright, truth: Truth, record: Record) -> list[dict[str, Any]]:
    """As usual, and PSNR of the lesions and of the rest of the brain, one range for both."""
    rows = score(prediction, truth, PROTOCOLS)
    tissues = read_tissues(record["tissues"])
    lesion = (tissues == LESION_LABEL) & (truth.scaled > -1)
    if lesion.sum() < FEWEST_VOXELS:
        return rows
    regions = {LESION: lesion, REST: (tissues > 0) & ~lesion}
    predicted, true = to_unit(scale_by_fixed_map(prediction)), to_unit(truth.scaled)
    scores = {region: psnr(predicted, true, mask) for region, mask in regions.items()}
    return rows + [{"protocol": "volume", "region": region, "psnr": db} for region, db in scores.items()]


@lru_cache(8)
def read_tissues(path: str) -> Tensor:
    """The labels of `simulate_heads`: 0 outside the brain."""
    return torch.from_numpy(read_upright(path).values)


def measure_decoding(
    task: Task, people: Sequence[Person], spacing_mm: float, folder: Path, *, weights: Path, device: str
) -> dict[str, Any]:
    """{"decoding": rows, "skipped"}: the same scans, decoded at their own pixels, and resampled from 1 mm."""
    if reason := unfit(weights, task):
        return {"decoding": [], "skipped": [f"{task}, decoding: {reason}"]}
    records = [person.record(task) for person in people]
    volumes, skipped = {}, []
    for decode in DECODE:
        place = folder / f"{task.target}_{decode}"
        try:
            run_network(weights, records, place, task, device, decode=decode)
        except (SubjectsFailed, ValueError, OSError) as error:
            skipped.append(f"{task}, {spacing_mm:g} mm, {decode}: {error}")
        volumes[decode] = volumes_in(place, records, task)
    pixel_mm = what_for(weights).get("pixel_mm", 1.0)
    rows = [
        {"task": str(task), "spacing_mm": spacing_mm, **person.told(), **row}
        for person, record in zip(people, records, strict=True)
        if all(person.name in volumes[decode] for decode in DECODE)
        for row in decoded(read_scan(record[task.target]), {d: volumes[d][person.name] for d in DECODE}, pixel_mm)
    ]
    print(f"{task}, decoded at {spacing_mm:g} mm, {len(people)} people", flush=True)
    return {"decoding": rows, "skipped": skipped}


def decoded(truth: Truth, paths: dict[str, Path], pixel_mm: float) -> Iterator[dict[str, Any]]:
    """PSNR in the brain, and how much of the truth's gradient energy there is."""
    brain, true = truth.scaled > -1, to_unit(truth.scaled)
    predictions = {decode: to_unit(scale_by_fixed_map(read_prediction(path, truth))) for decode, path in paths.items()}
    predictions[BY_PIXELS] = by_pixels(true, truth.volume.spacing_mm, pixel_mm)
    energy = gradient_energy(true, brain)
    for decode, prediction in predictions.items():
        ratio = gradient_energy(prediction, brain) / energy
        yield {"decode": decode, "psnr": psnr(prediction, true, brain), "gradient_ratio": ratio}


def gradient_energy(volume: Tensor, mask: Tensor) -> float:
    """Mean square of the step from pixel to pixel within planes, both pixels in the mask."""
    steps = [(volume.diff(dim=axis), _neighbours(mask, axis)) for axis in (0, 1)]
    return float(torch.cat([step[both] for step, both in steps]).double().square().mean())


def by_pixels(volume: Tensor, spacing_mm: Sequence[float], pixel_mm: float) -> Tensor:
    """The volume brought to the network's pixels and back, as the inferer's "resample" does it."""
    planes = volume.movedim(-1, 0)[:, None]
    size = [resampled_size(n, mm, pixel_mm) for n, mm in zip(volume.shape[:2], spacing_mm[:2], strict=True)]
    coarse = resample_planes(planes, (size[0], size[1]))
    centres = [pixel_centres(m, n) for m, n in zip(size, volume.shape[:2], strict=True)]
    return sample_plane(coarse, *centres)[:, 0].movedim(0, -1)


def _neighbours(mask: Tensor, axis: int) -> Tensor:
    count = mask.shape[axis] - 1
    return mask.narrow(axis, 0, count) & mask.narrow(axis, 1, count)
