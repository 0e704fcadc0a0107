"""What a NIfTI header says, judged before a voxel is read: shape, type, scaling, place in the file.

The definitions are nifti1.h and nifti2.h, the limits common sense. Where the volume lies: `geometry.py`.
"""

import math
import struct
from typing import NamedTuple

import nibabel
import numpy as np
from hmf_networks.nifti.codes import Complaint, Warned
from hmf_networks.nifti.geometry import geometry
from nibabel.nifti1 import extension_codes
from numpy.typing import NDArray

MAX_VOXELS = 2**28  # float32 of so many fill a gigabyte; 0.25 mm of a whole head are less
MAX_EXTENSION_BYTES = 2**24
SINGLE, PAIR = (b"n+1\0", b"n+2\0"), (b"ni1\0", b"ni2\0")  # header and voxels in one file, or in two
LINE_ENDS = (b"\r\n\x1a\n", bytes(4))  # behind the magic of NIfTI-2; a transfer as text changes the first
NUMBERS = (2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280)  # data types that are plain integers and floats
OTHER_FORMATS = {
    b"\0\0\0\1": "MGH (FreeSurfer)",
    b"NRRD": "NRRD",
    b"\x89PNG": "PNG",
    b"\xff\xd8\xff": "JPEG",
    b"PK\x03\x04": "a ZIP archive",
    b"\x89HDF": "HDF5 (or MINC-2)",
    b"CDF": "NetCDF (or MINC-1)",
    b"ObjectType": "MetaImage",
    b"<": "XML or HTML, perhaps the error page of a download",
    b"version https://git-lfs": "a pointer of git-lfs: run `git lfs pull`",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "zstd",
}


class Header(NamedTuple):
    """A header that makes sense.

    Attributes:
        raw: every field as it lies in the file.
        shape: (X, Y, Z).
        num_volumes: along the fourth axis.
        dtype: of the stored numbers, with their byte order.
        slope, intercept: value = stored * slope + intercept.
        offset: where the voxels begin in their file, in bytes.
        is_pair: they lie in a file of their own.
        affine: (4, 4), voxel to mm, RAS+.
    """

    raw: nibabel.Nifti1Header
    shape: tuple[int, int, int]
    num_volumes: int
    dtype: np.dtype
    slope: float
    intercept: float
    offset: int
    is_pair: bool
    affine: NDArray[np.float64]


def parse_header(content: bytes, max_voxels: int = MAX_VOXELS) -> tuple[Header, list[Warned]]:
    """Judge the first 540 bytes of a file, or all of it where it is shorter.

    Raises:
        Complaint: E_TRUNCATED, E_NOT_NIFTI, E_HEADER, E_DIM, E_TOO_LARGE, E_DTYPE, E_SCALE or E_AFFINE.
    """
    raw = _raw_header(content)
    is_pair = raw["magic"].tobytes()[:4].ljust(4, b"\0") in PAIR
    shape, num_volumes = _shape(raw)
    if math.prod(shape) > max_voxels:  # of several volumes only one is kept
        raise Complaint("E_TOO_LARGE", f"{_times(list(shape))} voxels, more than max_voxels, {max_voxels}")
    dtype = _dtype(raw)
    slope, intercept = _scaling(raw)
    offset = _offset(raw, is_pair=is_pair)
    affine, warnings = geometry(raw, shape)
    header = Header(raw, shape, num_volumes, dtype, slope, intercept, offset, is_pair, affine)
    return header, warnings


def _raw_header(content: bytes) -> nibabel.Nifti1Header:
    if len(content) < 4:
        raise Complaint("E_TRUNCATED", f"{len(content)} bytes are no header")
    for cls in (nibabel.Nifti1Header, nibabel.Nifti2Header):
        size = cls.template_dtype.itemsize
        order = {size.to_bytes(4, "little"): "<", size.to_bytes(4, "big"): ">"}.get(content[:4])
        if order is None:
            continue
        if len(content) < size:
            raise Complaint("E_TRUNCATED", f"it ends after {len(content)} of the {size} bytes of its header")
        place, version = (344, 1) if cls is nibabel.Nifti1Header else (4, 2)
        if content[place : place + 4] not in (SINGLE[version - 1], PAIR[version - 1]):
            raise Complaint("E_NOT_NIFTI", "no NIfTI signature, as in Analyze")
        if version == 2 and content[8:12] not in LINE_ENDS:
            raise Complaint("E_HEADER", "its signature was damaged, as by a transfer as text")
        return cls(content[:size], endianness=order, check=False)
    if content[344:348] in (SINGLE[0], PAIR[0]):
        raise Complaint("E_HEADER", f"the size of the header is given as {content[:4].hex()}")
    raise Complaint("E_NOT_NIFTI", f"not a NIfTI volume{_other_format(content)}")


