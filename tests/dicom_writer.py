"""DICOM studies made from small arrays: classic MR, a file for each slice, and enhanced MR, one file.

What a test wants otherwise it says by keyword (`EchoTime=80`), for all slices or, a dict by slice, for some.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CLASSIC, ENHANCED = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.4.1"
STUDY = "1.2.3.4"
PATIENT = "Doe^Jane"
T1 = {"RepetitionTime": 500, "EchoTime": 10, "ScanningSequence": "SE", "SeriesDescription": "Ax T1 SE"}
T2 = {"RepetitionTime": 4000, "EchoTime": 90, "ScanningSequence": "SE", "SeriesDescription": "Ax T2 TSE"}
PD = {"RepetitionTime": 3000, "EchoTime": 15, "ScanningSequence": "SE", "SeriesDescription": "PD+T2 TSE"}
FLAIR = {
    **{"RepetitionTime": 9000, "EchoTime": 110, "InversionTime": 2500},
    **{"ScanningSequence": ["SE", "IR"], "SeriesDescription": "t2_tirm_tra_dark-fluid"},
}


def oblique(spacing_mm=(0.9, 1.1, 3.0)) -> np.ndarray:
    """An affine, RAS+, that no two axes can be swapped or flipped in unseen."""
    a, b, c = 0.3, -0.2, 0.15
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = (x @ y @ z) * spacing_mm
    affine[:3, 3] = (-11.0, 23.0, -37.0)
    return affine


def numbers(shape=(7, 6, 5), seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 900, shape)


def write_classic(folder: Path, values: np.ndarray, affine: np.ndarray, *, series=1, names=None, **tags: Any):
    """One file for each slice of (X, Y, Z), rows along X; returns their paths in the order of the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(values.shape[2]):
        dataset = _head(CLASSIC, series, f"{series}.{index + 1}")
        dataset.InstanceNumber = index + 1
        _place(dataset, affine, index)
        dataset.PixelSpacing = _pixel_spacing(affine)
        dataset.SliceThickness = float(np.linalg.norm(affine[:3, 2]))
        _pixels(dataset, values[:, :, index].T)
        _set(dataset, tags, index)
        name = f"IM{index:04d}" if names is None else names[index]
        paths.append(folder / name)
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_enhanced(path: Path, values: np.ndarray, affine: np.ndarray, *, series=1, order=None, **tags: Any) -> Path:
    """One file, its frames in any order; times and slope are in the functional groups and nowhere else."""
    path.parent.mkdir(parents=True, exist_ok=True)
    order = list(range(values.shape[2])) if order is None else list(order)
    dataset = _head(ENHANCED, series, f"{series}.1")
    del dataset.ScanningSequence
    timing, echo, measures = Dataset(), Dataset(), Dataset()
    timing.RepetitionTime, timing.FlipAngle = tags.pop("RepetitionTime", 500), 90
    echo.EffectiveEchoTime = tags.pop("EchoTime", 10)
    measures.PixelSpacing = _pixel_spacing(affine)
    shared = Dataset()
    shared.MRTimingAndRelatedParametersSequence, shared.MREchoSequence = [timing], [echo]
    shared.PixelMeasuresSequence = [measures]
    frames = []
    for index in order:
        place, where, which, slope = Dataset(), Dataset(), Dataset(), Dataset()
        _place(place, affine, index)
        where.ImagePositionPatient, which.ImageOrientationPatient = (
            place.ImagePositionPatient,
            place.ImageOrientationPatient,
        )
        slope.RescaleSlope, slope.RescaleIntercept = 2, index
        frame = Dataset()
        frame.PlanePositionSequence, frame.PlaneOrientationSequence = [where], [which]
        frame.PixelValueTransformationSequence = [slope]
        frames.append(frame)
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], frames
    _pixels(dataset, values[:, :, order].T)
    dataset.NumberOfFrames = len(order)
    dataset.EchoPulseSequence = "SPIN"
    _set(dataset, tags, 0)
    dataset.save_as(path, enforce_file_format=True)
    return path


def rewrite(path: Path, **tags: Any) -> None:
    """Other tags in a file that is there."""
    from pydicom import dcmread

    dataset = dcmread(path)
    _set(dataset, tags, 0)
    dataset.save_as(path, enforce_file_format=True)


def _head(kind: str, series: int, instance: str) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = kind, f"{STUDY}.{instance}"
    dataset.Modality, dataset.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M", "ND"]
    dataset.PatientName, dataset.PatientID, dataset.StudyInstanceUID = PATIENT, "4711", STUDY
    dataset.StudyDate, dataset.SeriesInstanceUID = "20200102", f"{STUDY}.{series}"
    dataset.FrameOfReferenceUID, dataset.SeriesNumber = generate_uid(), series
    for keyword, value in T1.items():
        if kind == CLASSIC or keyword == "SeriesDescription":
            setattr(dataset, keyword, value)
    dataset.Manufacturer, dataset.ManufacturerModelName = "SIEMENS", "Skyra"
    dataset.ScanningSequence = "SE"
    return dataset


def _place(dataset: Dataset, affine: np.ndarray, index: int) -> None:
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    axes = lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)
    dataset.ImageOrientationPatient = [f"{number:.10f}" for number in (*axes[:, 0], *axes[:, 1])]
    dataset.ImagePositionPatient = [f"{number:.8f}" for number in (lps @ [0, 0, index, 1])[:3]]


def _pixel_spacing(affine: np.ndarray) -> list[str]:
    column_mm, row_mm, _ = np.linalg.norm(affine[:3, :3], axis=0)
    return [f"{row_mm:.8f}", f"{column_mm:.8f}"]  # between rows first


def _pixels(dataset: Dataset, pixels: np.ndarray) -> None:
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = np.ascontiguousarray(pixels, "<u2").tobytes()


def _set(dataset: Dataset, tags: Mapping[str, Any], index: int) -> None:
    for keyword, value in tags.items():
        here = value.get(index, ...) if isinstance(value, Mapping) else value
        if here is None:
            delattr(dataset, keyword)
        elif here is not ...:
            setattr(dataset, keyword, here)
