"""Ours, continued: where chunks, members and limits of the reader end, exactly there and one byte on."""

from collections.abc import Callable

import numpy as np

from torture.case import Case, Expected, Files, Volume, accept, reject, warn
from torture.craft import extension, header, member, member_with_zeros, nifti, pair
from torture.strange_bombs import claims
from torture.strange_files import FCOMMENT, FHCRC, members
from torture.strange_headers import COMMENT, NAN

CHUNK = 2**18  # bytes that the reader takes from a file at once
VOXELS_AT_ONCE = 2**21
MAX_TAIL = 2**20
MAX_EXTENSION_BYTES = 2**24
STUB = member(b"")[:10]  # the header of a gzip member and no more


def with_tail(num_bytes: int, *, packed: bool = False) -> Callable[[Volume], Files]:
    def make(volume: Volume) -> Files:
        data = nifti(volume) + bytes(num_bytes)
        return {"scan.nii.gz": member(data)} if packed else {"scan.nii": data}

    return make


def twice(volume: Volume) -> Files:
    return {"scan.nii": nifti(volume) * 2}


def twice_packed(volume: Volume) -> Files:
    return {"scan.nii.gz": member(nifti(volume)) * 2}


def then(tail: bytes) -> Callable[[Volume], Files]:
    return lambda volume: {"scan.nii.gz": member(nifti(volume)) + tail}


def first_member_of(num_bytes: int) -> Callable[[Volume], Files]:
    """Two members, the first so long in the file, by a comment in its header."""

    def make(volume: Volume) -> Files:
        data = nifti(volume)
        comment = bytes([ord("c")]) * (num_bytes - len(member(data[:5000])) - 1) + b"\0"
        first = member(data[:5000], flags=FCOMMENT, optional=comment)
        assert len(first) == num_bytes
        return {"scan.nii.gz": first + member(data[5000:])}

    return make


def nifti_2_over_members(volume: Volume) -> Files:
    data = nifti(volume, version=2, extensions=extension(COMMENT, b"second echo"))
    return {"scan.nii.gz": members(data, 4, 8, 12, 539, 540, 544, 548, 552)}


def wrong_header_checksum(volume: Volume) -> Files:
    return {"scan.nii.gz": member(nifti(volume), flags=FHCRC, optional=b"\x12\x34")}


def garbage_after_header_of_pair(volume: Volume) -> Files:
    head, voxels = pair(volume)
    return {"scan.hdr.gz": member(head) + b"-- end of upload --", "scan.img": voxels}


def packed_image_under_plain_name(volume: Volume) -> Files:
    head, voxels = pair(volume)
    return {"scan.hdr": head, "scan.img": member(voxels)}


def half_packed_pair(volume: Volume) -> Files:
    head, voxels = pair(volume)
    return {"scan.hdr": head, "scan.img.gz": member(voxels)}


def pattern(num_slices: int) -> np.ndarray:
    """128 x 128 voxels a slice, so that 128 slices are VOXELS_AT_ONCE."""
    x, y, z = np.ogrid[:128, :128, :num_slices]
    return np.float32((x + 2 * y + 3 * z) % 97)


def chunk(volume: Volume) -> Files:
    return {"scan.nii.gz": member(nifti(volume, values=pattern(128), code="u1"))}


def nan_at_border() -> np.ndarray:
    """NaN in the last voxel of a chunk and in the first of the next."""
    values = pattern(129)
    values[127, 127, 127] = values[0, 0, 128] = NAN
    return values


def two_chunks(volume: Volume) -> Files:
    return {"scan.nii.gz": member(nifti(volume, values=nan_at_border()), level=1)}


def read_as(values: Callable[[], np.ndarray]) -> Callable[[Volume], Expected]:
    return lambda volume: (values(), volume.affine)


def extension_bytes(num_bytes: int) -> Callable[[Volume], Files]:
    """One extension of so many bytes."""
    return lambda volume: {"scan.nii.gz": member(nifti(volume, extensions=extension(COMMENT, bytes(num_bytes - 8))))}


