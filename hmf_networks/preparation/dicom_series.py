"""The series of raw studies: found, judged, and read as volumes.

A series here is one stack: a double echo is two, with labels "4.1" and "4.2". Nothing is refused while looking; what
speaks against a series goes with it, and `read` raises it.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from hmf_networks.nifti.codes import Complaint, VolumeError, Warned
from hmf_networks.preparation.contrast_tags import contrast_of
from hmf_networks.preparation.dicom_aside import aside_reason, is_mr, kind_reason
from hmf_networks.preparation.dicom_files import dicom_paths
from hmf_networks.preparation.dicom_headers import IDENTIFYING, Image, read_images
from hmf_networks.preparation.dicom_pixels import same_pixels, volume
from hmf_networks.preparation.dicom_stack import Stack, split, stacked
from hmf_networks.preparation.plain_tags import plain_tags
from hmf_networks.preparation.scan import Affine, Scan


@dataclass(frozen=True)
class Series:
    """One stack of images, readable or not. Its repr holds nothing that tells who the patient is.

    Attributes:
        label: its number, with that of the stack where there are several: "4", "4.2". What messages call it.
        patient_key: "patient-1", ...: a count, alike for all series of a patient in one call and no longer.
        study_key: the same of studies, "study-1", ..., in the order of their dates.
        contrast: one of CONTRASTS; None where it is not known.
        guess_reason: how it is known, or why not.
        aside: why it is no plain scan; "" for one that is.
        images: in order along the normal; of a faulty stack, as found.
        affine: voxels to mm, RAS+; None for a faulty one.
        fault: what `read` raises.
        tags: that tell of the scan and of no person, see `plain_tags`; may go into a manifest.
        description: as the scanner's operator typed it, a name for all we know. For screens, not for files.
        identity: DICOM keywords and values that tell who and when; for the DICOM writer and the table of pseudonyms.
    """

    label: str
    patient_key: str
    study_key: str
    contrast: str | None
    guess_reason: str
    aside: str
    images: tuple[Image, ...] = field(repr=False)
    affine: Affine | None = field(repr=False)
    fault: VolumeError | None
    warnings: tuple[Warned, ...]
    tags: Mapping[str, Any]
    description: str = field(repr=False)
    identity: Mapping[str, str] = field(repr=False)

    @property
    def files(self) -> list[Path]:
        return list(dict.fromkeys(image.path for image in self.images))

    @property
    def shape(self) -> tuple[int, int, int]:
        """X, Y, Z."""
        columns, rows = (int(self.images[0].number(name) or 0) for name in ("Columns", "Rows"))
        return columns, rows, len(self.images)


class Found(NamedTuple):
    """All series, by patient, study and number, and the files that begin as DICOM but cannot be read."""

    series: list[Series]
    unreadable: list[VolumeError]


def find_series(folder: str | Path) -> Found:
    """Every series below a folder; see `dicom_files.unpacked` for a .zip.

    Raises:
        VolumeError: E_DICOM_EMPTY, not one DICOM file; E_DICOM_MODALITY, none of them MR; E_CORRUPT, none readable.
    """
    folder = Path(folder)
    images, unreadable = _images(folder)
    if not images:
        raise unreadable[0] if unreadable else VolumeError("E_DICOM_EMPTY", folder, "no DICOM file below it")
    if not any(is_mr(image) for image in images):
        kinds = ", ".join(sorted({kind_reason(image) for image in images}))
        raise VolumeError("E_DICOM_MODALITY", folder, f"what it holds is {kinds}")
    return Found([series for study in _studies(images) for series in _series_of(*study)], unreadable)


def by_study(series: Iterable[Series]) -> dict[tuple[str, str], list[Series]]:
    """By patient_key and study_key, in the order given."""
    studies: dict[tuple[str, str], list[Series]] = defaultdict(list)
    for one in series:
        studies[one.patient_key, one.study_key].append(one)
    return dict(studies)


def read(series: Series) -> Scan:
    """The volume: scaled, bright where there is signal, in place.

    Raises:
        VolumeError: its fault, or what is wrong with its pixels.
    """
    if series.fault is not None:
        raise series.fault
    if series.affine is None:
        raise VolumeError("E_DICOM_MODALITY", f"series {series.label}", "it holds no images")
    return Scan(volume(series.images), series.affine)


def _images(folder: Path) -> tuple[list[Image], list[VolumeError]]:
    images: list[Image] = []
    unreadable = []
    for path in dicom_paths(folder):
        try:
            images += read_images(path, path.relative_to(folder).as_posix())
        except VolumeError as error:
            unreadable.append(error)
    return images, unreadable


def _studies(images: Sequence[Image]) -> list[tuple[str, str, list[Image]]]:
    """Keys of patient and study, and the images. Without a PatientID every study is a patient of its own."""
    patients: dict[str, dict[str, list[Image]]] = defaultdict(lambda: defaultdict(list))
    for image in images:
        study = image.text("StudyInstanceUID")
        patients[image.text("PatientID") or f"of {study}"][study].append(image)
    return [
        (f"patient-{patient_number}", f"study-{study_number}", _named_within_study(study))
        for patient_number, (_, studies) in enumerate(sorted(patients.items()), 1)
        for study_number, study in enumerate(sorted(studies.values(), key=_when), 1)
    ]


def _when(study: Sequence[Image]) -> str:
    return f"{study[0].text('StudyDate')} {study[0].text('StudyTime')} {study[0].text('StudyInstanceUID')}"


def _named_within_study(images: Sequence[Image]) -> list[Image]:
    """Names below the folder of the study alone: those above it are often called after the patient."""
    above = os.path.commonpath([image.path.parent for image in images])
    return [replace(image, name=image.path.relative_to(above).as_posix()) for image in images]


def _series_of(patient_key: str, study_key: str, images: Sequence[Image]) -> list[Series]:
    by_uid: dict[str, list[Image]] = defaultdict(list)
    for image in images:
        by_uid[image.text("SeriesInstanceUID")].append(image)
    found = []
    for _, group in sorted(by_uid.items(), key=lambda item: (item[1][0].number("SeriesNumber") or 0, item[0])):
        stacks = split(group) if is_mr(group[0]) else [group]
        number = f"{group[0].number('SeriesNumber') or 0:.0f}"
        for index, stack in enumerate(stacks, 1):
            label = number if len(stacks) == 1 else f"{number}.{index}"
            found.append(_judged(stack, stacks, label, patient_key, study_key))
    return found


def _judged(
    images: Sequence[Image], siblings: Sequence[Sequence[Image]], label: str, patient_key: str, study_key: str
) -> Series:
    first = images[0]
    stack = _stack_or_fault(images, label)
    guess = contrast_of(first.values)
    aside = aside_reason(images, siblings)
    return Series(
        label,
        patient_key,
        study_key,
        None if aside else guess.contrast,
        "left aside" if aside else guess.reason,
        aside,
        stack.images if isinstance(stack, Stack) else tuple(images),
        stack.affine if isinstance(stack, Stack) else None,
        stack if isinstance(stack, VolumeError) else None,
        stack.warnings if isinstance(stack, Stack) else (),
        plain_tags(first),
        first.text("SeriesDescription") or first.text("ProtocolName"),
        {keyword: first.text(keyword) for keyword in IDENTIFYING},
    )


def _stack_or_fault(images: Sequence[Image], label: str) -> Stack | VolumeError:
    where = f"series {label}"
    if not is_mr(images[0]):
        return VolumeError("E_DICOM_MODALITY", where, f"it is {kind_reason(images[0])}")
    try:
        return stacked(images, same_pixels)
    except Complaint as complaint:
        return VolumeError(complaint.code, where, complaint.problem)
    except VolumeError as error:  # of pixels that had to be compared
        return error