def _other_format(content: bytes) -> str:
    if content[128:132] == b"DICM":
        return " but DICOM"
    return next((f" but {name}" for start, name in OTHER_FORMATS.items() if content.startswith(start)), "")


def _shape(raw: nibabel.Nifti1Header) -> tuple[tuple[int, int, int], int]:
    dim = [int(size) for size in raw["dim"]]
    if not 1 <= dim[0] <= 7:
        raise Complaint("E_DIM", f"{dim[0]} axes; a volume has three")
    sizes = dim[1 : dim[0] + 1]
    if dim[0] < 3:
        raise Complaint("E_DIM", f"an image of {_times(sizes)}; a volume has three axes")
    if min(sizes) < 1:
        raise Complaint("E_DIM", f"axes of {_times(sizes)} voxels; each has one at least")
    if dim[0] > 4 and max(sizes[4:]) > 1:
        raise Complaint("E_DIM", f"{dim[0]} axes of {_times(sizes)} voxels; a volume has three")
    return (sizes[0], sizes[1], sizes[2]), sizes[3] if dim[0] > 3 else 1


def _times(sizes: list[int]) -> str:
    return " x ".join(map(str, sizes))


def _dtype(raw: nibabel.Nifti1Header) -> np.dtype:
    code = int(raw["datatype"])
    if code not in NUMBERS:
        try:
            name = str(raw._data_type_codes.label[code])
        except KeyError:
            name = "of a type unknown to NIfTI"
        raise Complaint("E_DTYPE", f"its voxels are {name} (code {code}); a volume has plain numbers")
    dtype = np.dtype(raw._data_type_codes.dtype[code]).newbyteorder(raw.endianness)
    if int(raw["bitpix"]) not in (0, 8 * dtype.itemsize):
        raise Complaint(
            "E_HEADER", f"{int(raw['bitpix'])} bits a voxel, but the type {dtype.name} has {8 * dtype.itemsize}"
        )
    return dtype


def _scaling(raw: nibabel.Nifti1Header) -> tuple[float, float]:
    """A slope of 0 means that nothing is scaled, the intercept included (nifti1.h)."""
    slope, intercept = float(raw["scl_slope"]), float(raw["scl_inter"])
    if slope == 0:
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise Complaint("E_SCALE", f"slope {slope:g} and intercept {intercept:g}: its values are unknown")
    return slope, intercept


def _offset(raw: nibabel.Nifti1Header, *, is_pair: bool) -> int:
    offset = float(raw["vox_offset"])
    least = 0 if is_pair else raw.template_dtype.itemsize + 4
    if not math.isfinite(offset) or offset != int(offset) or offset < least:
        raise Complaint("E_HEADER", f"its voxels begin at byte {offset:g}; the first they can is {least}")
    if offset > least + MAX_EXTENSION_BYTES:
        raise Complaint("E_HEADER", f"{offset:g} bytes lie before the voxels; that is no NIfTI extension")
    return int(offset)


def check_extensions(content: bytes, order: str) -> list[Warned]:
    """Judge what lies between header and voxels: four bytes, then blocks of size, kind and content.

    Raises:
        Complaint: E_EXT.
    """
    if len(content) < 4 or content[0] == 0:
        return []
    end = len(content.rstrip(b"\0"))
    if end <= 4:
        return [Warned("W_EXT", "it announces a header extension and has none")]
    known_kinds = extension_codes.value_set("code")
    problems: dict[str, str] = {}
    place = 4
    while place < end:  # a million of them may be there: no copies of the rest
        size, kind = struct.unpack(f"{order}ii", content[place : place + 8].ljust(8, b"\0"))
        if not 8 <= size <= len(content) - place:
            problem = f"a header extension of {size} bytes where {len(content) - place} are left"
            raise Complaint("E_EXT", problem)
        if size % 16:
            problems.setdefault("size", f"a header extension of {size} bytes, no multiple of 16")
        if kind not in known_kinds:
            problems.setdefault("kind", f"a header extension of unknown kind {kind}")
        place += size
    return [Warned("W_EXT", problem) for problem in problems.values()]
