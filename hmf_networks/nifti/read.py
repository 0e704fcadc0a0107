"""Read one volume from disk: finite float32 values and a matrix that can be trusted, or one clear error.

The header is judged before a voxel is unpacked, and the file is read to its end, so that its checksum counts.
Shapes: (X, Y, Z).
"""

import logging
import math
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from hmf_networks.nifti.codes import Complaint, VolumeError, Warned
from hmf_networks.nifti.files import header_path, voxel_path
from hmf_networks.nifti.header import MAX_EXTENSION_BYTES, MAX_VOXELS, Header, check_extensions, parse_header
from hmf_networks.nifti.stream import Stream
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

LARGEST_HEADER = 540  # NIfTI-2
MAX_TAIL = 2**20  # bytes behind the voxels that are only warned of
VOXELS_AT_ONCE = 2**21
BOMB_BYTES, BOMB_RATIO = 2**29, 900  # deflate packs 1032 equal bytes into one; a smaller file may be a mask
OUTLIER = 100.0  # times the 99th percentile: a voxel that is no signal
SAMPLED = 2**20  # voxels that percentile is taken of


class Volume(NamedTuple):
    """What a file holds.

    Attributes:
        values: (X, Y, Z), float32, finite, in the units of the file's scaling.
        header: its header.
        warnings: what its user should know.
    """

    values: NDArray[np.float32]
    header: Header
    warnings: list[Warned]


