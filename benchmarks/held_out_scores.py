"""Every method on every scan of `held_out.py`, task by task.

Shapes: volumes (X, Y, Z) in RAS+, images (S, X, Y, Z); both in [-1, 1], scaled as in training.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from held_out_tables import AS_IT_IS, COPY, NETWORK, REGRESSION, best_copies
from hmf_networks.baselines.trivial import CopySource, VoxelwiseLinear, fit_voxelwise_linear
from hmf_networks.data.datalist import write_datalist
from hmf_networks.engines.synthesis import synthesize
from hmf_networks.engines.weights import what_for
from hmf_networks.metrics import to_unit
from hmf_networks.naming import Record, output_path, subject_name
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.outputs.failure import SubjectsFailed
from hmf_networks.reports.scoring import Truth, read_prediction, read_truth, score
from hmf_networks.reports.upright import Upright, check_same_grid
from hmf_networks.transforms.intensity import OUTPUT_MAXIMUM
from registered_truth import register_truth
from torch import Tensor

BUNDLE = Path(__file__).parent.parent / "bundle"
PROTOCOLS = ("volume", "affine")
NUM_REMEMBERED = 12  # volumes, of 70 MB each


class Task(NamedTuple):
    sources: tuple[str, ...]
    target: str

    def __str__(self) -> str:
        return f"{'+'.join(self.sources)}->{self.target}"


TASKS = (
    Task(("t1", "flair"), "t2"),
    Task(("t2", "flair"), "t1"),
    Task(("t1", "t2"), "flair"),
    Task(("t1",), "t2"),
    Task(("t2",), "t1"),
)


class Scan(NamedTuple):
    """A subject to score, in a group of the tables, beside the regression fitted on these patients."""

    record: Record
    group: str
    data: str
    fitted_on: tuple[str, ...]
    variants: tuple[str, ...] = (AS_IT_IS,)


def as_usual(prediction: Upright, truth: Truth, _record: Record) -> list[dict[str, Any]]:
    return score(prediction, truth, PROTOCOLS)


Scorer = Callable[[Upright, Truth, Record], list[dict[str, Any]]]


class Measurement:
    """Collects what was found, as plain data.

    Args:
        fitting: records of the patients that regressions may be fitted on.
        scans: whom to score.
        folder: for synthesised volumes and registered truths.
        weights: of the network; None leaves it out.
        device: where it computes.
        scorer: what is said of a prediction: rows {"protocol", "region", "psnr", ...}.
    """

    def __init__(
        self,
        fitting: Sequence[Record],
        scans: Sequence[Scan],
        folder: Path,
        *,
        weights: Path | None,
        device: str,
        scorer: Scorer = as_usual,
    ) -> None:
        self.fitting, self.scans, self.folder = fitting, scans, folder
        self.weights, self.device, self.scorer = weights, device, scorer
        self.found: dict[str, Any] = {"rows": [], "regressions": [], "registrations": [], "skipped": []}
        self._registered: set[Path] = set()

    def measure(self, task: Task) -> None:
        """Adds the rows of a task, and a line for whatever of it cannot be done."""
        if self.weights is not None and (reason := unfit(self.weights, task)):
            self._skip(f"{task}: {reason}")
            return
        scans = [scan for scan in self.scans if self._is_complete(task, scan.record)]
        fitted_on = dict.fromkeys(scan.fitted_on for scan in scans)
        regressions = {names: self._regression(task, names) for names in fitted_on}
        volumes = self._synthesised(task, scans)
        rows: list[dict[str, Any]] = []
        for scan in scans:
            subject = subject_name(scan.record)
            rivals = Rivals(task, regressions[scan.fitted_on], volumes.get(subject), self.scorer)
            for variant in scan.variants:
                with self._named(f"{task}, {subject}, {variant}"):
                    scored = rivals.scored(scan.record, self._truth(task, scan.record, variant))
                    who = {"group": scan.group, "task": str(task), "data": scan.data, "variant": variant}
                    who |= {key: scan.record[key] for key in ("patient", "session")}
                    rows += [who | row for row in scored]
                    print(f"{task}, {subject}, {variant}: {told(scored)}", flush=True)
        self.found["rows"] += rows + best_copies(rows)

    def _is_complete(self, task: Task, record: Record) -> bool:
        lacking = [name for name in (*task.sources, task.target) if name not in record]
        if lacking:
            self._skip(f"{task}, {subject_name(record)}: it has no {', '.join(lacking)}")
        return not lacking

    def _regression(self, task: Task, patients: Sequence[str]) -> VoxelwiseLinear | None:
        """Fitted on whole volumes of these patients, all their sessions."""
        records = [record for record in self.fitting if record["patient"] in patients]
        records = [record for record in records if self._is_complete(task, record)]
        with self._named(f"{task}, regression"):
            truths = ((record, read_scan(record[task.target])) for record in records)
            model = fit_voxelwise_linear((stacked(task, record, truth), truth.scaled[None]) for record, truth in truths)
            terms = dict(zip(task.sources, model.weight.tolist(), strict=True)) | {"bias": model.bias.item()}
            subjects = [subject_name(record) for record in records]
            self.found["regressions"].append({"task": str(task), "fitted_on": subjects, "terms": terms})
            return model
        return None

    def _synthesised(self, task: Task, scans: Sequence[Scan]) -> dict[str, Path]:
        """Subject -> the volume that a user gets who has these sources of it, and nothing else."""
        if self.weights is None or not scans:
            return {}
        folder = self.folder / f"{'_'.join(task.sources)}_to_{task.target}"
        records = [scan.record for scan in scans]
        try:
            run_network(self.weights, records, folder, task, self.device)
        except (SubjectsFailed, ValueError, OSError) as error:
            self._skip(f"{task}, network: {error}")
        return volumes_in(folder, records, task)

    def _truth(self, task: Task, record: Record, variant: str) -> Truth:
        if variant == AS_IT_IS:
            return read_scan(record[task.target])
        source = task.sources[0]
        subject = subject_name(record)
        path = self.folder / "registered" / f"{subject}_{task.target}_on_{source}.nii.gz"
        if path not in self._registered:
            motion = register_truth(record[task.target], record[source], path)
            self._registered.add(path)
            where = {"shift_mm": motion.shift_mm, "degrees": motion.degrees}
            names = {"subject": subject, "truth": task.target, "onto": source}
            self.found["registrations"].append(names | where)
            print(f"{subject}: {task.target} registered onto {source}, {where}", flush=True)
        return read_scan(str(path))

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        """What cannot be done is told, and the rest goes on."""
        try:
            yield
        except (VolumeError, ValueError) as error:
            self._skip(f"{what}: {error}")

    def _skip(self, line: str) -> None:
        if line not in self.found["skipped"]:
            print(f"skipped: {line}", flush=True)
            self.found["skipped"].append(line)


class Rivals(NamedTuple):
    """What is compared under a task for one subject; None is left out."""

    task: Task
    regression: VoxelwiseLinear | None
    volume_path: Path | None
    scorer: Scorer

    def scored(self, record: Record, truth: Truth) -> list[dict[str, Any]]:
        """Rows {"method", "protocol", "region", "psnr", ...}."""
        return [
            {"method": method, **row}
            for method, prediction in self._predictions(record, truth)
            for row in self.scorer(prediction, truth, record)
        ]

    def _predictions(self, record: Record, truth: Truth) -> Iterator[tuple[str, Upright]]:
        image = stacked(self.task, record, truth)[None]
        if self.volume_path is not None:
            yield NETWORK, read_prediction(self.volume_path, truth)
        if self.regression is not None:
            yield REGRESSION, as_written(self.regression(image), truth)
        for index, source in enumerate(self.task.sources):
            yield f"{COPY}{source}", as_written(CopySource(index)(image), truth)


def run_network(weights: Path, records: Sequence[Record], folder: Path, task: Task, device: str, **more: Any) -> None:
    """As `hmf synthesize`, with `more` keys. It is told of the sources and of no other scan."""
    given = [{key: record[key] for key in ("patient", "session", *task.sources)} for record in records]
    datalist = folder / "given.json"
    write_datalist(datalist, {"testing": given}, folder)
    overrides = {"given": list(task.sources), "preview": False, "skip_existing": True, **more}
    synthesize(BUNDLE, weights, datalist, folder, task.target, device=device, overrides=overrides)


def volumes_in(folder: Path, records: Sequence[Record], task: Task) -> dict[str, Path]:
    """Subject -> what the network wrote of it."""
    given = [{key: record[key] for key in ("patient", "session")} for record in records]
    paths = {subject_name(record): folder / output_path(record, task.target) for record in given}
    return {subject: path for subject, path in paths.items() if path.is_file()}


def unfit(weights: Path, task: Task) -> str:
    """Why these weights are not for this task, by their model.json; empty where they are."""
    about = what_for(weights)
    targets = about.get("targets", [about["target"]] if "target" in about else [task.target])
    sources = about.get("sources", list(task.sources))
    if task.target not in targets:
        return f"the weights make {', '.join(targets)}"
    is_known = set(task.sources) <= set(sources)
    is_enough = about.get("any_subset", False) or set(task.sources) == set(sources)
    return "" if is_known and is_enough else f"the weights work from {', '.join(sources)}"


@lru_cache(NUM_REMEMBERED)
def read_scan(path: str) -> Truth:
    """A volume in its own units and in [-1, 1]."""
    return read_truth({"scan": path}, "scan")


def stacked(task: Task, record: Record, truth: Truth) -> Tensor:
    """The sources (S, X, Y, Z) in [-1, 1], on the grid of the truth.

    Raises:
        VolumeError: E_GRID where they are not, or a file that cannot be used.
    """
    sources = [read_scan(record[name]) for name in task.sources]
    for source in sources:
        check_same_grid(source.volume, truth.volume)
    return torch.stack([source.scaled for source in sources])


def as_written(prediction: Tensor, truth: Truth) -> Upright:
    """What would be read from disk of a prediction (1, 1, X, Y, Z)."""
    return truth.volume._replace(values=(to_unit(prediction[0, 0]) * OUTPUT_MAXIMUM).numpy())


def told(rows: Sequence[dict[str, Any]]) -> str:
    here = [row for row in rows if (row["protocol"], row["region"]) == ("volume", "brain")]
    return ", ".join(f"{row['method']} {row['psnr']:.2f}" for row in here) + " dB in the brain"
