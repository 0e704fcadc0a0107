"""Kind bomb: small files that ask for memory or time without end. Nothing is built before it is asked for."""

import zlib
from collections.abc import Callable
from typing import Any

from torture.case import Case, Files, Volume, accept, reject
from torture.craft import extension, header, member, member_with_zeros, nifti, raw
from torture.strange_files import FNAME

GIB = 1 << 30


def claims(*shape: int, **fields: Any) -> Callable[[Volume], Files]:
    """A header that promises this shape, and the bytes of a small volume."""

    def make(volume: Volume) -> Files:
        head = header(shape, volume.affine, **fields)
        return {"scan.nii": head + bytes(4) + raw(volume.values)}

    return make


def zeros_after_voxels(volume: Volume) -> Files:
    return {"scan.nii.gz": member_with_zeros(nifti(volume))}


def member_of_zeros_after(volume: Volume) -> Files:
    return {"scan.nii.gz": member(nifti(volume)) + member_with_zeros(b"")}


def zeros_in_image_of_pair(volume: Volume) -> Files:
    head = header(volume.values.shape, volume.affine, pair=True)
    return {"scan.hdr.gz": member(head + bytes(4)), "scan.img.gz": member_with_zeros(raw(volume.values))}


def zeros_in_header_of_pair(volume: Volume) -> Files:
    head = header(volume.values.shape, volume.affine, pair=True)
    return {"scan.hdr.gz": member_with_zeros(head + bytes(4)), "scan.img.gz": member(raw(volume.values))}


def whole_and_too_large(volume: Volume) -> Files:
    """1024^3 bytes that are all there, in 1 MB."""
    head = header((1024, 1024, 1024), volume.affine, code="u1") + bytes(4)
    return {"scan.nii.gz": member_with_zeros(head)}


def far_offset(volume: Volume) -> Files:
    return {"scan.nii.gz": member_with_zeros(nifti(volume, vox_offset=GIB))}


def zeros_only(_: Volume) -> Files:
    return {"scan.nii.gz": member_with_zeros(b"")}


def nested(_: Volume) -> Files:
    return {"scan.nii.gz": member(member_with_zeros(b""))}


def giant_extension(volume: Volume) -> Files:
    """An extension of almost 1 GiB of zeros, all there, and then no voxels."""
    size = GIB - 1024
    broken = extension(6, b"", size=size)
    return {"scan.nii.gz": member_with_zeros(nifti(volume, extensions=broken, data=b"", vox_offset=352 + size))}


def endless_file_name(volume: Volume) -> Files:
    """The gzip header's file name has no end: 4 MB of letters."""
    return {"scan.nii.gz": member(nifti(volume), flags=FNAME)[:10] + b"a" * (4 << 20)}


def long_file_name(volume: Volume) -> Files:
    return {"scan.nii.gz": member(nifti(volume), flags=FNAME, optional=b"a" * (1 << 20) + b"\0")}


def many_empty_members(volume: Volume) -> Files:
    return {"scan.nii.gz": member(b"") * 20_000 + member(nifti(volume))}


def members_of_one_byte(volume: Volume) -> Files:
    data = nifti(volume)
    return {"scan.nii.gz": b"".join(member(data[i : i + 1], level=1) for i in range(len(data)))}


def many_extensions(volume: Volume) -> Files:
    return {"scan.nii.gz": member(nifti(volume, extensions=extension(6, b"") * 20_000))}


def loop_of_blocks(volume: Volume) -> Files:
    """Half a million stored blocks of no bytes, with nothing after them."""
    data = nifti(volume)
    press = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = press.compress(data[:352]) + press.flush(zlib.Z_FULL_FLUSH)
    return {"scan.nii.gz": member(b"", deflated=start + b"\0\0\0\xff\xff" * 500_000)[:-8]}


SIZE = "E_TOO_LARGE E_TRUNCATED"

CASES: list[Case] = [
    accept("bomb_not_members_of_one_byte", "bomb", members_of_one_byte),
    accept("bomb_not_many_empty_members", "bomb", many_empty_members),
    accept("bomb_not_many_extensions", "bomb", many_extensions),
    accept("bomb_not_long_file_name", "bomb", long_file_name),
    reject("bomb_zeros_after_voxels", "bomb", "E_TOO_LARGE", zeros_after_voxels),
    reject("bomb_member_of_zeros_after", "bomb", "E_TOO_LARGE", member_of_zeros_after),
    reject("bomb_zeros_in_image_of_pair", "bomb", "E_TOO_LARGE", zeros_in_image_of_pair),
    reject("bomb_zeros_in_header_of_pair", "bomb", "E_TOO_LARGE E_EXT E_HEADER", zeros_in_header_of_pair),
    reject("bomb_whole_and_too_large", "bomb", "E_TOO_LARGE", whole_and_too_large),
    reject("bomb_zeros_only", "bomb", "E_NOT_NIFTI E_TOO_LARGE", zeros_only),
    reject("bomb_nested", "bomb", "E_NOT_NIFTI E_TOO_LARGE", nested),
    reject("bomb_far_offset", "bomb", "E_TOO_LARGE E_HEADER E_EXT", far_offset),
    reject("bomb_far_offset_claimed", "bomb", f"{SIZE} E_HEADER E_EXT", claims(20, 24, 18, vox_offset=GIB)),
    reject(
        "bomb_far_offset_nifti_2", "bomb", f"{SIZE} E_HEADER E_EXT", claims(20, 24, 18, version=2, vox_offset=2**62)
    ),
    reject("bomb_giant_extension", "bomb", f"{SIZE} E_HEADER E_EXT", giant_extension),
    reject("bomb_claims_largest_nifti_1", "bomb", SIZE, claims(32767, 32767, 32767)),
    reject("bomb_claims_all_seven_axes", "bomb", f"{SIZE} E_4D E_DIM", claims(*[32767] * 7)),
    reject("bomb_claims_time_series", "bomb", f"{SIZE} E_4D", claims(256, 256, 256, 32767)),
    reject("bomb_claims_zero_in_32_bits", "bomb", SIZE, claims(4096, 4096, 256)),
    reject("bomb_claims_zero_in_64_bits", "bomb", SIZE, claims(2**31, 2**31, 4, version=2)),
    reject("bomb_claims_small_in_64_bits", "bomb", SIZE, claims(20, 24, 18 + 2**59, version=2)),
    reject("bomb_claims_largest_nifti_2", "bomb", f"{SIZE} E_HEADER", claims(*[2**63 - 1] * 3, version=2)),
    reject("bomb_endless_file_name", "bomb", "E_TRUNCATED E_CORRUPT E_TOO_LARGE", endless_file_name),
    reject("bomb_endless_empty_blocks", "bomb", "E_TRUNCATED E_CORRUPT E_TOO_LARGE", loop_of_blocks),
]
