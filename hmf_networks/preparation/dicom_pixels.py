"""The pixels of DICOM images as numbers: decoded, scaled, bright where there is signal.

Plain pixels and run lengths (RLE) are read by pydicom, which gives them as they are stored and needs no decoder for
it; GDCM fails on run lengths longer than what they stand for. JPEG of every kind (lossless, LS, 2000) is decoded by
ITK's GDCM, the one decoder here that knows them all. It gets a copy without anything but the pixels: GDCM scales MR
images or not, and turns MONOCHROME1 or not, as version and tags have it; that is done here, once, for all of them.
"""

import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.nifti.header import MAX_VOXELS
from hmf_networks.preparation.dicom_headers import Image, damaged
from numpy.typing import NDArray

MULTI_FRAME_WORD, MULTI_FRAME_BYTE = "1.2.840.10008.5.1.4.1.1.7.3", "1.2.840.10008.5.1.4.1.1.7.2"  # secondary captures
DECODED_FROM = (
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit"),
    *("PixelRepresentation", "PixelData"),
)


def volume(images: Sequence[Image], *, max_voxels: int = MAX_VOXELS) -> NDArray[np.float32]:
    """(X, Y, Z), in the order of the images, by their slopes and intercepts.

    Raises:
        VolumeError: E_TRUNCATED, E_DICOM_PIXELS, E_DTYPE, E_SCALE, E_TOO_LARGE, E_NO_SIGNAL.
    """
    rows, columns = (int(images[0].number(name) or 0) for name in ("Rows", "Columns"))
    if rows * columns * len(images) > max_voxels:
        problem = f"{columns} x {rows} x {len(images)} voxels; {max_voxels} are read"
        raise VolumeError("E_TOO_LARGE", images[0].name, problem)
    values = np.empty((columns, rows, len(images)), np.float32)
    read: dict[Path, NDArray[Any]] = {}
    for index, image in enumerate(images):
        if image.path not in read:
            read = {image.path: stored_frames(image)}  # one file at a time is held
        values[:, :, index] = _scaled(image, read[image.path][image.frame or 0]).T
    if values.min() == values.max():
        raise VolumeError("E_NO_SIGNAL", images[0].name, f"every voxel of its series is {values.flat[0]:g}")
    return _bright(images, values)


def same_pixels(one: Image, other: Image) -> bool:
    """Whether two images are the same in every pixel, as they will be read.

    Raises:
        VolumeError: as `volume`.
    """
    here, there = (_scaled(image, stored_frames(image)[image.frame or 0]) for image in (one, other))
    return np.array_equal(here, there)


def stored_frames(image: Image) -> NDArray[Any]:
    """All frames of the image's file as they are stored, (F, rows, columns)."""
    from pydicom import dcmread

    try:
        with warnings.catch_warnings(action="ignore"):  # they quote values, names among them
            dataset = dcmread(image.path, force=True)
            _check(dataset, image)
            pixels = _decoded(dataset) if _is_jpeg(dataset) else dataset.pixel_array
        return np.asarray(pixels).reshape(-1, int(dataset.Rows), int(dataset.Columns))
    except EOFError as error:
        raise VolumeError("E_TRUNCATED", image.name, "it ends before its pixels do") from error
    except ImportError as error:
        raise RuntimeError("compressed DICOM needs itk: pip install 'hmf-networks[prepare]'") from error
    except damaged() as error:
        if isinstance(error, VolumeError):
            raise
        raise VolumeError("E_DICOM_PIXELS", image.name, "its pixels cannot be decoded") from error


def _check(dataset: Any, image: Image) -> None:
    """What is told better here than by a decoder."""
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in dataset.file_meta:  # from before files had a preamble
        is_implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise VolumeError("E_DTYPE", image.name, "its pixels are colours", "give the series itself, no picture of it")
    if not dataset.get("PixelData"):
        raise VolumeError("E_TRUNCATED", image.name, "it holds no pixels")
    num_pixels = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("NumberOfFrames") or 1)
    wanted = num_pixels * int(dataset.BitsAllocated) // 8
    if not dataset.file_meta.TransferSyntaxUID.is_encapsulated and len(dataset.PixelData) < wanted:
        raise VolumeError("E_TRUNCATED", image.name, f"{len(dataset.PixelData)} bytes of pixels; it needs {wanted}")


def _is_jpeg(dataset: Any) -> bool:
    from pydicom.uid import RLELossless

    syntax = dataset.file_meta.TransferSyntaxUID
    return bool(syntax.is_encapsulated and syntax != RLELossless)


def _decoded(dataset: Any) -> NDArray[Any]:
    import itk
    from pydicom.dataset import Dataset, FileMetaDataset

    bare = Dataset()
    for keyword in DECODED_FROM:
        if keyword in dataset:
            bare[keyword] = dataset[keyword]
    is_byte = int(dataset.BitsAllocated) <= 8
    bare.SOPClassUID, bare.SOPInstanceUID = MULTI_FRAME_BYTE if is_byte else MULTI_FRAME_WORD, "2.25.1"
    bare.PhotometricInterpretation = "MONOCHROME2"
    bare.NumberOfFrames = int(dataset.get("NumberOfFrames") or 1)
    bare.file_meta = FileMetaDataset()
    bare.file_meta.TransferSyntaxUID = dataset.file_meta.TransferSyntaxUID
    with tempfile.TemporaryDirectory(prefix="hmf_pixels_") as folder:
        path = Path(folder) / "pixels.dcm"
        bare.save_as(path, enforce_file_format=True)
        return itk.array_from_image(itk.imread(str(path)))


def _scaled(image: Image, stored: NDArray[Any]) -> NDArray[np.float32]:
    slope = image.number("RescaleSlope") if "RescaleSlope" in image.values else 1.0
    intercept = image.number("RescaleIntercept") if "RescaleIntercept" in image.values else 0.0
    if not slope or intercept is None:
        told = f"slope {image.text('RescaleSlope')[:20]}, intercept {image.text('RescaleIntercept')[:20]}"
        raise VolumeError("E_SCALE", image.name, told)
    with np.errstate(over="ignore"):
        values = (stored * np.float64(slope) + intercept).astype(np.float32)
    if not np.isfinite(values).all():
        raise VolumeError("E_SCALE", image.name, f"slope {slope:g} makes values that no float32 can hold")
    return values


def _bright(images: Sequence[Image], values: NDArray[np.float32]) -> NDArray[np.float32]:
    """MONOCHROME1 shows its smallest number white: turned over within the volume's own range."""
    kinds = {image.text("PhotometricInterpretation") or "MONOCHROME2" for image in images}
    if kinds == {"MONOCHROME1"}:
        return values.max() + values.min() - values
    if kinds != {"MONOCHROME2"}:
        raise VolumeError("E_DTYPE", images[0].name, f"its pixels are {', '.join(sorted(kinds))}, no grey values")
    return values
