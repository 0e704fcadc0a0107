"""Run what is missing of a study, then write its tables and figures anew."""

import hashlib
import json
import logging
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hmf_networks.atomic import write_whole
from hmf_networks.data.phantom import simulate_subjects
from hmf_networks.outputs.failure import SubjectsFailed
from hmf_networks.studies.figures import check_can_draw, draw_figures
from hmf_networks.studies.runs import ANOTHER, Place, is_done, train_and_score
from hmf_networks.studies.study import SIMULATED, Run, Study, runs_of
from hmf_networks.studies.tables import write_tables

COMMON = "study.json"  # what all runs of a folder share

logger = logging.getLogger(__name__)


def compare(
    study: Study, bundle: Path, output_dir: Path, *, data: Path | None = None, device: str | None = None
) -> None:
    """A run that is done is not done again; one that was stopped goes on. Tables are whole after every run.

    Raises:
        SubjectsFailed: some runs failed; the others are in the tables.
        ValueError: the folder holds another study, or another process works in it.
    """
    check_can_draw()
    output_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(output_dir / ".lock", timeout=0):
            _compare(study, bundle, output_dir, data, device)
    except Timeout:
        raise ValueError(f"{output_dir}: another process works in it; wait for it, or name another --output") from None


def _compare(study: Study, bundle: Path, output_dir: Path, data: Path | None, device: str | None) -> None:
    place = Place(bundle, _dataset(study, output_dir, data), output_dir)
    _hold_to_one_study(study, place)
    runs = list(runs_of(study))
    missing = [run for run in runs if not is_done(run, study, place)]
    logger.info("%s: %d runs, %d are done", study.name, len(runs), len(runs) - len(missing))
    failed = [run for run in missing if not _did(run, study, place, device)]
    rows = write_tables(study, place)
    for path in draw_figures(study, place, rows):
        logger.info("drawn: %s", path)
    if rows:
        logger.info("%s", (output_dir / "results.md").read_text(encoding="utf-8"))
    if failed:
        raise SubjectsFailed(f"{len(failed)} of {len(runs)} runs failed: {'; '.join(map(str, failed))}")


def _did(run: Run, study: Study, place: Place, device: str | None) -> bool:
    started = time.monotonic()
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the child ends, too
    try:
        train_and_score(run, study, place, device)
    except RuntimeError as error:
        logger.error("%s: %s", run, error)
        return False
    finally:
        signal.signal(signal.SIGTERM, before)
    logger.info("%s: done in %.0f s", run, time.monotonic() - started)
    write_tables(study, place)
    return True


def _hold_to_one_study(study: Study, place: Place) -> None:
    """Data, budget and split are one for all that lies in the folder; tasks, methods and seeds may be added."""
    files = sorted(path for path in place.dataset_dir.rglob("*.nii*") if path.is_file())
    listed = [(path.relative_to(place.dataset_dir).as_posix(), path.stat().st_size) for path in files]
    common: dict[str, Any] = {
        "data": study.data if place.dataset_dir.is_relative_to(place.output_dir) else str(place.dataset_dir),
        "files": len(files),
        "files_sha256": hashlib.sha256(json.dumps(listed).encode()).hexdigest(),
        "configs": study.configs,
        "budget": study.budget,
    }
    path = place.output_dir / COMMON
    if not path.is_file():
        write_whole(path, json.dumps(common, indent=1) + "\n")
    elif json.loads(path.read_text(encoding="utf-8")) != common:
        raise ValueError(ANOTHER.format(place.output_dir))


def _dataset(study: Study, output_dir: Path, data: Path | None) -> Path:
    """The folder that was named, that of the study, or subjects simulated into OUT/data, once."""
    if data is not None or "dataset_dir" in study.data:
        folder = data or Path(study.data["dataset_dir"])
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder; name that of the scans (--data)")
        return folder.absolute()
    folder, part = output_dir / "data", output_dir / "data.part"
    if not folder.is_dir():
        shutil.rmtree(part, ignore_errors=True)  # of a run that was killed
        asked = {**SIMULATED, **study.data}
        simulate_subjects(part, num_subjects=asked["subjects"], seed=asked["seed"], spacing_mm=asked["spacing_mm"])
        part.rename(folder)
    return folder
