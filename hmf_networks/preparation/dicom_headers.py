"""One DICOM image as its tags describe it, whether it has a file of its own or is a frame of an enhanced file.

Enhanced MR has its tags in functional groups, some under other names and with other words. Here they get those of
classic MR, so that the rest of the house knows one kind. Lengths in mm, times in ms, directions LPS.
"""

import struct
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hmf_networks.nifti.codes import VolumeError
from numpy.typing import NDArray

Values = dict[str, Any]

LARGEST = 1e10  # series numbers reach 2^31; squares of it are far from overflow
DIRECTORY = "1.2.840.10008.1.3.10"  # DICOMDIR, whatever its name
IDENTIFYING = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID", "StudyDate"),
    *("StudyTime", "AccessionNumber", "SeriesInstanceUID", "SeriesNumber", "FrameOfReferenceUID"),
    *("SeriesDescription", "ProtocolName"),
)
PLACE = ("Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "NumberOfFrames")
PHYSICS = (
    *("SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "Manufacturer", "ManufacturerModelName"),
    *("MagneticFieldStrength", "ScanningSequence", "SequenceVariant", "ScanOptions", "SequenceName"),
    *("RepetitionTime", "EchoTime", "InversionTime", "FlipAngle", "EchoNumbers", "SliceThickness"),
    *("SpacingBetweenSlices", "ContrastBolusAgent", "DiffusionBValue", "AngioFlag", "NumberOfTemporalPositions"),
    *("RescaleSlope", "RescaleIntercept", "PhotometricInterpretation", "AcquisitionContrast"),
)
# Enhanced MR: what it calls the same thing, at the top or in a functional group.
RENAMED = {
    "EffectiveEchoTime": "EchoTime",
    "InversionTimes": "InversionTime",
    "PulseSequenceName": "SequenceName",
    "FrameType": "ImageType",
}
SWITCHES = (  # tag, its word, and what classic MR says: tag and word
    ("EchoPulseSequence", "SPIN", "ScanningSequence", "SE"),
    ("EchoPulseSequence", "GRADIENT", "ScanningSequence", "GR"),
    ("EchoPulseSequence", "BOTH", "ScanningSequence", "SE"),
    ("EchoPlanarPulseSequence", "YES", "ScanningSequence", "EP"),
    ("InversionRecovery", "YES", "ScanningSequence", "IR"),
    ("SpectrallySelectedSuppression", "FAT", "ScanOptions", "FS"),
    ("ComplexImageComponent", "PHASE", "ImageType", "P"),
    ("ComplexImageComponent", "REAL", "ImageType", "R"),
    ("ComplexImageComponent", "IMAGINARY", "ImageType", "I"),
    ("ContrastBolusAgentAdministered", "YES", "ContrastBolusAgent", "YES"),
)
GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
WANTED = {*IDENTIFYING, *PLACE, *PHYSICS, *RENAMED, *(switch[0] for switch in SWITCHES)}
READ = [*sorted(WANTED), *GROUPS, "ContrastBolusAgentSequence"]


@dataclass(frozen=True)
class Image:
    """One slice.

    Attributes:
        path: of its file.
        frame: which of an enhanced file's, from 0; None for a file that is one image.
        values: what its tags say, by their DICOM keywords; names of people are among them, so never print it.
        name: its file below the folder of the study, for messages.
    """

    path: Path
    frame: int | None
    values: Values = field(repr=False)
    name: str = ""

    def number(self, keyword: str) -> float | None:
        """The first number under that tag, or None."""
        numbers = self.numbers(keyword)
        return float(numbers[0]) if len(numbers) else None

    def numbers(self, keyword: str) -> NDArray[np.float64]:
        return numbers_in(self.values, keyword)

    def text(self, keyword: str) -> str:
        return " ".join(words_in(self.values, keyword))

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the slice: along its rows x down its columns, LPS."""
        orientation = self.numbers("ImageOrientationPatient")
        return np.cross(orientation[:3], orientation[3:])


def numbers_in(values: Mapping[str, Any], keyword: str) -> NDArray[np.float64]:
    """Finite; empty where the tag is missing, or holds anything that no scanner writes."""
    try:
        numbers = np.asarray([float(value) for value in words_in(values, keyword)], dtype=np.float64)
    except ValueError:
        return np.empty(0)
    return numbers if (np.abs(numbers) < LARGEST).all() else np.empty(0)  # NaN is not, either


def words_in(values: Mapping[str, Any], keyword: str) -> list[str]:
    """All values under that tag, as text."""
    value = values.get(keyword)
    if value is None:
        return []
    return [str(part).strip() for part in ([value] if isinstance(value, str) else np.atleast_1d(value))]


def damaged() -> tuple[type[Exception], ...]:
    """What pydicom raises for files that are damaged; it checks little before it believes."""
    from pydicom.errors import BytesLengthException, InvalidDicomError

    of_python = (OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, OverflowError)
    return (*of_python, struct.error, BytesLengthException, InvalidDicomError)


def read_images(path: Path, name: str = "") -> list[Image]:
    """What the file holds, pixels unread; [] for a DICOMDIR, and for what only looks like DICOM.

    Raises:
        VolumeError: E_CORRUPT.
    """
    from pydicom import dcmread

    try:
        with warnings.catch_warnings(action="ignore"):  # they quote values, names among them
            dataset = dcmread(path, stop_before_pixels=True, specific_tags=READ, force=True)
            if DIRECTORY in (dataset.get("SOPClassUID"), dataset.file_meta.get("MediaStorageSOPClassUID")):
                return []
            if "SOPInstanceUID" not in dataset:
                if dataset.preamble is None:  # it only begins like an old file
                    return []
                raise EOFError
            return [Image(path, frame, values, name) for frame, values in _each_frame(dataset)]
    except damaged() as error:
        raise VolumeError("E_CORRUPT", name or path, "its tags cannot be read", "export it again") from error


def _each_frame(dataset: Any) -> Iterator[tuple[int | None, Values]]:
    agents = dataset.get("ContrastBolusAgentSequence")
    top = ({"ContrastBolusAgent": "YES"} if agents else {}) | _plain(dataset)
    shared = _grouped(dataset.get(GROUPS[0]) or [])
    frames = dataset.get(GROUPS[1])
    if not frames:
        yield None, _as_classic(top | shared)
    for frame, group in enumerate(frames or []):
        yield frame, _as_classic(top | shared | _grouped([group]))


def _grouped(groups: Any) -> Values:
    """The plain tags in all macros of a functional group."""
    macros = [element.value[0] for group in groups for element in group if element.VR == "SQ" and element.value]
    return {keyword: value for macro in macros for keyword, value in _plain(macro).items()}


def _plain(dataset: Any) -> Values:
    """Plain Python, so that the data set, with all it holds, need not be kept."""
    values = {}
    for element in dataset:
        if element.keyword in WANTED and element.value not in (None, ""):
            is_list = element.VM > 1
            values[element.keyword] = [_simple(part) for part in element.value] if is_list else _simple(element.value)
    return values


def _simple(value: Any) -> Any:
    return float(value) if isinstance(value, int | float) else str(value)


def _as_classic(values: Values) -> Values:
    classic = {name: value for name, value in values.items() if name not in RENAMED}
    classic |= {RENAMED[name]: value for name, value in values.items() if name in RENAMED}
    for tag, word, classic_tag, classic_word in SWITCHES:
        if word in words_in(values, tag):
            classic[classic_tag] = [*words_in(classic, classic_tag), classic_word]
    return classic
