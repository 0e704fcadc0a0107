"""Cases by someone who has read the reader: both sides of each of its limits.

And what the stranger left out as undecidable. Limits are crossed by so little that a change of any of them
moves a verdict. Where two verdicts are arguable a comment says why this one. Streams, lengths and bombs:
`our_streams.py`.
"""

from collections.abc import Callable

import numpy as np

from torture.case import Case, Expected, Files, Volume, accept, reject, warn
from torture.craft import centred, extension, header, member, nifti, pair, quaternion_fields, raw
from torture.craft import rotation_degrees as rotation
from torture.our_streams import CASES as STREAMS
from torture.strange_contents import changed, constant, corner, files_of, middle, of_values
from torture.strange_headers import (
    COMMENT,
    INF,
    NAN,
    Q_OFF,
    S_OFF,
    free_affine,
    one,
    scaled_geometry,
    sheared,
    shifted,
    with_affine,
    with_extensions,
)
from torture.strange_names import pair_named

METRES, MICRONS = 1, 3
FLOAT32_MAXIMUM = float(np.finfo(np.float32).max)


def half_turn(volume: Volume) -> np.ndarray:
    return centred(rotation(0, 180, 0) @ volume.affine[:3, :3], volume.values.shape)


def long_quaternion(length: float, **fields: float) -> tuple[Callable, Callable]:
    """A half turn about y whose quaternion has this length instead of 1."""
    return with_affine(half_turn, quatern_c=length, **fields)


def pixdim(*sizes_mm: float, **fields: object) -> Callable[[Volume], Files]:
    return one(pixdim=[1, *sizes_mm, 0, 0, 0, 0], **fields)


def in_unit(code: int, per_mm: float, q_offset_mm: float) -> tuple[Callable, Callable]:
    """The volume in another unit, and a qform that lies so many millimetres beside it."""

    def make(volume: Volume) -> Files:
        affine = scaled_geometry(volume, per_mm)
        offset = affine[0, 3] + q_offset_mm * per_mm
        return {"scan.nii": nifti(volume, affine=affine, xyzt_units=code, qoffset_x=offset)}

    return make, lambda volume: (volume.values, volume.affine)


def far_apart_in_metres(volume: Volume) -> Files:
    q_fields = quaternion_fields(scaled_geometry(Volume(volume.values, shifted(volume)), 1e-3))
    affine = scaled_geometry(volume, 1e-3)
    return {"scan.nii": nifti(volume, affine=affine, xyzt_units=METRES, **q_fields)}


def of_size(factor: float) -> tuple[Callable, Callable]:
    return with_affine(lambda volume: scaled_geometry(volume, factor))


def flat(volume: Volume, angle: float) -> np.ndarray:
    """The third axis leans until `angle` (radians) is left between it and the plane of the others."""
    lean = np.array([[1, 0, np.cos(angle)], [0, 1, 0], [0, 0, np.sin(angle)]])
    return centred(lean, volume.values.shape)


def extension_in_pair(volume: Volume) -> Files:
    """The DICOM header of a mosaic kept whole: 2 MiB."""
    head, voxels = pair(volume)
    return {"scan.hdr": head[:348] + b"\1\0\0\0" + extension(COMMENT, bytes(1 << 21)), "scan.img": voxels}


def flag_alone(volume: Volume) -> Files:
    head = header(volume.values.shape, volume.affine)
    return {"scan.nii": head + b"\1\0\0\0" + raw(volume.values)}


def padded_extension(volume: Volume) -> Files:
    return {"scan.nii": nifti(volume, extensions=extension(COMMENT, b"echo") + bytes(512))}


def odd_offset(volume: Volume) -> Files:
    return {"scan.nii": nifti(volume, data=b"\0" + raw(volume.values), vox_offset=353)}


def quadruple_float(volume: Volume) -> Files:
    """x87 numbers in 16 bytes each, as numpy on Linux writes them."""
    data = volume.values.astype(np.longdouble).tobytes(order="F")
    return {"scan.nii": nifti(volume, data=data, datatype=1536, bitpix=128)}


