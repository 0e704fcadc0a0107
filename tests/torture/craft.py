"""Byte by byte: NIfTI headers with any field set to anything, and gzip streams of any shape.

Only the layout of the header's fields comes from nibabel; nothing is checked or mended on the way.
"""

import struct
import zlib
from functools import cache
from typing import Any

import nibabel
import numpy as np
from nibabel.nifti1 import header_dtype as layout_1
from nibabel.nifti2 import header_dtype as layout_2
from nibabel.quaternions import mat2quat

from torture.case import Volume

LAYOUTS = {1: layout_1, 2: layout_2}
MAGIC = {(1, False): b"n+1\0", (1, True): b"ni1\0", (2, False): b"n+2\0", (2, True): b"ni2\0"}
HEADER_BYTES = {1: 348, 2: 540}
SINGLE_OFFSET = {1: 352, 2: 544}
DATATYPES = {"u1": 2, "i2": 4, "i4": 8, "f4": 16, "f8": 64, "i1": 256, "u2": 512, "u4": 768, "i8": 1024, "u8": 1280}
MM_AND_SECONDS = 2 | 8
ZEROS_PER_CHUNK = 1 << 24


def quaternion_fields(affine: np.ndarray) -> dict[str, Any]:
    """The q fields of an affine without shear, and pixdim with its qfac."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    rotation = affine[:3, :3] / spacing
    qfac = 1.0 if np.linalg.det(rotation) > 0 else -1.0
    rotation = rotation * [1.0, 1.0, qfac]
    quaternion = mat2quat(rotation)
    if quaternion[0] < 0:
        quaternion = -quaternion
    names = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    numbers = (*quaternion[1:], *affine[:3, 3])
    return dict(zip(names, numbers, strict=True)) | {"pixdim": [qfac, *spacing, 0, 0, 0, 0]}


def header(
    shape: tuple[int, ...],
    affine: np.ndarray,
    *,
    version: int = 1,
    order: str = "<",
    code: str = "f4",
    pair: bool = False,
    **fields: Any,
) -> bytes:
    """A header with q and s set to `affine`, mm, unscaled; then `fields` laid over it as they are."""
    block = np.zeros((), LAYOUTS[version].newbyteorder(order))
    block["sizeof_hdr"] = HEADER_BYTES[version]
    block["magic"] = MAGIC[version, pair]
    if version == 2:
        block["eol_check"] = list(b"\r\n\x1a\n")
    block["dim"] = ([len(shape), *shape] + [1] * 7)[:8]
    block["datatype"] = DATATYPES[code]
    block["bitpix"] = 8 * int(code[1])
    block["vox_offset"] = 0 if pair else SINGLE_OFFSET[version]
    block["scl_slope"] = 1
    block["xyzt_units"] = MM_AND_SECONDS
    block["qform_code"] = block["sform_code"] = 1
    for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
        block[name] = affine[row]
    if version == 1:
        block["regular"] = b"r"
    for name, value in (quaternion_fields(affine) | fields).items():
        block[name] = value
    return block.tobytes()


def raw(values: np.ndarray, code: str = "f4", order: str = "<") -> bytes:
    return values.astype(np.dtype(code).newbyteorder(order)).tobytes(order="F")


def nifti(
    volume: Volume,
    *,
    values: np.ndarray | None = None,
    affine: np.ndarray | None = None,
    extensions: bytes = b"",
    data: bytes | None = None,
    code: str = "f4",
    order: str = "<",
    version: int = 1,
    **fields: Any,
) -> bytes:
    """A whole single file; `extensions` are the bytes between the four flag bytes and the voxels."""
    values = volume.values if values is None else values
    fields = {"vox_offset": SINGLE_OFFSET[version] + len(extensions)} | fields
    matrix = volume.affine if affine is None else affine
    head = header(values.shape, matrix, version=version, order=order, code=code, **fields)
    flag = bytes([bool(extensions), 0, 0, 0])
    return head + flag + extensions + (raw(values, code, order) if data is None else data)


def pair(volume: Volume, *, code: str = "f4", order: str = "<", version: int = 1, **fields: Any) -> tuple[bytes, bytes]:
    """Header (with its four flag bytes) and voxels as two files."""
    head = header(volume.values.shape, volume.affine, version=version, order=order, code=code, pair=True, **fields)
    return head + bytes(4), raw(volume.values, code, order)


def extension(kind: int, content: bytes, *, order: str = "<", size: int | None = None) -> bytes:
    """One header extension, padded to a multiple of 16 bytes; `size` overrides the size it claims."""
    padded = content + bytes(-(len(content) + 8) % 16)
    return struct.pack(order + "ii", len(padded) + 8 if size is None else size, kind) + padded


def member(
    content: bytes,
    *,
    level: int = 6,
    strategy: int = zlib.Z_DEFAULT_STRATEGY,
    flags: int = 0,
    optional: bytes = b"",
    method: int = 8,
    checksum: int | None = None,
    length: int | None = None,
    deflated: bytes | None = None,
) -> bytes:
    """One gzip member (RFC 1952); `optional` holds the fields that `flags` announce."""
    if deflated is None:
        press = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS, 8, strategy)
        deflated = press.compress(content) + press.flush()
    checksum = zlib.crc32(content) if checksum is None else checksum
    length = len(content) if length is None else length
    head = struct.pack("<BBBBIBB", 0x1F, 0x8B, method, flags, 0, 0, 255) + optional
    return head + deflated + struct.pack("<II", checksum, length % 2**32)


@cache
def deflated_zeros() -> bytes:
    """16 MiB of zeros as deflate blocks that can be strung together (a full flush ends them)."""
    press = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return press.compress(bytes(ZEROS_PER_CHUNK)) + press.flush(zlib.Z_FULL_FLUSH)


def member_with_zeros(content: bytes, num_chunks: int = 64) -> bytes:
    """A gzip member of `content` and 16 MiB of zeros `num_chunks` times: 1 GiB in 1 MB, made in a second."""
    press = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflated = press.compress(content) + press.flush(zlib.Z_FULL_FLUSH) + deflated_zeros() * num_chunks
    checksum, zeros = zlib.crc32(content), bytes(ZEROS_PER_CHUNK)
    for _ in range(num_chunks):
        checksum = zlib.crc32(zeros, checksum)
    length = len(content) + num_chunks * ZEROS_PER_CHUNK
    return member(b"", deflated=deflated + b"\x03\x00", checksum=checksum, length=length)


def rotation_degrees(x: float, y: float, z: float) -> np.ndarray:
    """Rotations about x, then y, then z, 3 x 3."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.deg2rad([x, y, z])):
        turn = np.eye(3)
        i, j = (axis + 1) % 3, (axis + 2) % 3
        turn[i, i] = turn[j, j] = np.cos(angle)
        turn[i, j], turn[j, i] = -np.sin(angle), np.sin(angle)
        matrix = turn @ matrix
    return matrix


def centred(matrix: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The affine with `matrix` (3 x 3) that puts the middle of the grid at the origin."""
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = -matrix @ ((np.array(shape) - 1) / 2)
    return affine


def oblique(volume: Volume) -> np.ndarray:
    turned = rotation_degrees(12, -7, 25) @ volume.affine[:3, :3]
    return centred(turned, volume.values.shape)


def orientations(volume: Volume) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """The volume stored along all 48 orders and directions of axes: letters, values, affine."""
    image = nibabel.Nifti1Image(volume.values, volume.affine)
    found = []
    for axes in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        for flips in np.ndindex(2, 2, 2):
            wanted = [(axis, 1 - 2 * flip) for axis, flip in zip(axes, flips, strict=True)]
            turned = image.as_reoriented(np.array(wanted))
            letters = "".join(nibabel.aff2axcodes(turned.affine)).lower()
            found.append((letters, np.asarray(turned.dataobj), turned.affine))
    return found