def read_volume(
    path: str | Path, *, volume: int | None = None, max_voxels: int = MAX_VOXELS
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Values (X, Y, Z) and affine (4, 4) in mm, RAS+; warnings go to the log.

    Args:
        path: a .nii or .nii.gz file, or one of a .hdr/.img pair.
        volume: which of several, counted from 0. Without it they are E_4D; a fourth axis of one is none.
        max_voxels: more of them are E_TOO_LARGE, before anything is allocated.

    Raises:
        VolumeError: `codes.ERRORS` tells them all; no other error leaves this room.
    """
    read = examine(path, volume=volume, max_voxels=max_voxels)
    for warned in read.warnings:
        logger.warning("%s %s: %s", warned.code, path, warned.problem)
    return read.values, read.header.affine


def read_header(path: str | Path) -> Header:
    """The header alone, judged as in `read_volume`, of any size; voxels are not looked at."""
    with Stream(header_path(Path(path))) as stream:
        return _read_header(stream, max_voxels=sys.maxsize)[0]


def examine(path: str | Path, *, volume: int | None = None, max_voxels: int = MAX_VOXELS) -> Volume:
    """As `read_volume`, with the warnings in hand."""
    path = Path(path)
    with Stream(header_path(path)) as stream:
        header, warnings = _read_header(stream, max_voxels)
        chosen = _choose(header, volume, path)
        if not header.is_pair:
            values, more = _read_voxels(stream, header, chosen)
        else:
            warnings += _end(stream, "header")
            with Stream(voxel_path(path)) as voxels:
                warnings += _name_tells(voxels)
                voxels.read(header.offset, "what lies before its voxels")
                values, more = _read_voxels(voxels, header, chosen)
    return Volume(values, header, warnings + more)


def _read_header(stream: Stream, max_voxels: int = MAX_VOXELS) -> tuple[Header, list[Warned]]:
    """Up to the first voxel, in a single file."""
    start = stream.read_at_most(LARGEST_HEADER)
    if not start:
        raise VolumeError("E_EMPTY", stream.path, "its gzip stream holds nothing")
    try:
        header, warnings = parse_header(start, max_voxels)
        size = header.raw.template_dtype.itemsize
        if header.is_pair:
            between = start[size:] + stream.read_at_most(MAX_EXTENSION_BYTES)
        else:
            between = start[size:] + stream.read(max(0, header.offset - len(start)), "its header extensions")
            stream.push_back(between[header.offset - size :])
            between = between[: header.offset - size]
        warnings += check_extensions(between, header.raw.endianness)
    except Complaint as complaint:
        raise VolumeError(complaint.code, stream.path, complaint.problem) from complaint
    return header, warnings + _name_tells(stream)


def _name_tells(stream: Stream) -> list[Warned]:
    suffix = stream.path.suffix.lower()
    if suffix in ((".gz",) if stream.is_gzip else (".nii", ".hdr", ".img")):
        return []
    kind = "compressed" if stream.is_gzip else "not compressed"
    return [Warned("W_EXT", f"it is {kind}, which its name does not tell")]


def _choose(header: Header, volume: int | None, path: Path) -> int:
    if header.num_volumes > 1 and volume is None:
        problem = f"{header.num_volumes} volumes in one file"
        raise VolumeError("E_4D", path, problem)
    chosen = 0 if header.num_volumes == 1 else int(volume or 0)
    if not 0 <= chosen < header.num_volumes:
        raise VolumeError("E_4D", path, f"no volume {chosen}: there are 0 to {header.num_volumes - 1}")
    return chosen


def _read_voxels(stream: Stream, header: Header, chosen: int) -> tuple[NDArray[np.float32], list[Warned]]:
    num_voxels = math.prod(header.shape)
    expected = num_voxels * header.num_volumes * header.dtype.itemsize
    if stream.is_gzip and expected > BOMB_BYTES and expected > BOMB_RATIO * stream.size:
        problem = f"{stream.size} bytes that unpack to {expected}: no image is so small"
        raise VolumeError("E_TOO_LARGE", stream.path, problem)
    if not stream.is_gzip and stream.size < expected:
        problem = f"{stream.size} bytes; its voxels alone need {expected}"
        raise VolumeError("E_TRUNCATED", stream.path, problem)
    try:
        values = np.zeros(num_voxels, np.float32)  # takes no memory before it is written to
    except MemoryError as error:
        raise VolumeError("E_TOO_LARGE", stream.path, f"no memory for {num_voxels} voxels") from error
    _skip(stream, chosen * num_voxels * header.dtype.itemsize)
    num_nonfinite = num_huge = 0
    for start in range(0, num_voxels, VOXELS_AT_ONCE):
        stop = min(start + VOXELS_AT_ONCE, num_voxels)
        content = stream.read((stop - start) * header.dtype.itemsize, "its voxels")
        some, nonfinite, huge = _numbers(content, header)
        if some.any():
            values[start:stop] = some
        num_nonfinite, num_huge = num_nonfinite + nonfinite, num_huge + huge
    _skip(stream, (header.num_volumes - 1 - chosen) * num_voxels * header.dtype.itemsize)
    warnings = _end(stream, "voxels")
    if num_huge and (header.slope, header.intercept) != (1.0, 0.0):
        problem = f"slope {header.slope:g} makes {num_huge} voxels larger than any float32"
        raise VolumeError("E_SCALE", stream.path, problem)
    if values.min() == values.max():
        what = "none of its voxels is finite" if num_nonfinite == num_voxels else f"every voxel is {values[0]:g}"
        raise VolumeError("E_NO_SIGNAL", stream.path, f"{what}")
    warnings += _judge(values, num_nonfinite - num_huge, num_huge)
    return values.reshape(header.shape, order="F"), warnings


def _numbers(content: bytes, header: Header) -> tuple[NDArray[np.float32], int, int]:
    """Values as float32, 0 where they are none; how many are not finite at all, how many beyond float32."""
    stored = np.frombuffer(content, header.dtype)
    if (header.slope, header.intercept) == (1.0, 0.0) and header.dtype.itemsize <= 4:
        with np.errstate(invalid="ignore"):  # a signalling NaN
            some = stored.astype(np.float32)
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            some = (stored * np.float64(header.slope) + header.intercept).astype(np.float32)
    finite = np.isfinite(some)
    if finite.all():
        return some, 0, 0
    num_huge = int((~finite & np.isfinite(stored)).sum())
    return np.where(finite, some, np.float32(0)), int((~finite).sum()), num_huge


def _judge(values: NDArray[np.float32], num_nonfinite: int, num_huge: int) -> list[Warned]:
    warnings = []
    if num_nonfinite:
        warnings.append(Warned("W_NONFINITE", f"{num_nonfinite} voxels that are not finite are taken as 0"))
    if num_huge:
        warnings.append(Warned("W_RANGE", f"{num_huge} voxels beyond all float32 are taken as 0"))
        return warnings
    sizes = np.abs(values[:: max(1, len(values) // SAMPLED)])
    sizes = sizes[sizes > 0]
    largest = max(float(values.max()), -float(values.min()))
    most = float(np.percentile(sizes, 99)) if len(sizes) else largest
    if largest > OUTLIER * most:
        problem = f"a voxel of {largest:g} where 99 % lie below {most:g}; is the file broken?"
        warnings.append(Warned("W_RANGE", problem))
    return warnings


def _skip(stream: Stream, count: int) -> None:
    while count > 0:
        count -= len(stream.read(min(count, VOXELS_AT_ONCE), "its volumes"))


def _end(stream: Stream, what: str) -> list[Warned]:
    """Read to the end of the stream, so that its checksum is compared; a little may follow."""
    tail = len(stream.read_at_most(MAX_TAIL + 1))
    if tail > MAX_TAIL:
        raise VolumeError("E_TOO_LARGE", stream.path, f"more than {MAX_TAIL} bytes follow its {what}")
    if tail or stream.has_garbage:
        size = str(tail) if tail else "some"
        return [Warned("W_TRAILING", f"{size} bytes follow its {what} and are not used")]
    return []
