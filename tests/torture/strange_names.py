"""Kinds name and privacy: what a file is called, and a patient's name where no one looks for it."""

import struct
from collections.abc import Callable
from typing import Any

from torture.case import PATIENT, Case, Files, Volume, accept, reject, warn
from torture.craft import extension, header, member, nifti, pair, raw
from torture.strange_files import FCOMMENT, FEXTRA, FNAME, dicom

NAMES = {
    "spaces": " first  scan .nii",
    "quotes": 'it\'s "the" `scan`.nii.gz',
    "command": "$(touch pwned);&&|.nii.gz",
    "variable": "$HOME ${PATH} %TEMP%.nii",
    "tilde": "~.nii",
    "leading_dash": "-rf.nii.gz",
    "option": "--help.nii",
    "markup": "<img src=x onerror=alert(1)>&amp;.nii.gz",
    "markdown": "|[scan](javascript:1)|**.nii",
    "formats": "%s%n{0.__class__}{}.nii",
    "glob": "[0-9]*?.nii.gz",
    "unicode": "Müller_脳_🧠.nii.gz",
    "decomposed": "Mu\u0308ller.nii.gz",
    "right_to_left": "scan\u202eiin.exe.nii",
    "not_utf8": "scan\udce9.nii.gz",
    "line_end": "scan\nE_OK: all fine\r.nii",
    "terminal": "\x1b]0;owned\x07\x1b[31m.nii",
    "backslash": "C:\\data\\scan.nii",
    "formula": '=1+1,"x";.nii.gz',
    "dots": "sub.01..v2.nii.gz",
    "hidden": ".scan.nii.gz",
    "two_suffixes": "scan.nii.nii",
    "gz_in_stem": "scan.gz.nii",
    "hdr_in_stem": "scan.hdr.nii.gz",
    "upper_case": "SCAN.NII.GZ",
    "mixed_case": "Scan.Nii.gZ",
    "upper_case_plain": "SCAN.NII",
    "copy_of_browser": "scan (1).nii.gz",
    "long": "a" * 244 + ".nii.gz",
    "in_folder_named_as_file": "scan.nii/scan.nii",
    "in_folder_named_as_gzip": "scan.nii.gz/scan.nii",
    "in_folder_like_address": "https:/host/scan.nii.gz",
}


def named(name: str) -> Callable[[Volume], Files]:
    return lambda volume: {name: member(nifti(volume)) if name.lower().endswith(".gz") else nifti(volume)}


def pair_named(stem: str) -> Callable[[Volume], Files]:
    return lambda volume: dict(zip((f"{stem}.hdr", f"{stem}.img"), pair(volume), strict=True))


def zipped(name: str) -> Callable[[Volume], Files]:
    return lambda volume: {name: member(nifti(volume))}


def plain(name: str) -> Callable[[Volume], Files]:
    return lambda volume: {name: nifti(volume)}


def one(**fields: Any) -> Callable[[Volume], Files]:
    return lambda volume: {"scan.nii": nifti(volume, **fields)}


def optional(flags: int, content: bytes) -> Callable[[Volume], Files]:
    return lambda volume: {"scan.nii.gz": member(nifti(volume), flags=flags, optional=content)}


def in_gap(volume: Volume) -> Files:
    """Between header and voxels, with no extension announced."""
    head = header(volume.values.shape, volume.affine, vox_offset=416)
    return {"scan.nii": head + bytes(4) + PATIENT.ljust(64, b"\0") + raw(volume.values)}


def patient_dicom(volume: Volume) -> Files:
    element = struct.pack("<HH2sH", 0x10, 0x10, b"PN", len(PATIENT)) + PATIENT
    return {"scan.nii": dicom(b"") + element + nifti(volume)}


def every_text_field(volume: Volume) -> Files:
    fields = {
        "data_type": PATIENT,
        "db_name": PATIENT,
        "descrip": b"Patient: " + PATIENT + b" *1961-02-03",
        "aux_file": PATIENT + b".txt",
        "intent_name": PATIENT,
    }
    return {"scan.nii": nifti(volume, extensions=extension(6, PATIENT) + extension(2, PATIENT * 9), **fields)}


def comments_of_gzip(volume: Volume) -> Files:
    content = struct.pack("<H", 12) + b"PN" + struct.pack("<H", 8) + PATIENT
    content += PATIENT + b".nii\0" + b"head of " + PATIENT + b"\0"
    return {"scan.nii.gz": member(nifti(volume), flags=FEXTRA | FNAME | FCOMMENT, optional=content)}


def corrupt_with_name(volume: Volume) -> Files:
    return {"scan.nii.gz": member(nifti(volume), flags=FNAME, optional=PATIENT + b"\0", checksum=1)}


def pair_with_name(volume: Volume) -> Files:
    head, voxels = pair(volume, descrip=PATIENT, db_name=PATIENT)
    return {"scan.hdr": head[:348] + b"\1\0\0\0" + extension(6, PATIENT), "scan.img": voxels}


