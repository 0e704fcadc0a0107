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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from calibrate_cases import REGIONS, Case, Found, features_of, measured, patients_of, simulated
from held_out import keep_out_of, versions
from held_out_scores import TASKS
from held_out_tables import AS_IT_IS, REGISTERED
from hmf_networks.atomic import write_whole
from hmf_networks.data.folder import find_subjects
from hmf_networks.engines.weights import add_measured, measured_of
from hmf_networks.hashing import file_hash
from hmf_networks.naming import check_weights
from hmf_networks.reports.calibration import Sample, fit_calibration, judged
from hmf_networks.reports.table import aligned, figure, strict
from hmf_networks.transforms.expected_error import check_calibration, interval_factors
from hmf_networks.transforms.familiarity import fit_familiarity
from machine import describe


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
    add("--maps", nargs="+", type=int, default=[], metavar="NUMBER", help="those whose names end so")
    add("--simulated", type=int, default=3, metavar="N", help="of them to synthesise (default %(default)s)")
    add("--draws", type=int, default=12, metavar="N", help="of them in what is familiar (default %(default)s)")


def _add_judge(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--held-out", nargs="+", default=[], metavar="PATIENT", help="of --bids")
    add("--brats", type=Path, metavar="DIR", help="all its patients")
    add("--json", type=Path, metavar="FILE")


def fit(options: argparse.Namespace) -> None:
    """Writes into model.json, after everything else went well."""
    keep_out_of((options.bids, options.labels), (options.keep,))
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
    print(f"familiar: {familiar['scans']} scans, limit {familiar['limit']}\n{options.weights.stem}.json written")


def judge(options: argparse.Namespace) -> None:
    keep_out_of((options.bids, options.brats), (options.keep, options.json))
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
            {"task": name, "variant": variant, "region": region} | verdict(some, calibration)
            for name, tasks in [*((str(task), [task]) for task in TASKS), ("all", TASKS)]
            for variant in (AS_IT_IS, REGISTERED)
            for region in REGIONS
            if (some := [f for f in found if f.task in tasks and (f.variant, f.region) == (variant, region)])
        ],
        "volumes": [of_volume(one, calibration) for one in found],
    }
    if options.json is not None:
        write_whole(options.json, json.dumps(strict(content), indent=1, allow_nan=False) + "\n")
    print(as_markdown(content))


def verdict(found: Sequence[Found], calibration: dict[str, Any]) -> dict[str, Any]:
    """Of several volumes together, and how many of them are familiar."""
    errors, expected = (np.concatenate([getattr(one, name) for one in found]) for name in ("truth_errors", "error"))
    factors = [interval_factors(calibration, one.task.target) for one in found]
    known = [one.sidecar["Familiarity"]["familiar"] for one in found if "Familiarity" in one.sidecar]
    return {"volumes": len(found), "familiar": sum(known), **judged(errors, expected, factors)}


def of_volume(one: Found, calibration: dict[str, Any]) -> dict[str, Any]:
    who = {"task": str(one.task), "data": one.case.data, "variant": one.variant, "region": one.region}
    who |= {key: one.case.given[key] for key in ("patient", "session")}
    scores = verdict([one], calibration)
    scores["sparsification"] = {key: scores["sparsification"][key] for key in ("ause", "random")}
    return who | scores | {"familiarity": one.sidecar.get("Familiarity")}


def as_markdown(content: dict[str, Any]) -> str:
    lines = [["task", "volumes", "error", "expected", "Spearman", "AUSE", "random", "50 %", "80 %", "95 %"]]
    lines[0].append("familiar")
    for row in content["tasks"]:
        name = f"{row['task']}, {row['region']}" + ("" if row["variant"] == AS_IT_IS else f", {row['variant']}")
        area = row["sparsification"]
        cells = [row["mean_error"], row["mean_expected"], row["spearman"], area["ause"], area["random"]]
        covered = [f"{100 * share:.1f}" for share in row["coverage"].values()]
        counts = str(row["volumes"]), str(row["familiar"])
        lines.append([name, counts[0], *(figure(cell, 3) for cell in cells), *covered, counts[1]])
    return aligned(lines)


if __name__ == "__main__":
    main()