def brightest(factor: float) -> Callable[[Volume], np.ndarray]:
    """A mask of ones, one of its voxels brighter by `factor`."""

    def make(volume: Volume) -> np.ndarray:
        mask = np.float32(volume.values > 0)
        mask[10, 12, 9] = factor
        return mask

    return make


def half_nan(volume: Volume) -> np.ndarray:
    values = volume.values.copy()
    values[:10] = NAN
    return values


def nan_around_ones(volume: Volume) -> np.ndarray:
    return np.where(volume.values > 0, 1, NAN)


def largest_and_nan(volume: Volume) -> np.ndarray:
    """A double that is beyond float32 by so little that it rounds to its largest; and a NaN elsewhere."""
    values = volume.values.astype(np.float64)
    values[middle(values)], values[corner(values)] = FLOAT32_MAXIMUM * (1 + 1e-9), NAN
    return values


def infinite_and_scaled(volume: Volume) -> Files:
    return {"scan.nii": nifti(volume, values=changed(middle, INF)(volume), scl_slope=2.0)}


def doubled(volume: Volume) -> Expected:
    return changed(middle, INF)(volume) * 2, volume.affine


def small_lesion_in_doubles(_: Volume) -> np.ndarray:
    """What `np.zeros` makes of a mask: 150 MiB that deflate packs a thousand to one, and a lesion in it."""
    mask = np.zeros((256, 256, 300))
    mask[100:110, 100:112, 150:155] = 1
    return mask


GEOMETRY = [
    accept("q_length_one_per_mille_above_1", "header", *long_quaternion(1.0009, **S_OFF)),
    reject("q_length_two_per_mille_above_1", "header", "E_AFFINE", long_quaternion(1.002, **S_OFF)[0]),
    warn("q_length_two_per_mille_above_1_and_s", "header", "W_QS_MISMATCH", *long_quaternion(1.002)),
    accept("q_and_s_90_microns_apart", "header", one(qoffset_x=-9.41)),
    warn("q_and_s_110_microns_apart", "header", "W_QS_MISMATCH", one(qoffset_x=-9.39)),
    warn("q_and_s_90_microns_apart_in_metres", "header", "W_UNITS", *in_unit(METRES, 1e-3, 0.09)),
    warn("q_and_s_90_microns_apart_in_microns", "header", "W_UNITS", *in_unit(MICRONS, 1e3, 0.09)),
    warn("q_and_s_shifted_in_metres", "header", "W_UNITS W_QS_MISMATCH", far_apart_in_metres),
    accept("pixdim_9_per_mille_off", "header", pixdim(1.009, 1, 1.25, **Q_OFF)),
    warn("pixdim_11_per_mille_off", "header", "W_PIXDIM", pixdim(1.011, 1, 1.25, **Q_OFF)),
    # Method 2 of nifti1.h forbids it, and every program takes the absolute value: usable, and told.
    warn("pixdim_negative_q_only", "header", "W_PIXDIM", pixdim(1, -1, 1.25, **S_OFF)),
    accept("shear_below_tolerance", "header", *with_affine(lambda v: sheared(v, 9e-4), **Q_OFF)),
    warn("shear_above_tolerance", "header", "W_SHEAR", *with_affine(lambda v: sheared(v, 1.1e-3), **Q_OFF)),
    warn(
        "axes_almost_in_one_plane",
        "header",
        "W_SHEAR",
        *with_affine(lambda v: flat(v, 1e-5), **Q_OFF, pixdim=[1, 1, 1, 1, 0, 0, 0, 0]),
    ),
    reject("axes_in_one_plane", "header", "E_AFFINE", with_affine(lambda v: flat(v, 1e-7), **Q_OFF)[0]),
    # nifti1.h: a form is there if its code is above 0. So a negative one is none, an unknown one is.
    warn("codes_negative", "header", "W_NO_ORIENT", one(qform_code=-1, sform_code=-1), free_affine),
    accept("s_code_negative", "header", one(sform_code=-1, srow_x=NAN)),
    accept("codes_unknown", "header", one(qform_code=99, sform_code=32767)),
    warn(
        "no_orientation_of_four_axes",
        "header",
        "W_NO_ORIENT",
        lambda v: {"scan.nii": nifti(v, dim=[4, *v.values.shape, 1, 1, 1, 1], **Q_OFF, **S_OFF)},
        free_affine,
    ),
    accept("voxels_of_histology", "header", *of_size(0.005)),
    reject("voxels_below_a_micron", "header", "E_AFFINE", of_size(5e-4)[0]),
    reject("volume_as_large_as_a_house", "header", "E_AFFINE", of_size(6000.0)[0]),
    reject("farther_than_the_moon", "header", "E_AFFINE", one(srow_x=[1, 0, 0, 2e9])),
    # Metres are written, but voxels of a metre are no head: whoever wrote it meant millimetres.
    warn("metres_that_are_millimetres", "header", "W_UNITS", one(xyzt_units=METRES)),
    accept("units_with_unused_bits", "header", one(xyzt_units=2 | 8 | 64 | 128)),
]

