"""Patients that `calibrate.py` fits on or judges by: synthesised, and looked at voxel by voxel."""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from held_out_scores import Task, read_scan, run_network, unfit
from held_out_tables import AS_IT_IS, REGISTERED
from hmf_networks.data.bids import find as find_bids
from hmf_networks.data.folder import find_subjects
from hmf_networks.data.head_phantom import SCANS, TRUTH, simulate_heads
from hmf_networks.hashing import file_hash
from hmf_networks.metrics import to_unit
from hmf_networks.naming import CONTRASTS, Record, error_path, output_path, subject_name, unknown_word
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.outputs.bids import read_sidecar
from hmf_networks.outputs.failure import SubjectsFailed
from hmf_networks.reports.scoring import Truth, read_prediction, read_truth, scale_by_fixed_map
from hmf_networks.reports.upright import check_same_grid, read_upright
from hmf_networks.transforms.expected_error import error_features
from hmf_networks.transforms.familiarity import Features, source_features
from hmf_networks.transforms.intensity import OUTPUT_MAXIMUM
from registered_truth import can_register, register_truth
from simulated_people import heads_of

BRAIN, WHOLE = REGIONS = ("brain", "whole")  # inside the truth's foreground; every voxel, air too
GRIDS_MM = ((1.0, 1.0), (1.0, 1.0), (0.9, 4.0), (0.7, 3.0), (1.0, 5.0))  # pixel and slice, drawn from


class Case(NamedTuple):
    """Whose scans are given, where its truths are, and the weights that are to synthesise it."""

    weights: Path
    given: Record
    truths: Record
    data: str

    @property
    def patient(self) -> str:
        return f"{self.data} {self.given['patient']}"


class Found(NamedTuple):
    """Voxels of one synthesised volume; `error` is that written beside it, a share of the range."""

    case: Case
    task: Task
    variant: str
    region: str
    features: np.ndarray
    truth_errors: np.ndarray
    error: np.ndarray
    sidecar: dict[str, Any]


def patients_of(root: Path, names: Sequence[str]) -> list[Record]:
    """Their records, all sessions."""
    records = find_subjects(root, [])
    known = dict.fromkeys(record["patient"] for record in records)
    for name in names:
        if name not in known:
            raise ValueError(unknown_word("patient", name, known))
    return [record for record in records if record["patient"] in names]


def simulated(options: argparse.Namespace, folder: Path) -> list[Case]:
    """Persons drawn from the label maps, each on a grid of its own, the first ones from different maps."""
    heads = list(heads_of(options.labels, options.maps).items())
    if not heads:
        raise ValueError("which label maps? name them by --maps 15 16 17")
    cases = []
    random = np.random.default_rng(options.seed)
    for draw in range(max(options.draws, options.simulated)):
        number, head = heads[draw % len(heads)]
        pixel, thickness = GRIDS_MM[random.integers(len(GRIDS_MM))]
        where = folder / "drawn" / str(draw)
        grid = {"spacing_mm": pixel, "thickness_mm": thickness}
        simulate_heads(where, [head], num_subjects=1, seed=options.seed + draw, layout="bids", **grid)
        name = {"patient": f"map{number}", "session": str(draw)}  # those of one map are kin
        (given,), (truths,) = find_bids(where / SCANS), find_bids(where / TRUTH)
        cases.append(Case(options.weights, {**given, **name}, {**truths, **name}, "simulated"))
        print(f"drawn: {subject_name(name)}, {pixel} x {thickness} mm", flush=True)
    return cases


def features_of(record: Record) -> Features:
    """Of all its contrasts, scaled as the network sees them."""
    names = [name for name in CONTRASTS if name in record]
    scans = [read_scan(record[name]) for name in names]
    for scan in scans[1:]:
        check_same_grid(scan.volume, scans[0].volume)
    image = np.stack([scan.scaled.numpy() for scan in scans])
    return source_features(image, names, scans[0].volume.spacing_mm)