def smallest_extensions(kind: int) -> Callable[[Volume], Files]:
    """As many extensions as fit in the largest room for them: a million."""
    block = extension(kind, b"")
    return lambda volume: {"scan.nii.gz": member(nifti(volume, extensions=block * (MAX_EXTENSION_BYTES // len(block))))}


def whole_zeros(code: str, *, num_chunks: int) -> Callable[[Volume], Files]:
    """2^28 voxels, as many as are read by default, all of them there and all zero."""

    def make(volume: Volume) -> Files:
        head = header((1024, 1024, 256), volume.affine, code=code) + bytes(4)
        return {"scan.nii.gz": member_with_zeros(head, num_chunks)}

    return make


def one_beyond_tail(volume: Volume) -> Files:
    """The voxels in one member, what is too much in thousands."""
    tail = member(bytes(256), level=1) * (MAX_TAIL // 256) + member(b"\0")
    return {"scan.nii.gz": member(nifti(volume)) + tail}


def empty_members_behind(volume: Volume) -> Files:
    return {"scan.nii.gz": member(nifti(volume)) + member(b"") * 100_000}


def claims_one_voxel_too_many(volume: Volume) -> Files:
    return claims(2**28 + 1, 1, 1, version=2)(volume)


LENGTHS = [
    # Two whole files one behind the other: the first is read as any reader does, and the rest is told.
    warn("two_volumes_in_one_file", "file", "W_TRAILING", twice),
    warn("two_volumes_in_one_gzip_file", "container", "W_TRAILING", twice_packed),
    warn("tail_of_1_MiB", "file", "W_TRAILING", with_tail(MAX_TAIL)),
    reject("tail_of_1_MiB_and_a_byte", "file", "E_TOO_LARGE", with_tail(MAX_TAIL + 1)),
    warn("gzip_tail_of_1_MiB", "container", "W_TRAILING", with_tail(MAX_TAIL, packed=True)),
    reject("gzip_tail_of_1_MiB_and_a_byte", "container", "E_TOO_LARGE", with_tail(MAX_TAIL + 1, packed=True)),
    reject("gzip_tail_in_members", "container", "E_TOO_LARGE", one_beyond_tail),
    warn("pair_with_text_behind_header", "container", "W_TRAILING", garbage_after_header_of_pair),
    warn("pair_of_packed_image_under_plain_name", "container", "W_EXT", packed_image_under_plain_name),
    accept("pair_of_plain_header_and_packed_image", "container", half_packed_pair),
]

BORDERS = [
    *(
        accept(f"gzip_member_ends_{edge:+d}_at_chunk", "container", first_member_of(CHUNK + edge))
        for edge in (-2, -1, 0, 1)
    ),
    accept("gzip_header_of_2_over_members", "container", nifti_2_over_members),
    accept("voxels_fill_one_chunk", "data", chunk, read_as(lambda: pattern(128))),
    warn("nan_at_chunk_border", "data", "W_NONFINITE", two_chunks, read_as(nan_at_border)),
    # One byte is no gzip stream, so it is rubbish behind one; two are the start of a stream that was cut.
    warn("gzip_second_member_of_1_byte", "container", "W_TRAILING", then(STUB[:1])),
    reject("gzip_second_member_of_2_bytes", "container", "E_TRUNCATED", then(STUB[:2])),
    reject("gzip_second_member_of_its_header", "container", "E_TRUNCATED", then(STUB)),
    reject("gzip_header_checksum_wrong", "container", "E_CORRUPT", wrong_header_checksum),
]

BOMBS = [
    reject("bomb_claims_just_max_voxels", "bomb", "E_TRUNCATED", claims(1024, 1024, 256)),
    reject("bomb_claims_a_slice_too_many", "bomb", "E_TOO_LARGE", claims(1024, 1024, 257)),
    reject("bomb_claims_a_voxel_too_many", "bomb", "E_TOO_LARGE", claims_one_voxel_too_many),
    # Of a time series one volume is read, and one is not too large: what it needs is --volume.
    reject("bomb_claims_512_volumes", "bomb", "E_4D", claims(256, 256, 256, 512)),
    reject("bomb_whole_zeros_u1", "bomb", "E_TOO_LARGE E_NO_SIGNAL", whole_zeros("u1", num_chunks=16)),
    reject("bomb_whole_zeros_f4", "bomb", "E_TOO_LARGE E_NO_SIGNAL", whole_zeros("f4", num_chunks=64)),
    reject("bomb_whole_zeros_f8", "bomb", "E_TOO_LARGE E_NO_SIGNAL", whole_zeros("f8", num_chunks=128)),
    accept("bomb_not_16_MiB_extension", "bomb", extension_bytes(MAX_EXTENSION_BYTES)),
    reject("bomb_extension_too_large", "bomb", "E_HEADER E_EXT E_TOO_LARGE", extension_bytes(MAX_EXTENSION_BYTES + 16)),
    accept("bomb_not_a_million_extensions", "bomb", smallest_extensions(COMMENT)),
    warn("bomb_a_million_unknown_extensions", "bomb", "W_EXT", smallest_extensions(9998)),
    accept("bomb_not_empty_members_behind", "bomb", empty_members_behind),
]

CASES: list[Case] = LENGTHS + BORDERS + BOMBS
