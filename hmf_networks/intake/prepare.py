"""`hmf prepare`: every study of a folder or .zip, made ready, one after the other."""

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hmf_networks import __version__
from hmf_networks.intake.bids_folder import describe, scan_name, stem_of, write_study
from hmf_networks.intake.pseudonyms import pseudonyms, table_path
from hmf_networks.intake.steps import Steps, take
from hmf_networks.intake.studies import RawStudy, open_studies
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.outputs.failure import SubjectError, SubjectsFailed, failure
from hmf_networks.outputs.manifest import Manifest
from hmf_networks.preparation.series_choice import parse_assignments

logger = logging.getLogger(__name__)


def prepare(
    source: Path,
    output_dir: Path,
    *,
    steps: Steps,
    series: Sequence[str] = (),
    pseudonym_table: Path | None = None,
    overwrite: bool = False,
    skip_existing: bool = False,
) -> None:
    """Make every study ready and write it into a BIDS dataset.

    Args:
        source: folder or .zip: DICOM of any number of patients, or image files.
        output_dir: the dataset; studies may be added to it.
        steps: what is done.
        series: "T1=<description, number or UID of a DICOM series, or name of a file>".
        pseudonym_table: who is who; by default beside `output_dir`.
        overwrite: replace studies that are there.
        skip_existing: leave those alone that were made of the same scans in the same way.

    Raises:
        SubjectsFailed: some studies could not be prepared; errors.json names them.
        ValueError, OSError: nothing could be.
    """
    if overwrite and skip_existing:
        raise ValueError("--overwrite and --skip-existing contradict each other; give one of them")
    manifest = Manifest(output_dir)
    manifest.check()
    failed = done = 0
    with open_studies(source, parse_assignments(series)) as studies:
        names = pseudonyms(studies, pseudonym_table or table_path(output_dir))
        describe(output_dir)
        manifest.update(run={"version": __version__, "steps": steps.settings()})
        for study in studies:
            job = _Job(output_dir, names[study.patient, study.session], study, steps)
            try:
                done += job.run(manifest, overwrite=overwrite, skip_existing=skip_existing)
            except (VolumeError, SubjectError, OSError, MemoryError, ValueError) as error:
                failed += 1
                logger.warning("%s: %s", job.name, error)
                manifest.update(failed=failure({"patient": job.name, "target": ""}, error))
    logger.info("%d of %d studies ready in %s", done, done + failed, output_dir)
    if failed:
        raise SubjectsFailed(f"{failed} studies could not be prepared; {output_dir / 'errors.json'} names them")


class _Job:
    """One study on its way."""

    def __init__(self, folder: Path, pseudonym: str, study: RawStudy, steps: Steps) -> None:
        self.folder, self.pseudonym, self.study, self.steps = folder, pseudonym, study, steps
        self.anat, self.name = stem_of(pseudonym, study.session)

    def run(self, manifest: Manifest, *, overwrite: bool, skip_existing: bool) -> bool:
        """Whether it is ready in the end."""
        start = time.monotonic()
        if not self.study.scans:
            raise VolumeError("E_MISSING", self.name, "; ".join(self.study.aside) or "it has no scan", _NO_SCAN)
        hashes = {contrast: scan.sha256() for contrast, scan in self.study.scans.items()}
        if self._may_stay(manifest, hashes, overwrite=overwrite, skip_existing=skip_existing):
            manifest.update(fine=[(self.name, "")])
            return True
        raw = {}
        for contrast, scan in self.study.scans.items():
            with self._named(contrast):
                raw[contrast] = scan.read()
        ready = take(self.steps, raw)
        made = write_study(self.folder, self.pseudonym, self.study.session, self.study, raw, ready)
        entry = {
            "subject": self.name,
            "sources": hashes,
            "steps": self.steps.settings(),
            "done": ready.notes,
            "left_aside": list(self.study.aside),
            "tags": {contrast: dict(scan.tags) for contrast, scan in self.study.scans.items()},
            "seconds": round(time.monotonic() - start, 1),
            "finished": time.time(),
        }
        manifest.update(made={path: {**entry, "sha256": sha256} for path, sha256 in made.items()})
        manifest.update(fine=[(self.name, "")])
        logger.info("%s: %s ready in %.0f s", self.name, ", ".join(raw), time.monotonic() - start)
        return True

    def _may_stay(self, manifest: Manifest, hashes: Mapping[str, str], *, overwrite: bool, skip_existing: bool) -> bool:
        """Whether what is there is what would be made; SubjectError for something else that nobody gave up."""
        there = self.folder / self.anat
        if not there.exists() or overwrite:
            return False
        if not skip_existing:
            raise SubjectError("E_EXISTS", f"{self.anat} is there")
        known = manifest.outputs()
        for contrast in hashes:
            path = self.anat / f"{scan_name(self.name, contrast)}.nii.gz"
            entry: dict[str, Any] = known.get(str(path), {})
            is_same = entry.get("sources") == hashes and entry.get("steps") == self.steps.settings()
            if not is_same or not (self.folder / path).is_file():
                return False
        return True

    @contextlib.contextmanager
    def _named(self, contrast: str) -> Any:
        """Errors name the contrast of the study, and no file: its name may be that of a person."""
        try:
            yield
        except VolumeError as error:
            raise VolumeError(error.code, f"{self.name} {contrast}", error.problem, error.cure) from error


_NO_SCAN = "say which series are which, e.g. --series T1=4"
