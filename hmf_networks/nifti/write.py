"""Write one volume beside its reference: the same geometry to the bit."""

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from hmf_networks.atomic import write_whole
from hmf_networks.nifti.header import Header
from hmf_networks.nifti.read import read_header
from numpy.typing import NDArray

GEOMETRY = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)
SCANNER = 1  # code of a matrix: as the scanner had it
SYNTHETIC = b"hmf_networks synthetic image"
COMPRESSION = 6  # of gzip; more is slower by far and hardly smaller


def write_volume_like(reference_path: str | Path, values: NDArray[Any], path: str | Path) -> None:
    """Write `values` (X, Y, Z) as float32 with the raw geometry fields of the reference, whatever they say.

    NIfTI-1 in, NIfTI-1 out; NIfTI-2 in, NIfTI-2 out. No text of the reference (it may hold names) is kept.

    Raises:
        ValueError: the shape is not that of the reference.
    """
    write_whole(path, encode_like(reference_path, values, path))


def write_volume(
    values: NDArray[Any], affine: NDArray[np.float64], path: str | Path, *, like: Path | None = None
) -> None:
    """Write a scan (X, Y, Z) as float32 NIfTI-1, qform and sform set to `affine` (mm, RAS+).

    With `like`, a NIfTI file of its grid, with the raw geometry fields of that, and no other of its texts.
    """
    if like is not None:
        image = _image(read_header(like), values, b"")
    else:
        image = nibabel.Nifti1Image(values.astype(np.float32), affine)
        image.set_sform(affine, SCANNER)
        image.set_qform(affine, SCANNER)
        image.header.set_xyzt_units("mm")
    write_whole(path, _bytes(image, path))


def encode_like(reference_path: str | Path, values: NDArray[Any], path: str | Path) -> bytes:
    """What `write_volume_like` writes; compressed where `path` ends in .gz, without name and time."""
    reference = read_header(reference_path)
    if values.shape != reference.shape:
        raise ValueError(f"{path}: shape {values.shape} is not that of {reference_path}, {reference.shape}")
    return _bytes(_image(reference, values, SYNTHETIC), path)


def _bytes(image: nibabel.Nifti1Image, path: str | Path) -> bytes:
    content = image.to_bytes()
    return gzip.compress(content, COMPRESSION, mtime=0) if str(path).lower().endswith(".gz") else content


def _image(reference: Header, values: NDArray[Any], description: bytes) -> nibabel.Nifti1Image:
    """`to_bytes` recomputes no field but vox_offset and dim; an affine of None leaves the codes alone."""
    is_nifti2 = isinstance(reference.raw, nibabel.Nifti2Header)
    image = (nibabel.Nifti2Image if is_nifti2 else nibabel.Nifti1Image)(values.astype(np.float32), None)
    image.header.set_data_dtype(np.float32)
    for field in GEOMETRY:
        image.header[field] = reference.raw[field]
    image.header["descrip"] = description
    return image
