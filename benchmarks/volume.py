"""One subject from a cold start to its files on disk, by phases, through `inference.json`.

    python benchmarks/volume.py DIR [--width 32] [--target t2] [--precision auto] [--copies 1] [--json OUT]
    python benchmarks/volume.py [DIR] --weights MODEL.PT --sources t1 flair [--target t2] [--json OUT]

The second way is what a user waits for: one cold process of `hmf synthesize` with these weights on two cores,
from start to end, and the most memory it held (`cold_start.py`).

The first way: DIR is a folder of one subject that has T1 and FLAIR, e.g. of `hmf simulate DIR --subjects 1`;
from these the target is made or, without one, all that is missing. `--copies 20` does so twenty times, to see
whether memory grows. Weights are random: time does not depend on them.
`floor` is the same run with the scans and the INRB taken out of the network. Of several subjects, reading and
writing happen beside the network: their seconds are not a part of the total then.
"""

import time

STARTED = time.perf_counter()

import argparse  # noqa: E402
import json  # noqa: E402
import resource  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Callable  # noqa: E402
from contextlib import nullcontext  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402
from unittest.mock import patch  # noqa: E402

CONFIG = Path(__file__).parent.parent / "bundle" / "configs" / "inference.json"


class Stopwatch(dict[str, float]):
    """Seconds by phase."""

    def timed(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self[phase] = self.get(phase, 0.0) + time.perf_counter() - start
            return result

        return wrapped


def run_once(options: argparse.Namespace) -> None:
    """In a process of its own: the run, and a line of JSON with what it took."""
    import torch
    from hmf_networks.nets import HMFMambaINR
    from hmf_networks.ops import selective_scan, selective_scan_2d
    from hmf_networks.reports.cost import scans_left_out
    from hmf_networks.transforms.load import LoadContrastsd
    from hmf_networks.transforms.save import SaveSynthesisd
    from monai.bundle import ConfigParser, ConfigWorkflow

    watch = Stopwatch(imports=time.perf_counter() - STARTED)
    for table in (selective_scan.BACKENDS, selective_scan_2d.WITHOUT_COPIES):
        table.update({name: watch.timed("scans", backend) for name, backend in table.items()})
    if options.floor:
        from network import without_inrb

        HMFMambaINR.forward = lambda self, image, coordinates: without_inrb(self, image)[
            ..., : len(coordinates[0]), : len(coordinates[1])
        ].expand(-1, self.arguments["out_channels"], -1, -1)
    resident_mb: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        weights, data = Path(folder, "model.pt"), Path(folder, "subjects.json")
        config = ConfigParser(ConfigParser.load_config_file(str(CONFIG)))
        config["network_def#width"] = options.width
        torch.save(config.get_parsed_content("network_def").state_dict(), weights)
        data.write_text(json.dumps({"testing": copies(options.dataset_dir, options.copies, Path(folder))}))
        workflow = ConfigWorkflow(
            config_file=str(CONFIG),
            meta_file=str(CONFIG.with_name("metadata.json")),
            logging_file=False,
            workflow_type="inference",
            bundle_root=str(CONFIG.parent.parent),
            dataset_dir=str(data),
            output_dir=folder,
            ckpt_path=str(weights),
            precision=options.precision,
            target=options.target,
            **{"network_def#width": options.width},
        )
        with (
            scans_left_out() if options.floor else nullcontext(),
            patch.object(LoadContrastsd, "__call__", watch.timed("read", LoadContrastsd.__call__)),
            patch.object(SaveSynthesisd, "_write", watch.timed("write", SaveSynthesisd._write)),
            patch.object(SaveSynthesisd, "__call__", then_weigh(SaveSynthesisd.__call__, resident_mb)),
            patch.object(HMFMambaINR, "forward", watch.timed("network", HMFMambaINR.forward)),
            patch.object(HMFMambaINR, "features", watch.timed("features", HMFMambaINR.features)),
        ):
            workflow.initialize()
            workflow.run()
    features = watch.pop("features")
    watch["INRB"] = watch.pop("network") - features
    watch["convolutions and the rest"] = features - watch.setdefault("scans", 0.0)
    watch["total"] = time.perf_counter() - STARTED
    watch["MB, first subject"], watch["MB, last"] = resident_mb[0], resident_mb[-1]
    watch["peak MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps(watch))


def then_weigh(function: Callable[..., Any], megabytes: list[float]) -> Callable[..., Any]:
    """Note the resident memory after each call."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        lines = Path("/proc/self/status").read_text().splitlines()
        megabytes.append(next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")))
        return result

    return wrapped


def copies(folder: str, count: int, links: Path) -> list[dict[str, str]]:
    """The first subject of the folder, `count` times under different names."""
    from hmf_networks.data.folder import find_subjects

    (record, *_) = find_subjects(folder, ["t1", "flair"])
    records = []
    for number in range(count):
        patient = f"copy{number:02d}"
        paths = {name: links / f"{patient}_{name}.nii.gz" for name in ("t1", "flair")}
        for name, path in paths.items():
            path.symlink_to(Path(record[name]).resolve())
        records.append({"patient": patient} | {name: str(path) for name, path in paths.items()})
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset_dir", nargs="?")
    parser.add_argument("--weights", type=Path, metavar="MODEL.PT", help="time `hmf synthesize` with these")
    parser.add_argument("--sources", nargs="+", default=["t1", "flair"], help="with --weights")
    parser.add_argument("--repeats", type=int, default=1, help="with --weights: the median is told")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--target", help="one contrast; by default all that is missing")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--copies", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--floor", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.weights is not None:
        from cold_start import measure

        measure(options)
        return
    if options.dataset_dir is None:
        parser.error("name a DIR, or --weights")
    if options.child:
        run_once(options)
        return
    from machine import report

    rows = {}
    for name, extra in {"whole": [], "floor": ["--floor"]}.items():
        command = [sys.executable, __file__, *sys.argv[1:], "--child", *extra]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows[name] = {"scans": 0.0, "INRB": 0.0} | json.loads(done.stdout.splitlines()[-1])
    columns = ["imports", "read", "convolutions and the rest", "scans", "INRB", "write", "total", "peak MB"]
    columns += ["MB, first subject", "MB, last"] if options.copies > 1 else []
    title = f"{options.copies} x {options.dataset_dir}, width {options.width}, precision {options.precision}"
    title += f": {rows['whole']['total'] / rows['floor']['total']:.2f} times the floor"
    report(title, columns, rows, options.json)


if __name__ == "__main__":
    main()
