"""Kind header: geometry, units, offsets, scaling, extensions, and fields that make no sense."""

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from torture.case import Case, Expected, Files, Volume, accept, reject, warn
from torture.craft import (
    centred,
    extension,
    header,
    nifti,
    oblique,
    orientations,
    pair,
    quaternion_fields,
    raw,
    rotation_degrees,
)

NAN, INF = float("nan"), float("inf")
S_OFF = {"sform_code": 0, "srow_x": 0, "srow_y": 0, "srow_z": 0}
Q_OFF = {
    "qform_code": 0,
    **dict.fromkeys(("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"), 0),
}
COMMENT, DICOM, AFNI, PICKLE, MRS = 6, 2, 4, 16, 44
HOSTILE_PICKLE = b"cbuiltins\nexec\n(S'raise SystemExit(\"an extension was unpickled\")'\ntR."


def one(**options: Any) -> Callable[[Volume], Files]:
    """`scan.nii` with these fields."""
    return lambda volume: {"scan.nii": nifti(volume, **options)}


def with_affine(affine: Callable[[Volume], np.ndarray], **fields: Any) -> tuple[Callable, Callable]:
    """`scan.nii` with an affine of its own, and what must be read from it."""
    return (
        lambda volume: {"scan.nii": nifti(volume, affine=affine(volume), **fields)},
        lambda volume: (volume.values, affine(volume)),
    )


def free_affine(volume: Volume) -> Expected:
    return volume.values, None


def with_extensions(*extensions: bytes, **fields: Any) -> Callable[[Volume], Files]:
    return one(extensions=b"".join(extensions), **fields)


def sheared(volume: Volume, slope: float) -> np.ndarray:
    """A gantry tilt: slices slide along y as z grows."""
    tilt = np.array([[1, 0, 0], [0, 1, slope], [0, 0, 1]])
    return centred(tilt @ volume.affine[:3, :3], volume.values.shape)


def mirrored(volume: Volume) -> np.ndarray:
    return centred(np.diag([-1.0, 1.0, 1.0]) @ volume.affine[:3, :3], volume.values.shape)


def shifted(volume: Volume) -> np.ndarray:
    affine = volume.affine.copy()
    affine[:3, 3] += [0, 6.0, -4.0]
    return affine


def turned(volume: Volume) -> np.ndarray:
    return centred(rotation_degrees(0, 0, 20) @ volume.affine[:3, :3], volume.values.shape)


def q_of(affine: Callable[[Volume], np.ndarray]) -> Callable[[Volume], Files]:
    """S as the volume has it, q from elsewhere."""
    return lambda volume: {"scan.nii": nifti(volume, **quaternion_fields(affine(volume)))}


def other_spacing(volume: Volume) -> Files:
    return {"scan.nii": nifti(volume, pixdim=[1, 1, 1, 1, 0, 0, 0, 0])}


def pixdim(spacing: list[float], **fields: Any) -> Callable[[Volume], Files]:
    return one(pixdim=[1, *spacing, 0, 0, 0, 0], **fields)


def s_only_pixdim(spacing: list[float]) -> Callable[[Volume], Files]:
    return pixdim(spacing, **Q_OFF)


def scaled_geometry(volume: Volume, factor: float) -> np.ndarray:
    return np.diag([factor, factor, factor, 1]) @ volume.affine


def orientation_cases() -> list[Case]:
    """All 48, in turn with q and s, q only, s only."""
    in_force = ({}, S_OFF, Q_OFF)

    def files(index: int) -> Callable[[Volume], Files]:
        def make(volume: Volume) -> Files:
            _, values, affine = orientations(volume)[index]
            return {"scan.nii": nifti(volume, values=values, affine=affine, **in_force[index % 3])}

        return make

    def expected(index: int) -> Callable[[Volume], Expected]:
        return lambda volume: orientations(volume)[index][1:]

    blank = Volume(np.zeros((2, 3, 4), np.float32), np.eye(4))
    letters = [name for name, _, _ in orientations(blank)]
    return [accept(f"axes_{name}", "header", files(i), expected(i)) for i, name in enumerate(letters)]


def gap(volume: Volume) -> Files:
    """Voxels at 512, no extension, zeros between."""
    return {"scan.nii": nifti(volume, data=bytes(160) + raw(volume.values), vox_offset=512)}