def measured(
    task: Task, cases: Sequence[Case], folder: Path, options: argparse.Namespace, seed: int, *, judging: bool = False
) -> Iterator[Found]:
    """Each case synthesised from the sources of the task alone; what cannot be is told and left out."""
    for weights in dict.fromkeys(case.weights for case in cases):
        if reason := unfit(weights, task):
            print(f"skipped: {task}: {reason}", flush=True)
            continue
        some = [case for case in cases if case.weights == weights and _is_complete(task, case)]
        place = folder / f"{file_hash(weights)[:8]}_{'_'.join(task.sources)}_to_{task.target}"
        for case in synthesised(task, some, weights, place, options.device, judging=judging):
            variants = [AS_IT_IS, *([REGISTERED] if case.data == "brats" and can_register() else [])]
            for variant, region in itertools.product(variants, REGIONS if judging else (BRAIN,)):
                random = np.random.default_rng([options.seed, seed])
                try:
                    one = look(task, case, variant, region, place, random, options.voxels)
                except (VolumeError, ValueError) as error:
                    print(f"skipped: {task}, {subject_name(case.given)}, {variant}: {error}", flush=True)
                    continue
                mean = one.truth_errors.mean()
                print(f"{task}, {subject_name(case.given)}, {variant}, {region}: mean error {mean:.4f}", flush=True)
                yield one


def _is_complete(task: Task, case: Case) -> bool:
    return task.target in case.truths and all(name in case.given for name in task.sources)


def synthesised(
    task: Task, cases: Sequence[Case], weights: Path, place: Path, device: str, *, judging: bool
) -> list[Case]:
    """Those that are there; to fit on, the plain spread is written in the place of an expected error."""
    if not cases:
        return []
    more = {"uncertainty": True} | ({} if judging else {"calibration": None, "familiar": None})
    try:
        run_network(weights, [case.given for case in cases], place, task, device, **more)
    except (SubjectsFailed, ValueError, OSError) as error:
        print(f"skipped: {task}: {error}", flush=True)
    return [case for case in cases if (place / _output(case, task)).is_file()]


def _output(case: Case, task: Task) -> Path:
    return output_path({**case.given, "layout": "datalist"}, task.target)


def look(
    task: Task, case: Case, variant: str, region: str, place: Path, random: np.random.Generator, num_voxels: int
) -> Found:
    """Voxels of the region, drawn at random, of what was written and of the truth."""
    path = place / _output(case, task)
    truth = truth_of(task, case, variant, place)
    volume = read_prediction(path, truth)
    error = read_upright(error_path(path), all_finite=True)
    check_same_grid(error, volume)
    inside = np.flatnonzero((truth.scaled > -1).numpy()) if region == BRAIN else np.arange(truth.scaled.numel())
    picks = random.choice(inside, num_voxels, replace=len(inside) < num_voxels)
    predicted = to_unit(scale_by_fixed_map(volume))
    shares = torch.from_numpy(error.values) / OUTPUT_MAXIMUM
    features = error_features(predicted, shares, volume.spacing_mm, len(task.sources))
    return Found(
        case,
        task,
        variant,
        region,
        np.stack([_picked(feature, picks) for feature in features], axis=1),
        _picked((predicted - to_unit(truth.scaled)).abs(), picks),
        _picked(shares, picks),
        read_sidecar(path),
    )


def truth_of(task: Task, case: Case, variant: str, place: Path) -> Truth:
    if variant == AS_IT_IS:
        return read_truth({"scan": case.truths[task.target]}, "scan")
    path = place / "registered" / f"{subject_name(case.given)}_{task.target}.nii.gz"
    if not path.is_file():
        register_truth(case.truths[task.target], case.given[task.sources[0]], path)
    return read_truth({"scan": str(path)}, "scan")


def _picked(values: torch.Tensor, picks: np.ndarray) -> np.ndarray:
    return values.flatten()[torch.from_numpy(picks)].double().numpy()