NAME_CASES = [
    *(accept(f"name_{key}", "name", named(name)) for key, name in NAMES.items()),
    accept("name_pair_with_spaces", "name", pair_named("it's the scan (1)")),
    accept("name_pair_with_glob", "name", pair_named("[0-9]*?$(x)")),
    accept("name_pair_dots", "name", pair_named("sub.01.hdr")),
    warn("name_without_suffix", "name", "W_EXT", plain("scan")),
    warn("name_without_suffix_gzip", "name", "W_EXT", zipped("scan")),
    warn("name_of_another_kind", "name", "W_EXT", plain("scan.dat")),
    reject("name_absent_with_markup", "name", "E_MISSING", lambda _: {"<b>no</b>\n\x1b[31m.nii": None}),
    reject("name_absent_not_utf8", "name", "E_MISSING", lambda _: {"no\udce9.nii.gz": None}),
    reject("name_broken_not_utf8", "name", "E_TRUNCATED", lambda v: {"scan\udce9.nii": nifti(v)[:5000]}),
    reject(
        "name_pair_wrong_stem",
        "name",
        "E_MISSING",
        lambda v: dict(zip(("scan.hdr", "scan2.img"), pair(v), strict=True)),
    ),
]

PRIVACY = [
    accept("privacy_descrip", "privacy", one(descrip=PATIENT)),
    accept("privacy_db_name", "privacy", one(db_name=PATIENT)),
    accept("privacy_aux_file", "privacy", one(aux_file=PATIENT)),
    accept("privacy_intent_name", "privacy", one(intent_name=PATIENT)),
    accept("privacy_unused_of_nifti_2", "privacy", one(version=2, unused_str=PATIENT, descrip=PATIENT)),
    accept("privacy_extension_comment", "privacy", one(extensions=extension(6, b"Patient " + PATIENT))),
    accept(
        "privacy_extension_dicom",
        "privacy",
        one(extensions=extension(2, struct.pack("<HH2sH", 0x10, 0x10, b"PN", 8) + PATIENT)),
    ),
    accept("privacy_every_text_field", "privacy", every_text_field),
    accept("privacy_gap", "privacy", in_gap),
    accept("privacy_pair", "privacy", pair_with_name),
    accept("privacy_gzip_file_name", "privacy", optional(FNAME, PATIENT + b".nii\0")),
    accept("privacy_gzip_comment", "privacy", optional(FCOMMENT, PATIENT + b"\0")),
    accept("privacy_gzip_all_comments", "privacy", comments_of_gzip),
    warn("privacy_trailing_bytes", "privacy", "W_TRAILING", lambda v: {"scan.nii": nifti(v) + PATIENT}),
    warn("privacy_trailing_gzip", "privacy", "W_TRAILING", lambda v: {"scan.nii.gz": member(nifti(v)) + PATIENT}),
    warn("privacy_trailing_in_gzip", "privacy", "W_TRAILING", lambda v: {"scan.nii.gz": member(nifti(v) + PATIENT)}),
    warn("privacy_unknown_extension", "privacy", "W_EXT", one(extensions=extension(5555, PATIENT))),
    warn(
        "privacy_descrip_and_units",
        "privacy",
        "W_UNITS",
        one(descrip=PATIENT, xyzt_units=6),
        lambda v: (v.values, None),
    ),
    reject("privacy_in_magic", "privacy", "E_NOT_NIFTI", one(magic=PATIENT[:4], descrip=PATIENT)),
    reject("privacy_text_file", "privacy", "E_NOT_NIFTI", lambda _: {"scan.nii": b"Patient: " + PATIENT * 99}),
    reject("privacy_starts_with_name", "privacy", "E_NOT_NIFTI", lambda _: {"scan.nii.gz": PATIENT * 99}),
    reject("privacy_dicom", "privacy", "E_NOT_NIFTI", patient_dicom),
    reject("privacy_truncated", "privacy", "E_TRUNCATED", lambda v: {"scan.nii": nifti(v, descrip=PATIENT)[:9000]}),
    reject(
        "privacy_extension_broken", "privacy", "E_EXT", one(descrip=PATIENT, extensions=extension(6, PATIENT, size=640))
    ),
    reject("privacy_name_as_extension_size", "privacy", "E_EXT", one(extensions=PATIENT * 2)),
    reject(
        "privacy_several_volumes",
        "privacy",
        "E_4D",
        lambda v: {
            "scan.nii": nifti(v, data=raw(v.values) * 2, dim=[4, *v.values.shape, 2, 1, 1, 1], intent_name=PATIENT)
        },
    ),
    reject("privacy_gzip_damaged", "privacy", "E_CORRUPT", corrupt_with_name),
]

CASES: list[Case] = NAME_CASES + PRIVACY