def cut_corner(volume: Volume, **fields: Any) -> Files:
    """Numbers with no meaning beyond dim[0]."""
    return {"scan.nii": nifti(volume, dim=[3, *volume.values.shape, *fields["rest"]])}


def swapped_dim(volume: Volume) -> Files:
    swapped = [number << 8 for number in (3, *volume.values.shape, 1, 1, 1)]
    return {"scan.nii": nifti(volume, dim=[*swapped, 256])}


def random_fields(volume: Volume) -> Files:
    """A fuzzer's header: size and magic are right, all else is noise."""
    noise = np.random.default_rng(7).integers(0, 256, size=348, dtype=np.uint8).tobytes()
    return {"scan.nii": struct.pack("<i", 348) + noise[4:344] + b"n+1\0" + bytes(4) + raw(volume.values)}


def zero_fields(volume: Volume) -> Files:
    return {"scan.nii": struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(4) + raw(volume.values)}


def signature_of_ftp(volume: Volume) -> Files:
    """NIfTI-2 sent as text: the signature's line end gives it away."""
    return {"scan.nii": nifti(volume, version=2).replace(b"\r\n\x1a\n", b"\n\x1a\n\0", 1)}


def version_of_other(version: int, magic: bytes) -> Callable[[Volume], Files]:
    return one(version=version, magic=magic)


def extended_pair(volume: Volume) -> Files:
    head, voxels = pair(volume)
    return {"scan.hdr": head[:348] + b"\1\0\0\0" + extension(COMMENT, b"second echo"), "scan.img": voxels}


def single_magic_in_pair(volume: Volume) -> Files:
    head, voxels = pair(volume, magic=b"n+1\0", vox_offset=352)
    return {"scan.hdr": head, "scan.img": voxels}


def as_spm_writes(volume: Volume) -> Files:
    """A tissue map: bytes with a slope of 1/255, extents and regular set, q and s agree."""
    levels = np.round(volume.values / 4)
    fields = {"scl_slope": 1 / 255, "extents": 16384, "qform_code": 2, "sform_code": 2, "descrip": b"spm - 3C"}
    return {"c1scan.nii": nifti(volume, values=levels, code="u1", **fields)}


def spm_values(volume: Volume) -> Expected:
    return np.float32(np.round(volume.values / 4) / 255), volume.affine


def as_dcm2niix_writes(volume: Volume) -> Files:
    fields = {
        "descrip": b"TE=2.98;Time=101530.125;phase=1",
        "dim_info": 57,
        "slice_end": 17,
        "aux_file": b"imageComments",
        "toffset": 0.0,
        "pixdim": [*quaternion_fields(oblique(volume))["pixdim"][:4], 2.3, 0, 0, 0],
    }
    return {"scan.nii": nifti(volume, affine=oblique(volume), code="i2", **fields)}


