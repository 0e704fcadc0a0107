"""Kinds file and container: what stands on the disk, pairs of files, gzip streams whole and broken."""

import bz2
import functools
import gzip
import io
import itertools
import json
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

from torture.case import Case, Files, Volume, accept, reject, warn
from torture.craft import extension, member, nifti, pair, raw

HTML = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Session expired</body></html>\n"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 9437184\n"
ANNEX_POINTER = b"/annex/objects/MD5E-s9437184--0cc175b9c0f1b6a831c399e269772661.nii.gz\n"
BGZIP_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
FHCRC, FEXTRA, FNAME, FCOMMENT = 2, 4, 8, 16


def plain(change: Callable[[bytes], bytes]) -> Callable[[Volume], Files]:
    """`scan.nii`, its bytes changed."""
    return lambda volume: {"scan.nii": change(nifti(volume))}


def zipped(change: Callable[[bytes], bytes]) -> Callable[[Volume], Files]:
    """`scan.nii.gz`, made from the bytes of the single file."""
    return lambda volume: {"scan.nii.gz": change(nifti(volume))}


def content(name: str, data: bytes | None) -> Callable[[Volume], Files]:
    return lambda _: {name: data}


def two_files(head_name: str, image_name: str, *, open_image: bool = False, **fields) -> Callable[[Volume], Files]:
    def make(volume: Volume) -> Files:
        head, voxels = pair(volume, **fields)
        names = {head_name: head, image_name: voxels}
        return dict(reversed(names.items())) if open_image else names

    return make


def changed_pair(head: Callable[[bytes], bytes | None], image: Callable[[bytes], bytes | None]) -> Callable:
    """`scan.hdr` and `scan.img`, each changed; the header is opened."""

    def make(volume: Volume) -> Files:
        head_bytes, voxels = pair(volume)
        return {"scan.hdr": head(head_bytes), "scan.img": image(voxels)}

    return make


def same(data: bytes) -> bytes:
    return data


def gone(_: bytes) -> None:
    return None


def lone_image(volume: Volume) -> Files:
    return {"scan.img": pair(volume)[1], "scan.hdr": None}


def analyze(volume: Volume) -> Files:
    head, voxels = pair(volume, magic=b"")
    return {"scan.hdr": head[:348], "scan.img": voxels}


def dicom(_: bytes) -> bytes:
    syntax = b"1.2.840.10008.1.2.1\0"
    meta = struct.pack("<HH2sH", 2, 16, b"UI", len(syntax)) + syntax
    return bytes(128) + b"DICM" + meta + np.random.default_rng(1).bytes(20_000)


def nrrd(data: bytes) -> bytes:
    return b"NRRD0004\ntype: float\ndimension: 3\nsizes: 20 24 18\nencoding: raw\nendian: little\n\n" + data[352:]


def mgh(_: bytes) -> bytes:
    return struct.pack(">7i", 1, 20, 24, 18, 1, 3, 0) + bytes(256) + bytes(4 * 20 * 24 * 18)


