"""Weights measured on real patients, beside what needs no network: the tables of the model card.

    python benchmarks/held_out.py --weights model.pt --bids DIR --brats DIR --fitted-on cs07 lg01 lg03 \
        --held-out cs19 lg04 --json docs/results/held_out.json

The regression is fitted on the patients of `--fitted-on`; all others are held out, those of `--brats` always.
Contrasts of BraTS may lie a voxel or two off each other: they are scored as they are, and again with the
truth registered onto the first source (`registered_truth.py`). No file is written into `--bids` or `--brats`.
"""

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from held_out_scores import PROTOCOLS, TASKS, Measurement, Scan
from held_out_tables import AS_IT_IS, REGISTERED, as_markdown, summaries
from hmf_networks import __version__
from hmf_networks.atomic import write_whole
from hmf_networks.data.folder import find_subjects
from hmf_networks.data.records import check_distinct
from hmf_networks.engines.device import choose_device
from hmf_networks.hashing import file_hash
from hmf_networks.naming import Record, check_weights, unknown_word
from hmf_networks.reports.table import strict
from machine import describe
from registered_truth import can_register

PACKAGES = ("torch", "monai", "numpy", "scipy", "nibabel")


def main() -> None:
    options = parsed()
    try:
        check(options)
        fitting, scans = find_scans(options)
    except (ValueError, OSError) as error:
        raise SystemExit(f"held_out.py: {error}") from None
    about = {"settings": settings(options), "versions": versions(), "machine": describe()}
    print(f"{__doc__.splitlines()[0]}\n{about['machine']}")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary:
        weights = None if options.no_network else options.weights
        folder = options.keep or Path(temporary)
        measurement = Measurement(fitting, scans, folder, weights=weights, device=options.device)
        for task in TASKS:
            measurement.measure(task)
            found = measurement.found | {"seconds": round(time.perf_counter() - started)}
            content = strict(about | found | {"summary": summaries(found["rows"])})
            if options.json is not None:  # after each task: a run of hours may be cut short
                write_whole(options.json, json.dumps(content, indent=1, allow_nan=False) + "\n")
    print(f"\n{as_markdown(found['rows'])}\n\n{found['seconds']} s")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, metavar="MODEL.PT", help="with its model.json")
    parser.add_argument("--no-network", action="store_true", help="score the baselines alone")
    parser.add_argument("--bids", type=Path, required=True, metavar="DIR")
    parser.add_argument("--brats", type=Path, metavar="DIR", help="all its patients are held out")
    parser.add_argument("--fitted-on", nargs="+", required=True, metavar="PATIENT", help="of --bids")
    parser.add_argument("--held-out", nargs="+", default=[], metavar="PATIENT", help="of --bids")
    parser.add_argument(
        "--leave-one-out",
        action="store_true",
        help="also score each patient of --fitted-on beside the regression fitted on the others",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every score, for later")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the volumes; those there are not remade")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps")
    return parser.parse_args()


def check(options: argparse.Namespace) -> None:
    """Before hours are spent; ValueError or OSError."""
    if not options.no_network and options.weights is None:
        raise ValueError("name the --weights, or ask for --no-network")
    if not options.no_network:
        check_weights(options.weights)
    if options.brats is not None and not can_register():
        raise ValueError("the truths of --brats are registered by ITK: pip install 'hmf-networks[prepare]'")
    if options.leave_one_out and len(set(options.fitted_on)) < 2:
        raise ValueError("--leave-one-out needs two patients in --fitted-on: one to score, one to fit on")
    if both := set(options.fitted_on) & set(options.held_out):
        raise ValueError(f"{', '.join(sorted(both))} cannot be fitted on and held out")
    keep_out_of((options.bids, options.brats), (options.json, options.keep))


def keep_out_of(data: Iterable[Path | None], outputs: Iterable[Path | None]) -> None:
    """ValueError for an output that lies in a folder of data."""
    for output in filter(None, outputs):
        for folder in filter(None, data):
            if output.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{output} lies in {folder}: nothing is written there")


def find_scans(options: argparse.Namespace) -> tuple[list[Record], list[Scan]]:
    """Whom the regression is fitted on, and whom to score: held-out patients, then those left out in turn."""
    of_bids = find_subjects(options.bids, [])
    of_brats = find_subjects(options.brats, []) if options.brats is not None else []
    check_distinct(of_bids + of_brats)
    patients = dict.fromkeys(record["patient"] for record in of_bids)
    for name in (*options.fitted_on, *options.held_out):
        if name not in patients:
            raise ValueError(unknown_word("patient", name, patients))
    fitted_on = tuple(name for name in patients if name in options.fitted_on)
    scans = [Scan(record, "held out", "bids", fitted_on) for record in of_bids if record["patient"] in options.held_out]
    scans += [Scan(record, "held out", "brats", fitted_on, (AS_IT_IS, REGISTERED)) for record in of_brats]
    fitting = [record for record in of_bids if record["patient"] in fitted_on]
    if options.leave_one_out:
        for record in fitting:
            others = tuple(name for name in fitted_on if name != record["patient"])
            scans.append(Scan(record, "leave one out", "bids", others))
    if not scans:
        raise ValueError("nobody to score; name patients by --held-out, --brats or --leave-one-out")
    return fitting, scans


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """What was asked, without folders, which may tell of people and places."""
    hashed = None if options.no_network else file_hash(options.weights)
    return {
        "weights": None if options.no_network else options.weights.name,
        "weights_sha256": hashed,
        "fitted_on": options.fitted_on,
        "held_out": options.held_out,
        "brats": options.brats is not None,
        "leave_one_out": options.leave_one_out,
        "tasks": [str(task) for task in TASKS],
        "protocols": PROTOCOLS,
        "device": str(choose_device(options.device)),
    }


def versions() -> dict[str, str]:
    packages = {name: version(name) for name in (*PACKAGES, *(["itk"] if can_register() else []))}
    return {"hmf_networks": __version__, "python": platform.python_version(), **packages}


if __name__ == "__main__":
    main()
