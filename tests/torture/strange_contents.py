"""Kinds type, shape and data: what a voxel is, how many there are, and what they hold."""

from collections.abc import Callable
from typing import Any

import numpy as np

from torture.case import Case, Expected, Files, Volume, accept, reject, warn
from torture.craft import extension, header, nifti, raw

NAN, INF = float("nan"), float("inf")

Values = Callable[[Volume], np.ndarray]

# Integer and float types, each with values that show a wrong sign, order or width of the type.
TYPES: dict[str, Values] = {
    "u1": lambda v: np.floor(v.values / 4),
    "i1": lambda v: np.floor(v.values / 4) - 125,
    "i2": lambda v: v.values * 30 - 15_000,
    "u2": lambda v: v.values * 65,
    "i4": lambda v: v.values * 2.0e6 - 1e9,
    "u4": lambda v: v.values * 2.0**22,
    "i8": lambda v: (v.values.astype(np.float64) - 300) * 2.0**52,
    "u8": lambda v: v.values.astype(np.float64) * 2.0**54,
    "f4": lambda v: v.values / 7 - 20,
    "f8": lambda v: v.values.astype(np.float64) / 7e3,
}

NOT_NUMBERS = {  # name: NIfTI code, bits
    "unknown": (0, 0),
    "bits": (1, 1),
    "complex64": (32, 64),
    "rgb": (128, 24),
    "all": (255, 0),
    "complex128": (1792, 128),
    "complex256": (2048, 256),
    "rgba": (2304, 32),
    "undefined": (3, 16),
    "negative": (-16, 32),
}


def of_type(code: str, **options: Any) -> tuple[Callable[[Volume], Files], Callable[[Volume], Expected]]:
    values = TYPES[code]
    return (
        lambda volume: {"scan.nii": nifti(volume, values=values(volume), code=code, **options)},
        lambda volume: (values(volume).astype(np.float32), volume.affine),
    )


def type_cases() -> list[Case]:
    named = {"little": {}, "big": {"order": ">"}, "nifti_2": {"version": 2}}
    cases = [
        accept(f"type_{code}_{name}", "type", *of_type(code, **options))
        for code in TYPES
        for name, options in named.items()
    ]
    for name, (number, bits) in NOT_NUMBERS.items():
        codes = "E_DTYPE E_HEADER" if number < 0 else "E_DTYPE"
        cases.append(reject(f"type_{name}", "type", codes, not_numbers(number, bits)))
    return cases


