"""Small source series for tests of DICOM output: classic and enhanced, plain or with a marker in every text."""

from pathlib import Path

import numpy as np

MARKER = "QXZ"  # begins every planted text; no word of ours has it
ROOT = "1.2.826.0.1.7777"  # of every UID of a source
BIRTH, DAY = "19440203", "20110709"
MR_IMAGE, ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
STUDY, SERIES, FRAME = f"{ROOT}.1", f"{ROOT}.1.1", f"{ROOT}.9"
SHAPE, SPACING_MM = (6, 5, 4), (1.5, 0.8, 3.0)  # columns, rows, slices
TEXT_KINDS = ("AE", "AS", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT")
KEPT_AS_IT_IS = ("SpecificCharacterSet", "Modality", "PhotometricInterpretation")  # or it could not be read
TURN = np.linalg.qr(np.array([[0.9, -0.3, 0.2], [0.2, 0.9, -0.3], [-0.1, 0.3, 0.9]]))[0]
DIRECTIONS = {  # (3, 3) LPS; columns: along rows, along columns, normal
    "axial": np.eye(3),
    "sagittal": np.array([[0.0, 0, -1], [1, 0, 0], [0, -1, 0]]),
    "oblique": np.column_stack([TURN[:, 0], TURN[:, 1], np.cross(TURN[:, 0], TURN[:, 1])]),
}
LPS = np.diag([-1.0, -1, 1, 1])


def grid(plane: str) -> np.ndarray:
    """From voxels to mm, RAS+, of a volume of SHAPE in that plane."""
    affine = np.eye(4)
    affine[:3, :3] = DIRECTIONS[plane] * SPACING_MM
    affine[:3, 3] = (-31.25, 12.5, 7.125)
    return LPS @ affine


def plain_header() -> dict:
    return {
        "SpecificCharacterSet": "ISO_IR 100",
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "SE"],
        "PatientName": "Müller^Änne",
        "PatientID": "4711",
        "PatientBirthDate": BIRTH,
        "PatientSex": "F",
        "PatientPosition": "HFS",
        "StudyDate": DAY,
        "StudyTime": "101112",
        "AccessionNumber": "A1",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "FrameOfReferenceUID": FRAME,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "Columns": SHAPE[0],
        "Rows": SHAPE[1],
    }


def write_classic(folder: Path, affine: np.ndarray, **changed) -> list[Path]:
    """A series of SHAPE on that grid, the last slice numbered first. `changed`: tags by keyword."""
    folder.mkdir(parents=True)
    paths = []
    series = changed.get("SeriesInstanceUID", SERIES)
    for index in range(SHAPE[2]):
        image = plain_header() | _position(affine, index) | _orientation(affine) | _measures()
        image |= {"SOPInstanceUID": f"{series}.{index + 1}", "InstanceNumber": SHAPE[2] - index}
        paths.append(folder / f"{index}.dcm")
        write(paths[-1], MR_IMAGE, image | changed)
    return paths


def write_enhanced(folder: Path, affine: np.ndarray, **changed) -> list[Path]:
    """The same as one multi-frame object, the last slice first."""
    folder.mkdir(parents=True)
    shared = {"PlaneOrientationSequence": [_data(_orientation(affine))], "PixelMeasuresSequence": [_data(_measures())]}
    frames = [
        _data({"PlanePositionSequence": [_data(_position(affine, index))]}) for index in reversed(range(SHAPE[2]))
    ]
    image = plain_header() | {
        "SOPInstanceUID": f"{SERIES}.1",
        "NumberOfFrames": SHAPE[2],
        "SharedFunctionalGroupsSequence": [_data(shared)],
        "PerFrameFunctionalGroupsSequence": frames,
    }
    write(folder / "all.dcm", ENHANCED_MR, image | changed)
    return [folder / "all.dcm"]


def write(path: Path, sop_class: str, values: dict) -> None:
    import pydicom

    image = _data(values | {"SOPClassUID": sop_class})
    image.add_new("PixelData", "OW", bytes(2 * image.Rows * image.Columns * int(image.get("NumberOfFrames", 1))))
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    image.save_as(path, enforce_file_format=True)


def plant(path: Path) -> dict[str, str]:
    """Put markers and the birth date wherever a DICOM file has text or dates; what text went into which tag."""
    import pydicom
    from pydicom.datadict import DicomDictionary, dictionary_VR

    image = pydicom.dcmread(path)
    texts = {}
    for tag, (kind, _, _, retired, keyword) in DicomDictionary.items():
        if not keyword or retired or not 0x00080000 < tag < 0x50000000 or keyword in KEPT_AS_IT_IS:
            continue
        if kind in TEXT_KINDS:
            texts[keyword] = _text(len(texts), kind)
            setattr(image, keyword, texts[keyword])
        elif kind == "DA":
            setattr(image, keyword, BIRTH)
    nested = pydicom.Dataset()
    for keyword in ("PatientName", "PatientID", "PatientComments", "RequestedProcedureDescription", "CodeMeaning"):
        setattr(nested, keyword, _text(90000 + len(texts), dictionary_VR(keyword)))
    for keyword in ("RequestAttributesSequence", "OtherPatientIDsSequence", "ReferencedStudySequence"):
        setattr(image, keyword, [nested])
    image.ContributingEquipmentSequence = image.SourceImageSequence = [nested]
    private = image.private_block(0x0029, f"{MARKER} CREATOR", create=True)
    private.add_new(1, "LO", f"{MARKER} private")
    private.add_new(2, "SQ", [nested])
    image.save_as(path)
    return texts


def _text(number: int, kind: str) -> str:
    return f"{number % 1000:03d}Y" if kind == "AS" else f"{MARKER}{number:05d}"


def _position(affine: np.ndarray, index: int) -> dict:
    return {"ImagePositionPatient": _decimals((LPS @ affine @ (0, 0, index, 1))[:3])}


def _orientation(affine: np.ndarray) -> dict:
    directions = (LPS @ affine)[:3, :2] / SPACING_MM[:2]
    return {"ImageOrientationPatient": _decimals(directions.T.ravel())}


def _measures() -> dict:
    return {"PixelSpacing": _decimals(SPACING_MM[1::-1]), "SliceThickness": "2.5"}


def _decimals(numbers) -> list:
    from pydicom.valuerep import DSfloat

    return [DSfloat(float(number), auto_format=True) for number in numbers]


def _data(values: dict):
    import pydicom

    made = pydicom.Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made