GEOMETRY = [
    *orientation_cases(),
    accept("oblique_q_and_s", "header", *with_affine(oblique)),
    accept("oblique_q_only", "header", *with_affine(oblique, **S_OFF)),
    accept("oblique_s_only", "header", *with_affine(oblique, **Q_OFF)),
    accept("oblique_big_endian", "header", *with_affine(oblique, order=">")),
    accept("mirrored_q_only", "header", *with_affine(mirrored, **S_OFF)),
    accept("qfac_zero_means_one", "header", one(pixdim=[0, 1, 1, 1.25, 0, 0, 0, 0])),
    accept("qfac_zero_q_only", "header", one(pixdim=[0, 1, 1, 1.25, 0, 0, 0, 0], **S_OFF)),
    accept("q_garbage_not_in_force", "header", one(qform_code=0, quatern_b=NAN, qoffset_x=INF, quatern_c=9)),
    accept("s_garbage_not_in_force", "header", one(sform_code=0, srow_x=NAN, srow_y=INF)),
    accept(
        "quaternion_rounded_above_one",
        "header",
        *with_affine(
            lambda volume: centred(rotation_degrees(0, 180, 0) @ volume.affine[:3, :3], volume.values.shape),
            quatern_c=1.0000001,
            **S_OFF,
        ),
    ),
    accept("template_codes", "header", one(qform_code=2, sform_code=4)),
    accept("q_and_s_differ_by_rounding", "header", one(qoffset_x=-9.50001, quatern_b=2e-6)),
    accept("shear_of_rounding", "header", *with_affine(lambda volume: sheared(volume, 1e-6), **Q_OFF)),
    accept(
        "far_from_origin",
        "header",
        *with_affine(
            lambda volume: volume.affine + np.array([[0, 0, 0, 800], [0, 0, 0, -900], [0, 0, 0, 1500], [0] * 4])
        ),
    ),
    accept("as_spm_writes", "header", as_spm_writes, spm_values),
    accept("as_dcm2niix_writes", "header", as_dcm2niix_writes, lambda v: (v.values, oblique(v))),
    warn("q_and_s_mirrored", "header", "W_QS_MISMATCH", q_of(mirrored)),
    warn("q_and_s_shifted", "header", "W_QS_MISMATCH", q_of(shifted)),
    warn("q_and_s_turned", "header", "W_QS_MISMATCH", q_of(turned)),
    warn("neither_q_nor_s", "header", "W_NO_ORIENT", one(**Q_OFF, **S_OFF), free_affine),
    warn("codes_zero_but_matrices_kept", "header", "W_NO_ORIENT", one(qform_code=0, sform_code=0), free_affine),
    warn("pixdim_of_another_spacing", "header", "W_PIXDIM", s_only_pixdim([1, 1, 1])),
    warn("pixdim_zero_s_only", "header", "W_PIXDIM", s_only_pixdim([0, 0, 0])),
    warn("pixdim_one_zero_s_only", "header", "W_PIXDIM", s_only_pixdim([1, 1, 0])),
    warn("pixdim_negative_s_only", "header", "W_PIXDIM", s_only_pixdim([-1, 1, 1.25])),
    warn("pixdim_nan_s_only", "header", "W_PIXDIM", s_only_pixdim([1, NAN, 1.25])),
    warn("pixdim_inf_s_only", "header", "W_PIXDIM", s_only_pixdim([1, INF, 1.25])),
    warn("pixdim_and_q_of_another_spacing", "header", "W_PIXDIM W_QS_MISMATCH", other_spacing),
    warn("gantry_tilt", "header", "W_SHEAR", *with_affine(lambda volume: sheared(volume, 0.27), **Q_OFF)),
    reject("s_all_zero", "header", "E_AFFINE", one(srow_x=0, srow_y=0, srow_z=0)),
    reject("s_two_equal_columns", "header", "E_AFFINE", one(srow_x=[1, 1, 0, 0], srow_y=[1, 1, 0, 0], **Q_OFF)),
    reject("s_zero_column", "header", "E_AFFINE", one(srow_z=[0, 0, 0, 5], **Q_OFF)),
    reject("s_nan", "header", "E_AFFINE", one(srow_y=[0, NAN, 0, 0])),
    reject("s_inf", "header", "E_AFFINE", one(srow_x=[INF, 0, 0, 0])),
    reject("s_nan_offset", "header", "E_AFFINE", one(srow_z=[0, 0, 1.25, NAN])),
    reject("q_only_nan_offset", "header", "E_AFFINE", one(qoffset_y=NAN, **S_OFF)),
    reject("q_only_quaternion_nan", "header", "E_AFFINE E_HEADER", one(quatern_b=NAN, **S_OFF)),
    reject(
        "q_only_quaternion_too_long", "header", "E_AFFINE E_HEADER", one(quatern_b=1, quatern_c=1, quatern_d=1, **S_OFF)
    ),
    reject("q_only_pixdim_zero", "header", "E_AFFINE", pixdim([1, 1, 0], **S_OFF)),
    reject("q_only_pixdim_nan", "header", "E_AFFINE", pixdim([1, NAN, 1], **S_OFF)),
    reject("no_orientation_and_no_size", "header", "E_AFFINE", pixdim([0, 0, 0], **Q_OFF, **S_OFF)),
]

