"""Run what is missing of a study, then write its tables and figures anew."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from hmf_networks.data.phantom import simulate_subjects
from hmf_networks.outputs.failure import SubjectsFailed
from hmf_networks.studies.figures import draw_figures
from hmf_networks.studies.runs import Place, is_done, train_and_score
from hmf_networks.studies.study import SIMULATED, Study, runs_of
from hmf_networks.studies.tables import write_tables

logger = logging.getLogger(__name__)


def compare(
    study: Study, bundle: Path, output_dir: Path, *, data: Path | None = None, device: str | None = None
) -> None:
    """A run that is done is not done again; one that was stopped goes on. Tables are whole after every run.

    Raises:
        SubjectsFailed: some runs failed; the others are in the tables.
        ValueError: the folder holds another study.
    """
    place = Place(bundle, _dataset(study, output_dir, data), output_dir)
    runs = list(runs_of(study))
    missing = [run for run in runs if not is_done(run, study, place)]
    logger.info("%s: %d runs, %d are done", study.name, len(runs), len(runs) - len(missing))
    failed = []
    for run in missing:
        started = time.monotonic()
        try:
            train_and_score(run, study, place, device)
        except RuntimeError as error:
            failed.append(run)
            logger.error("%s: %s", run, error)
        else:
            logger.info("%s: done in %.0f s", run, time.monotonic() - started)
            write_tables(study, place)
    rows = write_tables(study, place)
    for path in draw_figures(study, place, rows):
        logger.info("drawn: %s", path)
    if rows:
        logger.info("%s", (output_dir / "results.md").read_text(encoding="utf-8"))
    if failed:
        raise SubjectsFailed(f"{len(failed)} of {len(runs)} runs failed: {'; '.join(map(str, failed))}")


def _dataset(study: Study, output_dir: Path, data: Path | None) -> Path:
    """The folder that was named, that of the study, or subjects simulated into OUT/data, once."""
    if data is not None or "dataset_dir" in study.data:
        folder = data or Path(study.data["dataset_dir"])
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} is not a folder; name that of the scans (--data)")
        return folder
    folder, asked = output_dir / "data", {**SIMULATED, **study.data}
    simulate: Callable[..., object] = simulate_subjects
    if not (folder / "done").is_file():
        simulate(folder / "scans", num_subjects=asked["subjects"], seed=asked["seed"], spacing_mm=asked["spacing_mm"])
        (folder / "done").touch()
    return folder / "scans"
