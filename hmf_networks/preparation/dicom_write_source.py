"""What a derived series takes from the DICOM series it was made from: who, where, and what to refer to.

Everything is read by an allow-list: a tag that is not named here is not even read, so it cannot leak. (Of frames of
an enhanced image all is read, geometry is taken.)
Shapes: points and directions (3,), of P planes (P, 3), in mm, LPS as in DICOM.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hmf_networks.naming import printable
from numpy.typing import NDArray

PATIENT = (
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex"),
    *("PatientAge", "PatientSize", "PatientWeight", "PatientIdentityRemoved"),
)
STUDY = ("StudyInstanceUID", "StudyDate", "StudyTime", "AccessionNumber", "StudyID", "StudyDescription")
PLACE = ("FrameOfReferenceUID", "PositionReferenceIndicator")
BODY = ("PatientPosition", "BodyPartExamined")
PIXELS = ("BurnedInAnnotation", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
COPIED = (*PATIENT, *STUDY, *PLACE, *BODY, *PIXELS)

IDENTITY = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "SliceThickness")
FRAMES = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
MR_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.4": "MR Image Storage",
    "1.2.840.10008.5.1.4.1.1.4.1": "Enhanced MR Image Storage",
    "1.2.840.10008.5.1.4.1.1.4.4": "Legacy Converted Enhanced MR Image Storage",
}


class Instance(NamedTuple):
    """A DICOM object to refer to; `frames` (from 1) of it, none for all or where it has but one."""

    sop_class: str
    uid: str
    frames: tuple[int, ...] = ()


class Plane(NamedTuple):
    """Where one slice lies: centre of its first pixel, along its rows, along its columns."""

    instance: Instance
    position: NDArray[np.float64]
    row: NDArray[np.float64]
    column: NDArray[np.float64]
    thickness_mm: float | None


class SourceSeries(NamedTuple):
    """One series of the patient.

    Attributes:
        copied: values of the tags in COPIED that it has, as text or numbers, character sets resolved.
        instances: all of them, without frames.
        planes: of those whose place is known.
    """

    uid: str
    copied: dict[str, Any]
    instances: tuple[Instance, ...]
    planes: tuple[Plane, ...]


def read_source(paths: Sequence[str | Path]) -> SourceSeries:
    """Read the headers of a series.

    Raises:
        ValueError: a file is no MR image, says not what study or frame of reference it belongs to, or they are of
            more than one series.
    """
    if not paths:
        raise ValueError("no files of the source series; give at least one")
    headers = {Path(path): _header(Path(path)) for path in paths}
    first_path, first = next(iter(headers.items()))
    for path, header in headers.items():
        if header.SeriesInstanceUID != first.SeriesInstanceUID:
            raise ValueError(
                f"{_shown(path)} is of another series than {_shown(first_path)}; give one series at a time"
            )
    instances = tuple(Instance(str(header.SOPClassUID), str(header.SOPInstanceUID)) for header in headers.values())
    planes = tuple(plane for header in headers.values() for plane in _planes(header))
    copied = _copied(first) | _worst_pixels(headers.values())
    return SourceSeries(str(first.SeriesInstanceUID), copied, instances, planes)


def coplanar(series: SourceSeries, corners: NDArray[np.float64], *, within_mm: float) -> list[Instance]:
    """Instances whose plane holds all `corners` (N, 3), frames of one object together."""
    if not series.planes:
        return []
    positions = np.stack([plane.position for plane in series.planes])
    normals = np.stack([np.cross(plane.row, plane.column) for plane in series.planes])
    distances = np.abs(((corners[:, None] - positions) * normals).sum(-1))  # N P
    found: dict[tuple[str, str], tuple[int, ...]] = {}
    for index in np.flatnonzero((distances < within_mm).all(axis=0)):
        sop_class, uid, frames = series.planes[index].instance
        found[sop_class, uid] = found.get((sop_class, uid), ()) + frames
    return [Instance(sop_class, uid, frames) for (sop_class, uid), frames in found.items()]


def _header(path: Path) -> Any:
    """The tags that we may see of one file."""
    import pydicom

    wanted = ["Modality", *IDENTITY, *GEOMETRY, *FRAMES, *COPIED]
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(dict.fromkeys(wanted)))
    except pydicom.errors.InvalidDicomError as error:
        raise ValueError(f"{_shown(path)} is no DICOM file; give the files of the source series") from error
    for keyword in IDENTITY:
        if not header.get(keyword):
            raise ValueError(f"{_shown(path)} has no {keyword}; export the series anew from the archive")
    if header.get("Modality") != "MR" or header.SOPClassUID not in MR_IMAGES:
        raise ValueError(f"{_shown(path)} is {header.SOPClassUID.name}, no MR image; give the files of an MR series")
    return header


def _copied(header: Any) -> dict[str, Any]:
    from pydicom.valuerep import PersonName

    values = {keyword: header.get(keyword) for keyword in COPIED if header.get(keyword) not in (None, "")}
    return {keyword: str(value) if isinstance(value, PersonName) else value for keyword, value in values.items()}


def _worst_pixels(headers: Iterable[Any]) -> dict[str, Any]:
    """Once lossy always lossy, says the standard; and a burnt in name may be copied by a network."""
    worst: dict[str, Any] = {}
    for header in headers:
        if header.get("LossyImageCompression") == "01":
            worst |= {keyword: header.get(keyword) for keyword in PIXELS if keyword.startswith("Lossy")}
        if header.get("BurnedInAnnotation") == "YES":
            worst["BurnedInAnnotation"] = "YES"
    return worst


def _planes(header: Any) -> Iterator[Plane]:
    """Of a classic image one, of an enhanced one as many as it has frames; none where that is not told."""
    sop_class, uid = str(header.SOPClassUID), str(header.SOPInstanceUID)
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if not frames:
        yield from _plane(Instance(sop_class, uid), header, header, header)
        return
    shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
    for number, frame in enumerate(frames, start=1):
        groups = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        yield from _plane(Instance(sop_class, uid, (number,)), *(_group(name, frame, shared) for name in groups))


def _group(name: str, *holders: Any) -> Any:
    """The one item of that sequence, from the first that has it; an empty one where none has."""
    return next((holder[name][0] for holder in holders if holder is not None and holder.get(name)), {})


def _plane(instance: Instance, position: Any, orientation: Any, measures: Any) -> Iterator[Plane]:
    where, axes = position.get("ImagePositionPatient"), orientation.get("ImageOrientationPatient")
    if not where or not axes or len(where) != 3 or len(axes) != 6:
        return
    row, column = np.array(axes[:3], dtype=float), np.array(axes[3:], dtype=float)
    thickness = measures.get("SliceThickness")
    yield Plane(instance, np.array(where, dtype=float), row, column, float(thickness) if thickness else None)


def _shown(path: Path) -> str:
    return printable(str(path))