UNITS = [
    accept("units_mm_and_milliseconds", "header", one(xyzt_units=2 | 16)),
    accept("units_mm_alone", "header", one(xyzt_units=2)),
    accept("units_unknown", "header", one(xyzt_units=0)),
    warn(
        "units_metres",
        "header",
        "W_UNITS",
        lambda v: {"scan.nii": nifti(v, affine=scaled_geometry(v, 1e-3), xyzt_units=1)},
        free_affine,
    ),
    warn(
        "units_microns",
        "header",
        "W_UNITS",
        lambda v: {"scan.nii": nifti(v, affine=scaled_geometry(v, 1e3), xyzt_units=3)},
        free_affine,
    ),
    warn("units_undefined_code", "header", "W_UNITS", one(xyzt_units=5 | 8), free_affine),
]

OFFSETS = [
    accept("gap_before_voxels", "header", gap),
    accept("nonsense_beyond_dim_0", "header", lambda v: cut_corner(v, rest=[0, -7, 30000, 5])),
    accept("zeros_beyond_dim_0", "header", lambda v: cut_corner(v, rest=[0, 0, 0, 0])),
    accept("repetition_time_nan", "header", one(pixdim=[1, 1, 1, 1.25, NAN, INF, -1, 0])),
    accept("display_window_set", "header", one(cal_min=0, cal_max=1000, glmax=1000)),
    accept("text_fields_not_utf8", "header", one(descrip=b"\xff\xfe\x00J\xf6rg\x1b[31m" * 5)),
    accept("statistic_intent", "header", one(intent_code=3, intent_p1=12.0, intent_name=b"t-test")),
    reject("offset_zero", "header", "E_HEADER", one(vox_offset=0)),
    reject("offset_inside_header", "header", "E_HEADER", one(vox_offset=100)),
    reject("offset_in_flag_bytes", "header", "E_HEADER", one(vox_offset=348)),
    reject("offset_negative", "header", "E_HEADER", one(vox_offset=-352)),
    reject("offset_nan", "header", "E_HEADER", one(vox_offset=NAN)),
    reject("offset_inf", "header", "E_HEADER", one(vox_offset=INF)),
    reject("offset_broken_number", "header", "E_HEADER", one(vox_offset=352.5)),
    reject("offset_negative_nifti_2", "header", "E_HEADER", one(version=2, vox_offset=-(2**62))),
    reject("offset_inside_header_nifti_2", "header", "E_HEADER", one(version=2, vox_offset=352)),
    reject("bitpix_contradicts_datatype", "header", "E_HEADER", one(code="i2", bitpix=32)),
    reject("pair_magic_in_single_file", "header", "E_HEADER E_NOT_NIFTI E_MISSING", one(magic=b"ni1\0")),
    reject("single_magic_in_pair", "header", "E_HEADER E_NOT_NIFTI E_MISSING E_TRUNCATED", single_magic_in_pair),
    reject("magic_of_2_in_header_of_1", "header", "E_HEADER E_NOT_NIFTI", version_of_other(1, b"n+2\0")),
    reject("magic_of_1_in_header_of_2", "header", "E_HEADER E_NOT_NIFTI", version_of_other(2, b"n+1\0")),
    reject("magic_of_nifti_3", "header", "E_NOT_NIFTI", one(magic=b"n+3\0")),
    reject("magic_without_end", "header", "E_NOT_NIFTI E_HEADER", one(magic=b"n+1x")),
    reject("signature_of_2_sent_as_text", "header", "E_NOT_NIFTI E_HEADER", signature_of_ftp),
    reject("size_field_of_no_version", "header", "E_NOT_NIFTI E_HEADER", one(sizeof_hdr=352)),
    reject("dim_of_the_other_endian", "header", "E_HEADER E_DIM E_NOT_NIFTI", swapped_dim),
    reject("all_fields_zero", "header", "E_HEADER E_DIM E_DTYPE", zero_fields),
    reject(
        "all_fields_noise",
        "header",
        "E_HEADER E_DIM E_DTYPE E_4D E_EXT E_TRUNCATED E_TOO_LARGE E_NOT_NIFTI",
        random_fields,
    ),
]

