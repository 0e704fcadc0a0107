"""Weights measured on simulated people whose heads they never saw: contrasts, lesions, decoding.

    python benchmarks/simulated_held_out.py --weights model.pt --labels DIR --maps 18 19 20 \
        --fitted-on-maps 15 16 17 --json docs/results/simulated.json

Maps are named by the number that their files end in; no other file of DIR is opened. People have thick
slices, with skull and without, and the network gets their scans as by `hmf synthesize`. The truth is what a
canonical protocol would have shown without noise. `--fast` takes far less time.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from held_out import versions
from held_out_scores import PROTOCOLS
from hmf_networks.atomic import write_whole
from hmf_networks.engines.device import choose_device
from hmf_networks.hashing import file_hash
from hmf_networks.naming import check_weights
from hmf_networks.physics.head import Head
from hmf_networks.reports.table import strict
from machine import describe
from simulated_people import KINDS, heads_of, simulate_people
from simulated_scores import ALL_TASKS, DECODED_TASKS, measure_decoding, measure_task
from simulated_tables import as_tables, summarised

SCORED_SEED, FITTED_SEED, DECODED_SEED = 1, 2, 3


class Size(NamedTuple):
    """How much is measured; people are counted for each kind and map."""

    people: int
    fitted: int
    decoded: int
    thickness_mm: float  # of whole heads: a slab would be scaled by other percentiles than a head
    decoded_slices: int  # of a slab, 1 mm thick: either way of decoding is scaled alike
    spacing_mm: float = 1.0
    decoded_mm: tuple[float, ...] = (0.5, 0.7, 0.94, 1.2)


FULL = Size(people=3, fitted=1, decoded=1, thickness_mm=5.0, decoded_slices=10)
FAST = Size(1, 1, 1, thickness_mm=8.0, decoded_slices=2, spacing_mm=2.0, decoded_mm=(0.7, 1.2))


def main() -> None:
    options = parsed()
    try:
        check(options)
        scored, fitted = (heads_of(options.labels, maps) for maps in (options.maps, options.fitted_on_maps))
    except (ValueError, OSError) as error:
        raise SystemExit(f"simulated_held_out.py: {error}") from None
    size = FAST if options.fast else FULL
    about = {"settings": settings(options, size), "versions": versions(), "machine": describe()}
    print(f"{__doc__.splitlines()[0]}\n{about['machine']}")
    with tempfile.TemporaryDirectory() as temporary:
        content = measure(options, size, scored, fitted, Path(temporary), Report(about, options.json))
    print(f"\n{as_tables(content)}\n\n{content['seconds']} s")


class Report:
    """What was found so far, written after every part: a run may be cut short."""

    def __init__(self, about: dict[str, Any], path: Path | None) -> None:
        self.about, self.path, self.started = about, path, time.perf_counter()
        self.found: dict[str, list[Any]] = {key: [] for key in ("people", "rows", "regressions", "skipped", "decoding")}

    def add(self, part: dict[str, list[Any]]) -> None:
        for key, more in part.items():
            self.found[key] += more
        if self.path is not None:
            write_whole(self.path, json.dumps(self.content(), indent=1, allow_nan=False) + "\n")

    def content(self) -> dict[str, Any]:
        seconds = {"seconds": self.seconds()}
        return strict(self.about | self.found | seconds | summarised(self.found))

    def seconds(self) -> int:
        return round(time.perf_counter() - self.started)


def measure(
    options: argparse.Namespace,
    size: Size,
    scored: dict[int, Head],
    fitted: dict[int, Head],
    folder: Path,
    report: Report,
) -> dict[str, Any]:
    network = {"weights": options.weights, "device": options.device}
    voxel = {"thickness_mm": size.thickness_mm, "spacing_mm": size.spacing_mm}
    people = simulate_people(folder / "people", scored, per_map=size.people, seed=SCORED_SEED, **voxel)
    fitting = simulate_people(folder / "fitted", fitted, per_map=size.fitted, seed=FITTED_SEED, **voxel)
    print(f"{len(people)} people to score, {len(fitting)} to fit on: {report.seconds()} s", flush=True)
    report.add({"people": [person.told() for person in people]})
    for task in ALL_TASKS:
        report.add(measure_task(task, people, fitting, folder, **network))
        print(f"{task}: {report.seconds()} s", flush=True)
    for spacing_mm in size.decoded_mm:
        place = folder / f"decoded_{spacing_mm}"
        slab = {"num_slices": size.decoded_slices, "spacing_mm": spacing_mm, "thickness_mm": 1.0}
        people = simulate_people(place, scored, per_map=size.decoded, seed=DECODED_SEED, **slab)
        for task in DECODED_TASKS:
            report.add(measure_decoding(task, people, spacing_mm, place, **network))
    return report.content()


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True, metavar="MODEL.PT", help="with its model.json")
    parser.add_argument("--labels", type=Path, required=True, metavar="DIR", help="label maps of whole heads")
    parser.add_argument("--maps", type=int, nargs="+", default=[18, 19, 20], metavar="N", help="held out")
    parser.add_argument(
        "--fitted-on-maps",
        type=int,
        nargs="+",
        default=[15, 16, 17],
        metavar="N",
        help="for the regression (default 15 16 17)",
    )
    parser.add_argument("--fast", action="store_true", help="few people and slices")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every score, for later")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda or mps")
    return parser.parse_args()


def check(options: argparse.Namespace) -> None:
    """Before the time is spent; ValueError or OSError."""
    check_weights(options.weights)
    if both := set(options.maps) & set(options.fitted_on_maps):
        raise ValueError(f"maps {', '.join(map(str, sorted(both)))} cannot be fitted on and held out")
    if options.json is not None and options.json.resolve().is_relative_to(options.labels.resolve()):
        raise ValueError(f"{options.json} lies in {options.labels}: nothing is written there")


def settings(options: argparse.Namespace, size: Size) -> dict[str, Any]:
    """What was asked, without folders, which may tell of people and places."""
    return {
        "weights": options.weights.name,
        "weights_sha256": file_hash(options.weights),
        "maps": options.maps,
        "fitted_on_maps": options.fitted_on_maps,
        "fast": options.fast,
        "size": size._asdict(),
        "kinds": list(KINDS),
        "tasks": [str(task) for task in ALL_TASKS],
        "protocols": PROTOCOLS,
        "device": str(choose_device(options.device)),
    }


if __name__ == "__main__":
    main()
