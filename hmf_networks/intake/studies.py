"""What lies at a path: studies of patients, DICOM or image files, whatever their number."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hmf_networks.data.records import files_below
from hmf_networks.hashing import file_hash
from hmf_networks.intake.image_files import checked, find_scans, is_image, read_image
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.preparation.dicom_files import dicom_paths, unpacked
from hmf_networks.preparation.dicom_series import Series, by_study, find_series, read
from hmf_networks.preparation.scan import Scan
from hmf_networks.preparation.series_choice import choose, named


class RawScan(NamedTuple):
    """One contrast, not read yet.

    Attributes:
        read: the volume; VolumeError where it cannot be used.
        tags: of the acquisition; nothing that tells of a person.
        files: it was read from.
        nifti: the file, where it is NIfTI.
    """

    read: Callable[[], Scan]
    tags: Mapping[str, Any]
    files: Sequence[Path]
    nifti: Path | None = None

    def sha256(self) -> str:
        return file_hash(*self.files)


class RawStudy(NamedTuple):
    """What was taken of a patient at one time.

    Attributes:
        patient: what the source calls the patient; for the table of pseudonyms alone.
        session: "1", "2" where there are several; "" for one.
        scans: by contrast.
        aside: what is not used, and why; nothing that tells of a person.
        identity: more for the table, by DICOM keyword.
    """

    patient: str
    session: str
    scans: Mapping[str, RawScan]
    aside: Sequence[str]
    identity: Mapping[str, str]


@contextmanager
def open_studies(path: str | Path, assignments: Mapping[str, str] | None = None) -> Iterator[list[RawStudy]]:
    """All studies below a folder or in a .zip; their scans can be read for as long as the block runs.

    Args:
        path: folder or .zip.
        assignments: contrast -> description, number or UID of a DICOM series, or the name of an image file.

    Raises:
        VolumeError: nothing of use is there.
        ValueError: an assignment that fits nothing.
    """
    with unpacked(path) as folder:
        studies = _of_dicom(folder, assignments or {}) if dicom_paths(folder) else []
        if not studies:
            studies = _of_images(folder, assignments or {})
        if not studies:
            problem = "neither DICOM series nor image files whose names tell a contrast"
            raise VolumeError("E_MISSING", path, problem, "name the files T1, T2, FLAIR, PD, or give --series T1=FILE")
        yield studies


def _of_dicom(folder: Path, assignments: Mapping[str, str]) -> list[RawStudy]:
    found = find_series(folder)
    series = named(found.series, assignments)
    studies = []
    grouped = by_study(series)
    for (patient, study), some in grouped.items():
        choice = choose(some)
        sessions = [key for who, key in grouped if who == patient]
        identity = some[0].identity
        studies.append(
            RawStudy(
                identity.get("PatientID") or identity.get("StudyInstanceUID") or patient,
                str(1 + sessions.index(study)) if len(sessions) > 1 else "",
                {contrast: _of_series(one) for contrast, one in sorted(choice.taken.items())},
                [f"series {one.label}: {one.reason}" for one in choice.aside],
                identity,
            )
        )
    return studies


def _of_series(series: Series) -> RawScan:
    return RawScan(partial(_read_series, series), series.tags, series.files)


def _read_series(series: Series) -> Scan:
    return checked(read(series), f"series {series.label}")


def _of_images(folder: Path, assignments: Mapping[str, str]) -> list[RawStudy]:
    found, aside = find_scans(folder)
    for contrast, name in assignments.items():
        fitting = [path for path in files_below(folder) if is_image(path) and name in (path.name, path.stem)]
        if not fitting:
            raise ValueError(f"--series {contrast}={name}: no image file of that name")
        for path in fitting:
            key = ("_".join(path.parent.relative_to(folder).parts) or folder.name, "")
            found.setdefault(key, {})[contrast] = path
    return [
        RawStudy(
            patient,
            session,
            {contrast: _of_file(path) for contrast, path in sorted(files.items())},
            aside.get((patient, session), []),
            {},
        )
        for (patient, session), files in sorted(found.items())
    ]


def _of_file(path: Path) -> RawScan:
    nifti = path if path.name.lower().endswith((".nii", ".nii.gz", ".hdr")) else None
    return RawScan(partial(read_image, path), {}, [path], nifti)