def archive(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(zipfile.ZipInfo("scan.nii"), data)
    return stream.getvalue()


def apple_double(_: bytes) -> bytes:
    """What a Mac leaves beside each file on a foreign disk, under its name with "._" before it."""
    return struct.pack(">II16sH", 0x00051607, 0x00020000, b"Mac OS X", 2).ljust(4096, b"\0")


def sent_as_text(data: bytes) -> bytes:
    """A gzip stream after FTP in text mode: each line end grew."""
    return member(data).replace(b"\n", b"\r\n")


def read_as_utf8(data: bytes) -> bytes:
    return member(data).decode("utf-8", "replace").encode()


def flipped(data: bytes, index: int, mask: int = 0x10) -> bytes:
    return data[:index] + bytes([data[index] ^ mask]) + data[index + 1 :]


def damaged_middle(data: bytes) -> bytes:
    stream = member(data)
    return flipped(stream, len(stream) // 2)


def overwritten_middle(data: bytes) -> bytes:
    """A disk block lost: 64 bytes of zeros."""
    stream = member(data)
    half = len(stream) // 2
    return stream[:half] + bytes(64) + stream[half + 64 :]


def reserved_block(data: bytes) -> bytes:
    """The deflate stream begins with a block of type 3, which does not exist."""
    return member(data, deflated=b"\x07" + bytes(50))


def far_distance(data: bytes) -> bytes:
    """The first block copies from before the start of the stream."""
    return member(data, deflated=b"\x03\x02\x00" + bytes(20))


def wrong_checksum(data: bytes) -> bytes:
    return member(data, checksum=zlib.crc32(data) ^ 1)


def wrong_length(data: bytes) -> bytes:
    return member(data, length=len(data) + 1)


def second_member_damaged(data: bytes) -> bytes:
    return member(data[:4000]) + wrong_checksum(data[4000:])


def members(data: bytes, *cuts: int) -> bytes:
    edges = [0, *cuts, len(data)]
    return b"".join(member(data[a:b]) for a, b in itertools.pairwise(edges))


def bgzip(data: bytes, block: int = 16) -> bytes:
    """Blocks as samtools' bgzip writes them, each with its size in an extra field, and the empty last one."""
    stream = b""
    for start in range(0, len(data), block):
        part = data[start : start + block]
        size = len(member(part)) + 8 - 1
        stream += member(part, flags=FEXTRA, optional=struct.pack("<H2sHH", 6, b"BC", 2, size))
    return stream + BGZIP_END


def header_checksum(data: bytes) -> bytes:
    head = struct.pack("<BBBBIBB", 0x1F, 0x8B, 8, FHCRC, 0, 0, 255)
    return member(data, flags=FHCRC, optional=struct.pack("<H", zlib.crc32(head) & 0xFFFF))


def empty_blocks(data: bytes) -> bytes:
    """Twenty thousand stored blocks of no bytes before the first real one."""
    press = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return member(data, deflated=b"\0\0\0\xff\xff" * 20_000 + press.compress(data) + press.flush())


def flushed(data: bytes) -> bytes:
    """Every 100 bytes flushed, as a scanner writes that saves while it measures."""
    press = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    parts = [press.compress(data[i : i + 100]) + press.flush(zlib.Z_SYNC_FLUSH) for i in range(0, len(data), 100)]
    return member(data, deflated=b"".join(parts) + press.flush())


def with_extension_in_gzip(volume: Volume) -> Files:
    return {"scan.nii.gz": members(nifti(volume, extensions=extension(6, b"x" * 600)), 2, 349, 360, 700)}


def zlib_stream(data: bytes) -> bytes:
    return zlib.compress(data)


def padded(data: bytes, tail: bytes) -> bytes:
    return data + tail


def after_voxels(tail: bytes) -> Callable[[bytes], bytes]:
    return functools.partial(padded, tail=tail)


def after_stream(tail: bytes) -> Callable[[bytes], bytes]:
    return lambda data: member(data) + tail


def inside_stream(tail: bytes) -> Callable[[bytes], bytes]:
    return lambda data: member(data + tail)


def cut(num_bytes: int) -> Callable[[bytes], bytes]:
    """The first bytes; a negative number cuts so many from the end."""
    return lambda data: data[:num_bytes]


def cut_stream(num_bytes: int) -> Callable[[bytes], bytes]:
    return lambda data: member(data)[:num_bytes]


def half_stream(data: bytes) -> bytes:
    stream = member(data)
    return stream[: len(stream) // 2]


FILES = [
    accept("single_file", "file", plain(same)),
    accept("single_file_big_endian", "file", lambda v: {"scan.nii": nifti(v, order=">")}),
    accept("nifti_2", "file", lambda v: {"scan.nii": nifti(v, version=2)}),
    accept("nifti_2_big_endian", "file", lambda v: {"scan.nii": nifti(v, version=2, order=">", code="i2")}),
    accept("pair_of_files", "file", two_files("scan.hdr", "scan.img")),
    accept("pair_opened_by_image", "file", two_files("scan.hdr", "scan.img", open_image=True)),
    accept("pair_big_endian", "file", two_files("scan.hdr", "scan.img", order=">", code="u2")),
    accept("pair_nifti_2", "file", two_files("scan.hdr", "scan.img", version=2)),
    accept("pair_upper_case", "file", two_files("SCAN.HDR", "SCAN.IMG")),
    accept("pair_header_of_348_bytes", "file", changed_pair(cut(348), same)),
    accept(
        "pair_image_with_offset",
        "file",
        lambda v: {"scan.hdr": pair(v, vox_offset=64)[0], "scan.img": bytes(64) + raw(v.values)},
    ),
    warn("trailing_byte", "file", "W_TRAILING", plain(after_voxels(b"\n"))),
    warn("trailing_zeros_of_tape_block", "file", "W_TRAILING", plain(after_voxels(bytes(416)))),
    warn("trailing_bytes_in_pair", "file", "W_TRAILING", changed_pair(same, after_voxels(b"end"))),
    reject("absent", "file", "E_MISSING", content("scan.nii", None)),
    reject("absent_in_absent_folder", "file", "E_MISSING", content("gone/scan.nii.gz", None)),
    reject("pair_without_image", "file", "E_MISSING", changed_pair(same, gone)),
    reject("pair_without_header", "file", "E_MISSING", lone_image),
    reject("folder_named_as_file", "file", "E_MISSING E_NOT_NIFTI E_EMPTY", content("scan.nii/", b"")),
    reject("no_byte", "file", "E_EMPTY", content("scan.nii", b"")),
    reject("no_byte_in_header_of_pair", "file", "E_EMPTY", changed_pair(cut(0), same)),
    reject("no_byte_in_image_of_pair", "file", "E_EMPTY E_TRUNCATED", changed_pair(same, cut(0))),
    reject("dicom_renamed", "file", "E_NOT_NIFTI", plain(dicom)),
    reject("login_page", "file", "E_NOT_NIFTI", content("scan.nii", HTML)),
    reject("login_page_long", "file", "E_NOT_NIFTI", content("scan.nii", HTML * 40)),
    reject("lfs_pointer", "file", "E_NOT_NIFTI", content("scan.nii", LFS_POINTER)),
    reject("annex_pointer", "file", "E_NOT_NIFTI", content("scan.nii", ANNEX_POINTER)),
    reject(
        "json_sidecar_renamed",
        "file",
        "E_NOT_NIFTI",
        content("scan.nii", json.dumps({"EchoTime": 0.03, "SliceTiming": list(range(200))}).encode()),
    ),
    reject("png_renamed", "file", "E_NOT_NIFTI", content("scan.nii", b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4)),
    reject("nrrd_renamed", "file", "E_NOT_NIFTI", plain(nrrd)),
    reject("mgh_renamed", "file", "E_NOT_NIFTI", plain(mgh)),
    reject("analyze_7_5", "file", "E_NOT_NIFTI", analyze),
    reject("apple_double", "file", "E_NOT_NIFTI", lambda v: {"._scan.nii": apple_double(b""), "scan.nii": nifti(v)}),
    reject("all_zeros", "file", "E_NOT_NIFTI", plain(lambda data: bytes(len(data)))),
    reject("all_ones", "file", "E_NOT_NIFTI", plain(lambda data: b"\xff" * len(data))),
    reject("encrypted", "file", "E_NOT_NIFTI", content("scan.nii", np.random.default_rng(3).bytes(30_000))),
    reject("voxels_without_header", "file", "E_NOT_NIFTI", plain(lambda data: data[352:])),
    reject("one_byte_too_many_before", "file", "E_NOT_NIFTI", plain(lambda data: b"\n" + data)),
    reject("cut_after_3_bytes", "file", "E_TRUNCATED E_NOT_NIFTI", plain(cut(3))),
    reject("cut_in_header", "file", "E_TRUNCATED", plain(cut(200))),
    reject("cut_in_magic", "file", "E_TRUNCATED", plain(cut(346))),
    reject("cut_before_flag_bytes", "file", "E_TRUNCATED", plain(cut(348))),
    reject("cut_before_voxels", "file", "E_TRUNCATED", plain(cut(352))),
    reject("cut_in_voxels", "file", "E_TRUNCATED", plain(cut(20_000))),
    reject("cut_by_one_byte", "file", "E_TRUNCATED", plain(cut(-1))),
    reject("cut_in_image_of_pair", "file", "E_TRUNCATED", changed_pair(same, cut(-7))),
    reject("cut_in_header_of_pair", "file", "E_TRUNCATED", changed_pair(cut(300), same)),
    reject("cut_in_header_of_nifti_2", "file", "E_TRUNCATED", lambda v: {"scan.nii": nifti(v, version=2)[:400]}),
]

CONTAINERS = [
    accept("gzip", "container", zipped(member)),
    accept("gzip_stored_blocks", "container", zipped(functools.partial(member, level=0))),
    accept("gzip_fixed_codes", "container", zipped(functools.partial(member, strategy=zlib.Z_FIXED))),
    accept("gzip_run_lengths", "container", zipped(functools.partial(member, strategy=zlib.Z_RLE, level=9))),
    accept("gzip_flushed_often", "container", zipped(flushed)),
    accept("gzip_empty_blocks", "container", zipped(empty_blocks)),
    accept("gzip_header_checksum", "container", zipped(header_checksum)),
    accept("gzip_of_python", "container", zipped(lambda data: gzip.compress(data, mtime=1_700_000_000))),
    accept("gzip_two_members", "container", zipped(lambda data: members(data, 352))),
    accept("gzip_members_split_header", "container", zipped(lambda data: members(data, 1, 3, 100, 346, 350, 5000))),
    accept("gzip_members_split_voxel", "container", zipped(lambda data: members(data, 355, 356, 357))),
    accept("gzip_members_split_extension", "container", with_extension_in_gzip),
    accept("gzip_first_member_empty", "container", zipped(lambda data: member(b"") + member(data))),
    accept("gzip_bgzip", "container", zipped(bgzip)),
    accept(
        "gzip_pair", "container", lambda v: dict(zip(("scan.hdr.gz", "scan.img.gz"), map(member, pair(v)), strict=True))
    ),
    warn("gzip_zeros_after_stream", "container", "W_TRAILING", zipped(after_stream(bytes(512)))),
    warn("gzip_line_end_after_stream", "container", "W_TRAILING", zipped(after_stream(b"\r\n"))),
    warn("gzip_text_after_stream", "container", "W_TRAILING", zipped(after_stream(b"-- end of upload --"))),
    warn("gzip_trailing_in_stream", "container", "W_TRAILING", zipped(inside_stream(bytes(100)))),
    warn("gzip_trailing_member", "container", "W_TRAILING", zipped(lambda data: member(data) + member(b"more"))),
    warn("gzip_under_plain_name", "container", "W_EXT", plain(member)),
    warn("plain_under_gzip_name", "container", "W_EXT", zipped(same)),
    reject("gzip_of_nothing", "container", "E_EMPTY", content("scan.nii.gz", member(b""))),
    reject("gzip_of_nothing_twice", "container", "E_EMPTY", content("scan.nii.gz", member(b"") * 2)),
    reject("gzip_file_of_no_byte", "container", "E_EMPTY", content("scan.nii.gz", b"")),
    reject("gzip_cut_in_its_header", "container", "E_TRUNCATED", zipped(cut_stream(5))),
    reject("gzip_cut_after_its_header", "container", "E_TRUNCATED", zipped(cut_stream(10))),
    reject("gzip_cut_in_half", "container", "E_TRUNCATED", zipped(half_stream)),
    reject("gzip_cut_before_trailer", "container", "E_TRUNCATED", zipped(cut_stream(-8))),
    reject("gzip_cut_in_trailer", "container", "E_TRUNCATED", zipped(cut_stream(-1))),
    reject("gzip_whole_voxels_missing", "container", "E_TRUNCATED", zipped(lambda data: member(data[:-5000]))),
    reject("gzip_whole_header_missing", "container", "E_TRUNCATED", zipped(lambda data: member(data[:300]))),
    reject("gzip_second_member_cut", "container", "E_TRUNCATED", zipped(lambda data: members(data, 4000)[:-40])),
    reject("gzip_damaged_middle", "container", "E_CORRUPT", zipped(damaged_middle)),
    reject("gzip_block_lost", "container", "E_CORRUPT", zipped(overwritten_middle)),
    reject("gzip_wrong_checksum", "container", "E_CORRUPT", zipped(wrong_checksum)),
    reject("gzip_wrong_length", "container", "E_CORRUPT", zipped(wrong_length)),
    reject("gzip_reserved_block", "container", "E_CORRUPT", zipped(reserved_block)),
    reject("gzip_copy_from_before_start", "container", "E_CORRUPT", zipped(far_distance)),
    reject("gzip_second_member_damaged", "container", "E_CORRUPT", zipped(second_member_damaged)),
    reject("gzip_unknown_method", "container", "E_CORRUPT E_NOT_NIFTI", zipped(functools.partial(member, method=7))),
    reject("gzip_sent_as_text", "container", "E_CORRUPT", zipped(sent_as_text)),
    reject("gzip_read_as_utf8", "container", "E_NOT_NIFTI", zipped(read_as_utf8)),
    reject(
        "gzip_damaged_image_of_pair",
        "container",
        "E_CORRUPT",
        lambda v: {"scan.hdr.gz": member(pair(v)[0]), "scan.img.gz": wrong_checksum(pair(v)[1])},
    ),
    reject("gzip_in_gzip", "container", "E_NOT_NIFTI", zipped(lambda data: member(member(data)))),
    reject("gzip_of_login_page", "container", "E_NOT_NIFTI", content("scan.nii.gz", member(HTML * 40))),
    reject("login_page_as_gzip", "container", "E_NOT_NIFTI", content("scan.nii.gz", HTML)),
    reject("zip_as_gzip", "container", "E_NOT_NIFTI E_CORRUPT", zipped(archive)),
    reject("bzip2_as_gzip", "container", "E_NOT_NIFTI E_CORRUPT", zipped(bz2.compress)),
    reject("xz_as_gzip", "container", "E_NOT_NIFTI E_CORRUPT", zipped(lzma.compress)),
    reject("zlib_as_gzip", "container", "E_NOT_NIFTI E_CORRUPT", zipped(zlib_stream)),
]

CASES: list[Case] = FILES + CONTAINERS