FIELDS = [
    # A display window upside down: it is not used, so it is no fault of the volume.
    accept("window_upside_down", "header", one(cal_min=900, cal_max=100)),
    # nifti1.h recommends a multiple of 16 and demands none.
    accept("offset_odd", "header", odd_offset),
    accept("bits_not_given", "header", one(code="i2", bitpix=0)),
    accept("slope_zero_and_intercept_nan", "header", one(code="i2", scl_slope=0, scl_inter=NAN)),
    warn("extension_flag_without_room", "header", "W_EXT", flag_alone),
    accept("extension_then_padding", "header", padded_extension),
    accept("extension_of_2_MiB_in_pair", "header", extension_in_pair),
    warn(
        "extension_of_least_size",
        "header",
        "W_EXT",  # 8 bytes hold it, but no multiple of 16
        with_extensions(b"\x08\0\0\0\6\0\0\0" * 2),
    ),
    reject("type_float128", "type", "E_DTYPE", quadruple_float),
]

DATA = [
    warn("data_half_nan", "data", "W_NONFINITE", *of_values(half_nan)),
    # Finite voxels are all alike, but what is read, ones and zeros, is a mask.
    warn("data_nan_around_ones", "data", "W_NONFINITE", *of_values(nan_around_ones)),
    accept("data_brightest_100_times", "data", *of_values(brightest(100), code="u1")),
    warn("data_brightest_101_times", "data", "W_RANGE", *of_values(brightest(101), code="u1")),
    warn("data_largest_float32_and_nan", "data", "W_NONFINITE W_RANGE", *of_values(largest_and_nan, code="f8")),
    warn("data_infinite_and_scaled", "data", "W_NONFINITE", infinite_and_scaled, doubled),
    reject(
        "data_one_beyond_float32_by_slope",
        "data",
        "E_SCALE",
        lambda v: {"scan.nii": nifti(v, values=changed(middle, 60_000)(v), code="u2", scl_slope=1e34)},
    ),
    reject("data_all_largest", "data", "E_NO_SIGNAL", files_of(constant(FLOAT32_MAXIMUM))),
    accept(
        "data_small_lesion_in_doubles",
        "data",
        lambda v: {"scan.nii.gz": member(nifti(v, values=small_lesion_in_doubles(v), code="f8"))},
        lambda v: (np.float32(small_lesion_in_doubles(v)), v.affine),
    ),
]


LONG = "a" * 251  # with .hdr the longest name there can be; with .hdr.gz it is none

NAMES = [
    accept("name_pair_mixed_case", "name", lambda v: dict(zip(("Scan.Hdr", "Scan.Img"), pair(v), strict=True))),
    accept("name_pair_as_long_as_can_be", "name", pair_named(LONG)),
    reject("name_pair_long_without_image", "name", "E_MISSING", lambda v: {f"{LONG}.hdr": pair(v)[0]}),
    reject("name_pair_long_without_header", "name", "E_MISSING", lambda v: {f"{LONG}.img": pair(v)[1]}),
]

CASES: list[Case] = GEOMETRY + FIELDS + DATA + NAMES + STREAMS