SCALING = [
    accept(
        "slope_and_intercept",
        "header",
        one(code="i2", scl_slope=0.5, scl_inter=-1024),
        lambda v: (np.float32(v.values * 0.5 - 1024), v.affine),
    ),
    accept(
        "slope_negative",
        "header",
        one(code="i2", scl_slope=-2.0, scl_inter=3),
        lambda v: (np.float32(v.values * -2 + 3), v.affine),
    ),
    accept("slope_zero_is_unscaled", "header", one(code="i2", scl_slope=0)),
    accept("slope_zero_ignores_intercept", "header", one(code="i2", scl_slope=0, scl_inter=500)),
    accept(
        "slope_on_floats",
        "header",
        one(scl_slope=1e-3, scl_inter=1),
        lambda v: (np.float32(v.values * 1e-3 + 1), v.affine),
    ),
    accept(
        "slope_big_endian",
        "header",
        one(code="u2", order=">", scl_slope=4.0, scl_inter=-8),
        lambda v: (np.float32(v.values * 4 - 8), v.affine),
    ),
    reject("slope_nan", "header", "E_SCALE", one(code="i2", scl_slope=NAN)),
    reject("slope_inf", "header", "E_SCALE", one(code="i2", scl_slope=INF)),
    reject("intercept_nan", "header", "E_SCALE", one(code="i2", scl_inter=NAN)),
    reject("intercept_minus_inf", "header", "E_SCALE", one(code="i2", scl_inter=-INF)),
    reject("slope_beyond_float32", "header", "E_SCALE", one(code="i2", scl_slope=3e38)),
    reject("slope_beyond_float32_nifti_2", "header", "E_SCALE", one(version=2, code="i2", scl_slope=1e300)),
]

EXTENSIONS = [
    accept("extension_comment", "header", with_extensions(extension(COMMENT, b"second echo"))),
    accept("extension_xml_of_afni", "header", with_extensions(extension(AFNI, b"<?xml version='1.0' ?><AFNI/>"))),
    accept("extension_dicom", "header", with_extensions(extension(DICOM, b"\x08\x00\x60\x00CS\x02\x00MR"))),
    accept("extension_json_of_mrs", "header", with_extensions(extension(MRS, b'{"EchoTime": 0.03}'))),
    accept("extension_hostile_pickle", "header", with_extensions(extension(PICKLE, HOSTILE_PICKLE))),
    accept(
        "extensions_three",
        "header",
        with_extensions(extension(COMMENT, b"a" * 100), extension(DICOM, b"b" * 1000), extension(COMMENT, b"")),
    ),
    accept("extension_big_endian", "header", with_extensions(extension(COMMENT, b"echo", order=">"), order=">")),
    accept("extension_nifti_2", "header", with_extensions(extension(COMMENT, b"echo"), version=2)),
    accept("extension_in_pair", "header", extended_pair),
    accept(
        "extension_flag_off",
        "header",
        lambda v: {
            "scan.nii": header(v.values.shape, v.affine, vox_offset=352 + 64) + bytes(4) + b"\xff" * 64 + raw(v.values)
        },
    ),
    warn("extension_unknown_kind", "header", "W_EXT", with_extensions(extension(9998, b"in-house"))),
    warn("extension_negative_kind", "header", "W_EXT", with_extensions(extension(-3, b"in-house"))),
    warn(
        "extension_odd_size",
        "header",
        "W_EXT",
        with_extensions(
            struct.pack("<ii", 24, COMMENT) + b"sixteen bytes it", struct.pack("<ii", 24, DICOM) + bytes(16)
        ),
    ),
    reject("extension_past_voxels", "header", "E_EXT", with_extensions(extension(COMMENT, b"x" * 40, size=96))),
    reject("extension_past_file", "header", "E_EXT", with_extensions(extension(COMMENT, b"x", size=2**31 - 16))),
    reject("extension_size_zero", "header", "E_EXT", with_extensions(extension(COMMENT, b"x", size=0))),
    reject("extension_size_four", "header", "E_EXT", with_extensions(extension(COMMENT, b"x", size=4))),
    reject("extension_size_negative", "header", "E_EXT", with_extensions(extension(COMMENT, b"x", size=-16))),
    reject("extension_of_the_other_endian", "header", "E_EXT", with_extensions(extension(COMMENT, b"echo", order=">"))),
    reject(
        "extension_second_broken",
        "header",
        "E_EXT",
        with_extensions(extension(COMMENT, b"fine"), extension(COMMENT, b"x", size=4096)),
    ),
]

CASES = GEOMETRY + UNITS + OFFSETS + SCALING + EXTENSIONS
