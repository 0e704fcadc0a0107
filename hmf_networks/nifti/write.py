"""Write one volume beside its reference: the same geometry to the bit."""

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

from hmf_networks.atomic import write_whole
from hmf_networks.nifti.read import read_header

GEOMETRY = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code"),
    *(
        "quatern_b",
        "quatern_c",
        "quatern_d",
        "qoffset_x",
        "qoffset_y",
        "qoffset_z",
        "srow_x",
        "srow_y",
        "srow_z",
    ),
)


def write_volume_like(reference_path: str | Path, values: NDArray[Any], path: str | Path) -> None:
    """Write `values` (X, Y, Z) as float32 with the raw geometry fields of the reference, whatever they say.

    NIfTI-1 in, NIfTI-1 out; NIfTI-2 in, NIfTI-2 out. No text of the reference (it may hold names) is kept.

    Raises:
        ValueError: the shape is not that of the reference.
    """
    reference = read_header(reference_path)
    if values.shape != reference.shape[:3]:
        raise ValueError(
            f"{path}: shape {values.shape} is not that of {reference_path}, {reference.shape[:3]}"
        )
    is_nifti2 = isinstance(reference.header, nibabel.Nifti2Header)
    image = (nibabel.Nifti2Image if is_nifti2 else nibabel.Nifti1Image)(values.astype(np.float32), None)
    image.header.set_data_dtype(np.float32)
    geometry = _raw_header(reference)
    for field in GEOMETRY:
        image.header[field] = geometry[field]
    image.header["descrip"] = b"hmf_networks synthetic image"
    write_whole(path, _encode(image, is_gzip=str(path).endswith(".gz")))


def _raw_header(image: nibabel.Nifti1Image) -> nibabel.Nifti1Header:
    """The header as it lies in the file; that of a loaded image is mended already, e.g. a pixdim[0] of 0."""
    file_map = image.file_map
    with file_map.get("header", file_map["image"]).get_prepare_fileobj("rb") as file:
        return image.header_class.from_fileobj(file, check=False)


def _encode(image: nibabel.Nifti1Image, *, is_gzip: bool) -> bytes:
    """`to_bytes` recomputes no field but vox_offset and dim; an affine of None leaves the codes alone."""
    content = image.to_bytes()
    return gzip.compress(content, compresslevel=6, mtime=0) if is_gzip else content