def not_numbers(number: int, bits: int) -> Callable[[Volume], Files]:
    def make(volume: Volume) -> Files:
        num_bytes = -(-volume.values.size * max(bits, 8) // 8)
        data = np.resize(np.arange(251, dtype=np.uint8), num_bytes).tobytes()
        return {"scan.nii": nifti(volume, data=data, datatype=number, bitpix=bits)}

    return make


def of_values(values: Values, **options: Any) -> tuple[Callable[[Volume], Files], Callable[[Volume], Expected]]:
    """`scan.nii` with values of its own (which may have a shape of its own), and what must be read."""
    return (
        lambda volume: {"scan.nii": nifti(volume, values=values(volume), **options)},
        lambda volume: (values(volume).astype(np.float32), volume.affine),
    )


def files_of(values: Values, **options: Any) -> Callable[[Volume], Files]:
    return of_values(values, **options)[0]


def claimed(*dim: int, voxels: int = 1) -> Callable[[Volume], Files]:
    """A header with this dim as it is, and the volume's voxels `voxels` times."""
    return lambda volume: {
        "scan.nii": nifti(volume, data=raw(volume.values) * voxels, dim=(*dim, *[1] * (8 - len(dim))))
    }


def with_axes_of_one(num_axes: int) -> Callable[[Volume], Files]:
    return lambda volume: claimed(num_axes, *volume.values.shape)(volume)


def several(*more: int, **fields: Any) -> Callable[[Volume], Files]:
    """`more` are the lengths of the axes after the third."""

    def make(volume: Volume) -> Files:
        shape = (*volume.values.shape, *more)
        data = raw(volume.values) * int(np.prod(more))
        return {"scan.nii": nifti(volume, data=data, dim=([len(shape), *shape] + [1] * 5)[:8], **fields)}

    return make


def dense_scalars_of_cifti(volume: Volume) -> Files:
    """A .dscalar.nii: NIfTI-2, an XML extension, and no axis in space."""
    xml = extension(32, b"<?xml version='1.0'?><CIFTI Version='2'/>")
    fields = {"vox_offset": 544 + len(xml), "intent_code": 3006, "intent_name": b"ConnDenseScalar"}
    head = header((1, 1, 1, 1, 5, 100), volume.affine, version=2, **fields)
    return {"scan.dscalar.nii": head + b"\1\0\0\0" + xml + raw(np.arange(500.0))}


def wide(_: Volume) -> np.ndarray:
    """512 x 512 x 2: the product of the axes is 0 in 16 bits."""
    x, y, z = np.meshgrid(np.arange(512), np.arange(512), np.arange(2), indexing="ij")
    return np.float32((x // 4 + y // 8 + 17 * z) % 251)


def line(_: Volume) -> np.ndarray:
    """The longest axis NIfTI-1 can have."""
    return np.float32(np.arange(32767) % 1009).reshape(-1, 1, 1)


def changed(where: Callable[[np.ndarray], Any], value: float) -> Values:
    """The volume with one value put into some voxels."""

    def make(volume: Volume) -> np.ndarray:
        values = volume.values.copy()
        values[where(values)] = value
        return values

    return make


def middle(values: np.ndarray) -> tuple[int, ...]:
    return tuple(n // 2 for n in values.shape)


def background(values: np.ndarray) -> np.ndarray:
    return values == 0


def corner(_: np.ndarray) -> tuple[int, int, int]:
    return 0, 0, 0


def three_spikes(volume: Volume) -> np.ndarray:
    values = volume.values.copy()
    values[2, 3, 4], values[9, 9, 9], values[12, 20, 3] = -1e25, 3e25, 2e25
    return values


def both_infinities(volume: Volume) -> np.ndarray:
    values = volume.values.copy()
    values[0, 0, 0], values[5, 5, 5], values[10, 10, 10] = INF, -INF, NAN
    return values


def nan_on_zeros(volume: Volume) -> np.ndarray:
    return np.where(volume.values > 0, NAN, 0)


def signed_zeros(volume: Volume) -> np.ndarray:
    return np.where(volume.values > 0, -0.0, 0.0)


def bright_vessel(volume: Volume) -> np.ndarray:
    values = volume.values.copy()
    values[10, 12, 2:14] = 4000
    return values


def binary_mask(volume: Volume) -> np.ndarray:
    return (volume.values > 0).astype(np.float32)


def small_lesion(volume: Volume) -> np.ndarray:
    mask = np.zeros_like(volume.values)
    mask[8:10, 9:12, 7:9] = 1
    return mask


def constant(value: float) -> Values:
    return lambda volume: np.full(volume.values.shape, value)


def three_warnings(volume: Volume) -> Files:
    values = changed(corner, NAN)(volume)
    return {"scan.nii": nifti(volume, values=values, xyzt_units=3) + b"\0" * 9}


SHAPES = [
    accept("shape_4d_of_one_volume", "shape", with_axes_of_one(4)),
    accept("shape_5d_of_one_volume", "shape", with_axes_of_one(5)),
    accept("shape_7d_of_one_volume", "shape", with_axes_of_one(7)),
    accept("shape_one_slice", "shape", *of_values(lambda v: v.values[:, :, 9:10])),
    accept("shape_one_column_of_x", "shape", *of_values(lambda v: v.values[10:11])),
    accept("shape_two_voxels", "shape", *of_values(lambda v: v.values[0:20:10, :1, 9:10] + [[[1]], [[2]]])),
    accept("shape_product_zero_in_16_bits", "shape", *of_values(wide, code="u1")),
    accept("shape_longest_axis", "shape", *of_values(line)),
    accept("shape_label_intent", "shape", *of_values(binary_mask, code="u1", intent_code=1002)),
    reject("shape_plane", "shape", "E_DIM", files_of(lambda v: v.values[:, :, 9])),
    reject("shape_plane_padded_by_one", "shape", "E_DIM", claimed(2, 20, 24, 18)),
    reject("shape_line", "shape", "E_DIM", files_of(lambda v: v.values[:, 12, 9])),
    reject("shape_axis_zero", "shape", "E_DIM", claimed(3, 20, 0, 18)),
    reject("shape_axis_negative", "shape", "E_DIM", claimed(3, 20, -24, 18)),
    reject("shape_two_axes_negative", "shape", "E_DIM", claimed(3, -20, -24, 18)),
    reject("shape_no_axes", "shape", "E_DIM E_HEADER E_NOT_NIFTI", claimed(0, 20, 24, 18)),
    reject("shape_eight_axes", "shape", "E_DIM E_HEADER E_NOT_NIFTI", claimed(8, 20, 24, 18)),
    reject("shape_minus_three_axes", "shape", "E_DIM E_HEADER E_NOT_NIFTI", claimed(-3, 20, 24, 18)),
    reject(
        "shape_axis_negative_nifti_2",
        "shape",
        "E_DIM",
        lambda v: {"scan.nii": nifti(v, version=2, dim=[3, 20, 24, -(2**40), 1, 1, 1, 1])},
    ),
    reject("shape_no_volume", "shape", "E_DIM E_HEADER E_4D", claimed(4, 20, 24, 18, 0)),
    reject("shape_time_series", "shape", "E_4D", several(5)),
    reject("shape_two_volumes", "shape", "E_4D", several(2)),
    reject("shape_vectors", "shape", "E_4D E_DIM", several(1, 3, intent_code=1007)),
    reject("shape_tensors", "shape", "E_4D E_DIM", several(1, 6, intent_code=1005)),
    reject("shape_seventh_axis_of_two", "shape", "E_4D E_DIM", several(1, 1, 1, 2)),
    reject("shape_cifti", "shape", "E_4D E_DIM", dense_scalars_of_cifti),
]

DATA = [
    accept("data_all_negative", "data", *of_values(lambda v: v.values - 3000, code="i2")),
    accept("data_tiny_units", "data", *of_values(lambda v: v.values * 1e-12)),
    accept("data_large_units", "data", *of_values(lambda v: v.values * 1e9)),
    accept("data_binary_mask", "data", *of_values(binary_mask, code="u1")),
    accept("data_small_lesion", "data", *of_values(small_lesion, code="u1")),
    accept("data_bright_vessel", "data", *of_values(bright_vessel)),
    accept("data_narrow_band_far_up", "data", *of_values(lambda v: np.round(v.values / 10) + 60_000, code="u2")),
    warn("data_nan_background", "data", "W_NONFINITE", *of_values(changed(background, NAN))),
    warn("data_one_nan", "data", "W_NONFINITE", *of_values(changed(middle, NAN))),
    warn("data_one_inf", "data", "W_NONFINITE", *of_values(changed(middle, INF))),
    warn("data_nan_and_both_infinities", "data", "W_NONFINITE", *of_values(both_infinities)),
    warn("data_nan_in_float64", "data", "W_NONFINITE", *of_values(changed(middle, NAN), code="f8", order=">")),
    warn("data_one_spike", "data", "W_RANGE", *of_values(changed(middle, 1e30))),
    warn("data_one_spike_in_background", "data", "W_RANGE", *of_values(changed(corner, -3e38))),
    warn("data_three_spikes", "data", "W_RANGE", *of_values(three_spikes)),
    warn("data_spike_of_int32", "data", "W_RANGE", *of_values(changed(middle, -(2**31)), code="i4")),
    warn(
        "data_nan_metres_trailing",
        "data",
        "W_NONFINITE W_UNITS W_TRAILING",
        three_warnings,
        lambda v: (changed(corner, NAN)(v), None),
    ),
    reject("data_all_zero", "data", "E_NO_SIGNAL", files_of(constant(0), code="i2")),
    reject("data_all_thousand", "data", "E_NO_SIGNAL", files_of(constant(1000))),
    reject("data_all_nan", "data", "E_NO_SIGNAL", files_of(constant(NAN))),
    reject("data_all_inf", "data", "E_NO_SIGNAL", files_of(constant(-INF))),
    reject("data_nan_on_zeros", "data", "E_NO_SIGNAL", files_of(nan_on_zeros)),
    reject("data_signed_zeros", "data", "E_NO_SIGNAL", files_of(signed_zeros)),
    reject("data_single_voxel", "data", "E_NO_SIGNAL", files_of(lambda v: v.values[9:10, 9:10, 9:10])),
    reject(
        "data_flat_after_scaling",
        "data",
        "E_NO_SIGNAL E_SCALE",
        lambda v: {"scan.nii": nifti(v, code="i2", scl_slope=1e-30, scl_inter=1000)},
    ),
    reject(
        "data_all_beyond_float32",
        "data",
        "E_SCALE E_NO_SIGNAL",
        files_of(lambda v: 1e300 * (1 + v.values.astype(np.float64)), code="f8"),
    ),
    reject(
        "data_all_below_float32",
        "data",
        "E_SCALE E_NO_SIGNAL",
        files_of(lambda v: 1e-303 * v.values.astype(np.float64), code="f8"),
    ),
]

CASES = type_cases() + SHAPES + DATA
