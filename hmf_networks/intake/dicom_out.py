"""Synthetic contrasts in native space as DICOM series, beside the study that they were made of.

The prepared dataset knows no names and no DICOM files: study and table of pseudonyms lead back to them.
"""

import logging
from pathlib import Path

from hmf_networks.intake.pseudonyms import known_pseudonyms, table_path
from hmf_networks.intake.studies import RawStudy, open_studies
from hmf_networks.naming import CONTRASTS, space_of
from hmf_networks.nifti.read import read_volume
from hmf_networks.outputs.bids import read_sidecar
from hmf_networks.preparation.dicom_write import write_series
from hmf_networks.preparation.scan import Scan
from hmf_networks.preparation.series_choice import parse_assignments

logger = logging.getLogger(__name__)


def write_dicom(
    synthetic: Path,
    prepared: Path,
    study_path: Path,
    dicom_dir: Path,
    *,
    series: tuple[str, ...] = (),
    table: Path | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """A folder with a series for each volume in native space: `DICOM/sub-001[_ses-1]/t2_in_t1`.

    Args:
        synthetic: what `hmf synthesize --space native` wrote.
        prepared: the dataset it was made from; its table of pseudonyms lies beside it.
        study_path: the DICOM study that was prepared, folder or .zip.
        dicom_dir: where the series go.
        series: as given to `hmf prepare`.
        table: of pseudonyms, where it lies elsewhere.
        overwrite: replace series that are there.

    Raises:
        ValueError: no volume in native space, or no patient of the table in the study.
    """
    names = known_pseudonyms(table or table_path(prepared))
    written: list[Path] = []
    with open_studies(study_path, parse_assignments(series)) as studies:
        for study in studies:
            pseudonym = names.get((study.patient, study.session))
            if pseudonym is not None:
                written += _of_study(study, pseudonym, synthetic, dicom_dir, overwrite=overwrite)
    if not written:
        raise ValueError(f"no synthetic volume in native space of a patient of {study_path.name} in {synthetic}")
    logger.info("%d DICOM series in %s", len(written), dicom_dir)
    return written


def _of_study(study: RawStudy, pseudonym: str, synthetic: Path, dicom_dir: Path, *, overwrite: bool) -> list[Path]:
    folders = [f"sub-{pseudonym}"] + ([f"ses-{study.session}"] if study.session else [])
    written = []
    for grid in study.scans:
        pattern = f"*_space-{space_of(grid)}_desc-synth_*.nii.gz"
        for path in sorted(Path(synthetic, *folders, "anat").glob(pattern)):
            sidecar = read_sidecar(path)
            target = sidecar["Target"]
            used = {name: scan.files for name, scan in study.scans.items() if name in CONTRASTS and name != target}
            folder = dicom_dir / "_".join(folders) / f"{target}_in_{grid}"
            write_series(
                Scan(*read_volume(path)),
                folder,
                template_files=study.scans[grid].files,
                contrast=target,
                sources=used,
                weights_sha256=sidecar["WeightsSha256"],
                overwrite=overwrite,
            )
            written.append(folder)
    return written
