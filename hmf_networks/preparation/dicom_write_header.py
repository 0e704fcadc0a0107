"""What a derived MR series is and what it was made from, as DICOM says it (PS3.3, MR Image IOD, A.4).

What was not acquired is not told: no echo or repetition time, no field strength, no scanner.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from hmf_networks.naming import CONTRASTS, GENERATOR
from hmf_networks.preparation.dicom_write_source import Instance, SourceSeries

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
HIGHEST = 2**16 - 1  # that can be stored
FIRST_SERIES_NUMBER = 9001  # one for each contrast, after all that a scanner gives
NOT_ACQUIRED = ("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength")

Code = tuple[str, str, str]
BY_NETWORK: Code = ("123110", "DCM", "Artificial Intelligence")  # of CID 7162; CID 7203 may be extended, and lacks one
AS_SOURCE: Code = ("121322", "DCM", "Source image for image processing operation")  # of CID 7202
SYNTHESIZER: Code = ("109100", "DCM", "Synthesizing Equipment")  # of CID 7005


def dataset(values: Mapping[str, Any]) -> Any:
    """A pydicom data set of those values, by keyword."""
    from pydicom import Dataset

    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def what_it_is(
    contrast: str, made_from: Iterable[str], *, weights_sha256: str, description: str | None = None
) -> dict[str, Any]:
    """All that says: computed, of what, with what, not for diagnosis. No dates."""
    if not re.fullmatch("[0-9a-f]{64}", weights_sha256):
        raise ValueError(f"weights_sha256 {weights_sha256!r} is no SHA-256; use hashing.file_hash of the weights")
    program = f"{GENERATOR['Name']} {GENERATOR['Version']}"
    sources = ", ".join(_spoken(name) for name in made_from)
    equipment = {
        "PurposeOfReferenceCodeSequence": [_code(SYNTHESIZER)],
        "Manufacturer": GENERATOR["Name"],
        "SoftwareVersions": [weights_sha256, program],  # in this order: the last may be padded, and 64 is the limit
        "ContributionDescription": "the first software version is the SHA-256 of the network's weights",
    }
    return dict.fromkeys(NOT_ACQUIRED, "") | {
        "SOPClassUID": MR_IMAGE_STORAGE,
        "Modality": "MR",
        "SeriesNumber": FIRST_SERIES_NUMBER + CONTRASTS.index(contrast),
        "SeriesDescription": _checked(description or f"synthetic {_spoken(contrast)}, not for diagnosis"),
        "ImageType": ["DERIVED", "SECONDARY", "OTHER"],
        "DerivationDescription": f"{_spoken(contrast)} computed from {sources} by {program}, not for diagnosis",
        "DerivationCodeSequence": [_code(BY_NETWORK)],
        "Manufacturer": GENERATOR["Name"],
        "SoftwareVersions": program,
        "ContributingEquipmentSequence": [dataset(equipment)],
        "ScanningSequence": "RM",
        "SequenceVariant": "NONE",
    }


def when(now: datetime) -> dict[str, str]:
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    return {"InstanceCreationDate": date, "InstanceCreationTime": time, "SeriesDate": date, "SeriesTime": time}


def how_it_is_stored(sources: Iterable[SourceSeries], *, peak: int, white: int) -> dict[str, Any]:
    """Of integers up to `peak`, shown from black at 0 to `white`.

    The MR Image IOD has no modality LUT: windows are of stored integers, and a RescaleSlope would be an extension
    that one viewer applies and the next does not. So what is stored are the values themselves, rounded.
    """
    bits = 12 if peak < 2**12 else 16
    stored = {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "WindowCenter": white / 2,
        "WindowWidth": white,
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
    }
    for source in sources:
        stored |= _inherited(source.copied)
    return stored


def _inherited(source: Mapping[str, Any]) -> dict[str, Any]:
    """Once lossy always lossy, says the standard; and a network may well copy a burnt in name."""
    inherited: dict[str, Any] = {"BurnedInAnnotation": "YES"} if source.get("BurnedInAnnotation") == "YES" else {}
    if source.get("LossyImageCompression") == "01":
        inherited["LossyImageCompression"] = "01"
        ratio, method = (source.get(f"LossyImageCompression{part}") for part in ("Ratio", "Method"))
        if ratio and re.fullmatch(r"ISO_\d{4,6}_\d{1,2}", str(method)):  # words of DICOM's list, no notes
            inherited |= {"LossyImageCompressionRatio": ratio, "LossyImageCompressionMethod": method}
    return inherited


def references(sources: Sequence[SourceSeries], near: Sequence[Sequence[Instance]]) -> dict[str, Any]:
    """What one slice was made from: source images are those of each series that are `near`.

    Of a series that has none, all instances are referenced images: related, and none the source of this very slice.
    The series of both are listed, as the standard's common instance reference wants it.
    """
    images = [_reference(instance) | _as_source() for instances in near for instance in instances]
    related: list[dict[str, Any]] = []
    by_study: dict[str, list[Any]] = {}
    for source, instances in zip(sources, near, strict=True):
        parts = [_reference(instance._replace(frames=())) for instance in instances or source.instances]
        related += [] if instances else parts
        series = {"SeriesInstanceUID": source.uid, "ReferencedInstanceSequence": [dataset(part) for part in parts]}
        by_study.setdefault(source.copied["StudyInstanceUID"], []).append(dataset(series))
    here, *others = by_study.items()  # the template's study comes first
    told = {
        "SourceImageSequence": [dataset(image) for image in images],
        "ReferencedImageSequence": [dataset(image) for image in related],
        "ReferencedSeriesSequence": here[1],
        "StudiesContainingOtherReferencedInstancesSequence": [
            dataset({"StudyInstanceUID": study, "ReferencedSeriesSequence": series}) for study, series in others
        ],
    }
    return {keyword: items for keyword, items in told.items() if items}


def _as_source() -> dict[str, Any]:
    return {"PurposeOfReferenceCodeSequence": [_code(AS_SOURCE)]}


def _reference(instance: Instance) -> dict[str, Any]:
    frames = {"ReferencedFrameNumber": list(instance.frames)} if instance.frames else {}
    return {"ReferencedSOPClassUID": instance.sop_class, "ReferencedSOPInstanceUID": instance.uid} | frames


def _code(code: Code) -> Any:
    value, scheme, meaning = code
    return dataset({"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning})


def _spoken(contrast: str) -> str:
    return {"t1c": "contrast-enhanced T1"}.get(contrast, contrast.upper())


def _checked(description: str) -> str:
    if len(description) > 64 or not description.isprintable() or "\\" in description:
        raise ValueError(f"description {description!r}; use one line of at most 64 characters, no backslash")
    return description
