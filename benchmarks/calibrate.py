"""When not to trust it: expected errors and familiarity, fitted where the truth is known, then judged.

    python benchmarks/calibrate.py fit --weights model.pt --bids DIR --patients cs07 lg01 lg03 \
        --labels MAPS --maps 15 16 17 --pair without_cs07.pt cs07
    python benchmarks/calibrate.py judge --weights model.pt --bids DIR --held-out cs19 lg04 --brats DIR \
        --json docs/results/uncertainty.json

`fit` writes "calibration" and "familiar" into the model.json of `--weights`. A patient that weights have
learnt from looks better than a stranger will: name weights that have not seen it by `--pair`. Simulated
patients are drawn from the label maps. `judge` changes nothing. No file is written into the data.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from held_out import versions
from held_out_scores import TASKS, Task, read_scan, run_network, unfit
from held_out_tables import AS_IT_IS, REGISTERED
from machine import describe
from registered_truth import can_register, register_truth

from hmf_networks.atomic import write_whole
from hmf_networks.data.bids import find as find_bids
from hmf_networks.data.folder import find_subjects
from hmf_networks.data.head_phantom import SCANS, TRUTH, simulate_heads
from hmf_networks.data.label_maps import find_label_maps
from hmf_networks.engines.weights import add_measured, measured_of
from hmf_networks.hashing import file_hash
from hmf_networks.metrics import to_unit
from hmf_networks.naming import (
    CONTRASTS,
    Record,
    check_weights,
    error_path,
    output_path,
    subject_name,
    unknown_word,
)
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.outputs.bids import read_sidecar
from hmf_networks.outputs.failure import SubjectsFailed
from hmf_networks.reports.calibration import Sample, fit_calibration, judged
from hmf_networks.reports.scoring import Truth, read_prediction, read_truth, scale_by_fixed_map
from hmf_networks.reports.table import aligned, figure, strict
from hmf_networks.reports.upright import check_same_grid, read_upright
from hmf_networks.transforms.expected_error import check_calibration, error_features, interval_factors
from hmf_networks.transforms.familiarity import Features, fit_familiarity, source_features
from hmf_networks.transforms.intensity import OUTPUT_MAXIMUM
from hmf_networks.transforms.simulate import LoadHeadd

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
    features: np.ndarray
    truth_errors: np.ndarray
    error: np.ndarray
    sidecar: dict[str, Any]


def main() -> None:
    options = parsed()
    try:
        options.run(options)
    except (ValueError, OSError) as error:
        raise SystemExit(f"calibrate.py: {error}") from None


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, adds in (("fit", fit, _add_fit), ("judge", judge, _add_judge)):
        command = commands.add_parser(name)
        add = command.add_argument
        add("--weights", type=Path, required=True, metavar="MODEL.PT", help="with its model.json")
        add("--bids", type=Path, required=True, metavar="DIR")
        add("--voxels", type=int, default=20_000, metavar="N", help="of each volume (default %(default)s)")
        add("--seed", type=int, default=0, metavar="S")
        add("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps")
        add("--keep", type=Path, metavar="DIR", help="keep the volumes; those there are not remade")
        adds(command)
        command.set_defaults(run=run)
    return parser.parse_args()


def _add_fit(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--patients", nargs="+", required=True, metavar="PATIENT", help="of --bids")
    add(
        "--pair",
        nargs=2,
        action="append",
        default=[],
        metavar=("MODEL.PT", "PATIENT"),
        help="weights that have not seen this patient, in place of --weights; repeatable",
    )
    add("--labels", type=Path, metavar="DIR", help="label maps of whole heads, for simulated patients")
    add("--maps", nargs="+", default=[], metavar="NUMBER", help="those whose name ends so")
    add("--simulated", type=int, default=3, metavar="N", help="of them to synthesise (default %(default)s)")
    add(
        "--draws", type=int, default=12, metavar="N", help="of them in what is familiar (default %(default)s)"
    )


def _add_judge(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--held-out", nargs="+", default=[], metavar="PATIENT", help="of --bids")
    add("--brats", type=Path, metavar="DIR", help="all its patients")
    add("--json", type=Path, metavar="FILE")


def fit(options: argparse.Namespace) -> None:
    """Writes into model.json, after everything else went well."""
    pairs = {patient: Path(weights) for weights, patient in options.pair}
    if strangers := set(pairs) - set(options.patients):
        raise ValueError(f"--pair {', '.join(sorted(strangers))}: name them in --patients too")
    for weights in (options.weights, *pairs.values()):
        check_weights(weights)
    records = patients_of(options.bids, options.patients)
    cases = [Case(pairs.get(r["patient"], options.weights), r, r, "bids") for r in records]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        drawn = simulated(options, Path(temporary)) if options.labels is not None else []
        found = [
            one
            for number, task in enumerate(TASKS)
            for one in measured(task, cases + drawn[: options.simulated], folder, options, seed=number)
        ]
        scans = [(case, features_of(case.given)) for case in cases + drawn]
    if not found:
        raise ValueError("nothing could be measured; see the lines above")
    calibration = fit_calibration([Sample(f.task.target, f.features, f.truth_errors) for f in found])
    calibration |= {
        "patients": len({record["patient"] for record in records}),
        "unseen": len(pairs),
        "simulated": min(len(drawn), options.simulated),
    }
    familiar = fit_familiarity([scan for _, scan in scans], [case.patient for case, _ in scans])
    add_measured(options.weights, calibration=check_calibration(calibration), familiar=familiar)
    for name, factors in calibration["factors"].items():
        print(f"{name}: factors {factors}, coefficients {calibration['coefficients'][name]}")
    print(
        f"familiar: {familiar['scans']} scans, limit {familiar['limit']}\n{options.weights.stem}.json written"
    )


def judge(options: argparse.Namespace) -> None:
    calibration = check_calibration(measured_of(options.weights, "calibration"))
    records = patients_of(options.bids, options.held_out) if options.held_out else []
    cases = [Case(options.weights, record, record, "bids") for record in records]
    if options.brats is not None:
        cases += [Case(options.weights, r, r, "brats") for r in find_subjects(options.brats, [])]
    if not cases:
        raise ValueError("nobody to judge on; name patients by --held-out or --brats")
    found: list[Found] = []
    with tempfile.TemporaryDirectory() as temporary:
        for number, task in enumerate(TASKS):
            found += measured(task, cases, options.keep or Path(temporary), options, number, judging=True)
    content = {
        "settings": {
            "weights": options.weights.name,
            "weights_sha256": file_hash(options.weights),
            "calibration": calibration,
            "familiar_limit": (measured_of(options.weights, "familiar") or {}).get("limit"),
            "held_out": options.held_out,
            "brats": options.brats is not None,
            "tasks": [str(task) for task in TASKS],
            "protocol": "volume",
            "voxels": options.voxels,
            "seed": options.seed,
        },
        "versions": versions(),
        "machine": describe(),
        "tasks": [
            {"task": str(task), "variant": variant} | verdict(some, calibration)
            for task in TASKS
            for variant in (AS_IT_IS, REGISTERED)
            if (some := [one for one in found if (one.task, one.variant) == (task, variant)])
        ],
        "overall": verdict([one for one in found if one.variant == AS_IT_IS], calibration),
        "volumes": [of_volume(one, calibration) for one in found],
    }
    if options.json is not None:
        write_whole(options.json, json.dumps(strict(content), indent=1, allow_nan=False) + "\n")
    print(as_markdown(content))


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
    maps = [
        record
        for record in find_label_maps(options.labels)
        if not options.maps or any(record["patient"].endswith(number) for number in options.maps)
    ]
    if not maps:
        raise ValueError(f"{options.labels} has no map whose name ends with {', '.join(options.maps)}")
    load, cases = LoadHeadd(), []
    random = np.random.default_rng(options.seed)
    for draw in range(max(options.draws, options.simulated)):
        head = load(dict(maps[draw % len(maps)]))["head"]
        pixel, thickness = GRIDS_MM[random.integers(len(GRIDS_MM))]
        where = folder / "drawn" / str(draw)
        grid = {"spacing_mm": pixel, "thickness_mm": thickness}
        simulate_heads(where, [head], num_subjects=1, seed=options.seed + draw, layout="bids", **grid)
        name = {"patient": f"{maps[draw % len(maps)]['patient']}-{draw}"}
        (given,), (truths,) = find_bids(where / SCANS), find_bids(where / TRUTH)
        cases.append(Case(options.weights, {**given, **name}, {**truths, **name}, "simulated"))
        print(f"drawn: {name['patient']}, {pixel} x {thickness} mm", flush=True)
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
    task: Task,
    cases: Sequence[Case],
    folder: Path,
    options: argparse.Namespace,
    seed: int,
    *,
    judging: bool = False,
) -> Iterator[Found]:
    """Each case synthesised from the sources of the task alone; what cannot be is told and left out."""
    for weights in dict.fromkeys(case.weights for case in cases):
        if reason := unfit(weights, task):
            print(f"skipped: {task}: {reason}", flush=True)
            continue
        some = [case for case in cases if case.weights == weights and _is_complete(task, case)]
        place = folder / f"{file_hash(weights)[:8]}_{'_'.join(task.sources)}_to_{task.target}"
        for case in synthesised(task, some, weights, place, options.device, judging=judging):
            for variant in [AS_IT_IS, *([REGISTERED] if case.data == "brats" and can_register() else [])]:
                try:
                    one = look(
                        task, case, variant, place, np.random.default_rng([options.seed, seed]), options
                    )
                except (VolumeError, ValueError) as error:
                    print(f"skipped: {task}, {subject_name(case.given)}, {variant}: {error}", flush=True)
                    continue
                mean = one.truth_errors.mean()
                print(f"{task}, {subject_name(case.given)}, {variant}: mean error {mean:.4f}", flush=True)
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
    task: Task,
    case: Case,
    variant: str,
    place: Path,
    random: np.random.Generator,
    options: argparse.Namespace,
) -> Found:
    """Voxels of the brain, drawn at random, of what was written and of the truth."""
    path = place / _output(case, task)
    truth = truth_of(task, case, variant, place)
    volume = read_prediction(path, truth)
    error = read_upright(error_path(path), all_finite=True)
    check_same_grid(error, volume)
    brain = np.flatnonzero((truth.scaled > -1).numpy())
    picks = random.choice(brain, options.voxels, replace=len(brain) < options.voxels)
    predicted = to_unit(scale_by_fixed_map(volume))
    shares = torch.from_numpy(error.values) / OUTPUT_MAXIMUM
    features = error_features(predicted, shares, volume.spacing_mm, len(task.sources))
    return Found(
        case,
        task,
        variant,
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


def verdict(found: Sequence[Found], calibration: dict[str, Any]) -> dict[str, Any]:
    """Of several volumes together, and how many of them are familiar."""
    if not found:
        return {"volumes": 0}
    errors, expected = (
        np.concatenate([getattr(one, name) for one in found]) for name in ("truth_errors", "error")
    )
    factors = [interval_factors(calibration, one.task.target) for one in found]
    known = [one.sidecar["Familiarity"]["familiar"] for one in found if "Familiarity" in one.sidecar]
    return {"volumes": len(found), "familiar": sum(known), **judged(errors, expected, factors)}


def of_volume(one: Found, calibration: dict[str, Any]) -> dict[str, Any]:
    who = {"task": str(one.task), "data": one.case.data, "variant": one.variant}
    who |= {key: one.case.given[key] for key in ("patient", "session")}
    scores = verdict([one], calibration)
    scores["sparsification"] = {key: scores["sparsification"][key] for key in ("ause", "random")}
    return who | scores | {"familiarity": one.sidecar.get("Familiarity")}


def as_markdown(content: dict[str, Any]) -> str:
    lines = [["task", "volumes", "error", "expected", "Spearman", "AUSE", "random", "50 %", "80 %", "95 %"]]
    lines[0].append("familiar")
    overall = {"task": "overall", "variant": AS_IT_IS, **content["overall"]}
    for row in [*content["tasks"], overall]:
        if not row["volumes"]:
            continue
        name = row["task"] + ("" if row["variant"] == AS_IT_IS else f", {row['variant']}")
        area = row["sparsification"]
        cells = [row["mean_error"], row["mean_expected"], row["spearman"], area["ause"], area["random"]]
        covered = [f"{100 * share:.1f}" for share in row["coverage"].values()]
        counts = str(row["volumes"]), str(row["familiar"])
        lines.append([name, counts[0], *(figure(cell, 3) for cell in cells), *covered, counts[1]])
    return aligned(lines)


if __name__ == "__main__":
    main()
