import gzip
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.nifti.read import read_volume
from hmf_networks.nifti.write import write_volume_like
from nibabel.nifti1 import Nifti1Extension

SHAPE = (5, 6, 7)
GEOMETRY = ("pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z")
GEOMETRY += tuple(f"quatern_{letter}" for letter in "bcd") + tuple(f"qoffset_{letter}" for letter in "xyz")
TEXTS = ("descrip", "aux_file", "intent_name", "db_name")
OBLIQUE = {"srow_x": [0.9, -0.11, 0.023, -31.7], "srow_y": [0.1, 0.87, -0.31, 12.3], "srow_z": [-0.02, 0.3, 1.1, 4.56]}
ROTATED = {"quatern_b": 0.1, "quatern_c": -0.23, "quatern_d": 0.31, "qoffset_x": -90.123, "qoffset_z": 7.7}
REFERENCES = {
    "q only": {"qform_code": 1, **ROTATED},
    "s only": {"sform_code": 1, **OBLIQUE},
    "both, and they disagree": {"qform_code": 1, "sform_code": 4, **ROTATED, **OBLIQUE},
    "neither": {"pixdim": [1, 0.7, 0.8, 3.3, 0, 0, 0, 0]},
    "left-handed": {"qform_code": 2, "pixdim": [-1, 0.5, 0.6, 5, 0, 0, 0, 0], **ROTATED},
    "pixdim[0] left at 0": {"qform_code": 1, "pixdim": [0, 1, 1, 2, 0, 0, 0, 0], **ROTATED},
    "time step and units": {"sform_code": 1, "pixdim": [1, 1, 1, 2, 2.5, 3, 0, 0], "xyzt_units": 17, **OBLIQUE},
}


def reference_file(path: Path, *, cls=nibabel.Nifti1Image, shape=SHAPE, dtype=np.float32, **fields) -> Path:
    """A NIfTI file whose header fields are exactly these, whether or not they make sense together."""
    values = (np.random.default_rng(0).random(shape) * 100).astype(dtype)
    image = cls(values, None)
    image.header["qform_code"] = image.header["sform_code"] = 0
    for name, value in fields.items():
        image.header[name] = value
    path.write_bytes(gzip.compress(image.to_bytes()) if path.suffix == ".gz" else image.to_bytes())
    return path


def raw_header(path: Path) -> nibabel.Nifti1Header:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    cls = nibabel.Nifti2Header if content[:1] == b"\x1c" else nibabel.Nifti1Header  # 540 = 0x021c
    return cls(content[: cls.template_dtype.itemsize], check=False)


def differing_fields(path: Path, other: Path) -> list[str]:
    one, two = raw_header(path), raw_header(other)
    return [name for name in GEOMETRY if one[name].tobytes() != two[name].tobytes()]


@pytest.mark.parametrize("cls", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("fields", REFERENCES.values(), ids=REFERENCES)
def test_the_geometry_fields_of_the_reference_are_written_bit_for_bit(tmp_path, cls, fields):
    reference = reference_file(tmp_path / "t1.nii.gz", cls=cls, **fields)
    write_volume_like(reference, np.ones(SHAPE), tmp_path / "t2.nii.gz")
    assert differing_fields(reference, tmp_path / "t2.nii.gz") == []
    assert type(raw_header(tmp_path / "t2.nii.gz")) is type(raw_header(reference))


@pytest.mark.parametrize("fields", REFERENCES.values(), ids=REFERENCES)
def test_a_viewer_finds_the_output_where_it_finds_the_reference(tmp_path, fields):
    reference = reference_file(tmp_path / "t1.nii", **fields)
    write_volume_like(reference, np.ones(SHAPE), tmp_path / "t2.nii")
    np.testing.assert_array_equal(nibabel.load(tmp_path / "t2.nii").affine, nibabel.load(reference).affine)


@pytest.mark.parametrize("name", ["t2.nii", "t2.nii.gz"])
def test_written_values_come_back_although_the_reference_holds_scaled_integers(tmp_path, name):
    reference = reference_file(tmp_path / "t1.nii", dtype=np.int16, scl_slope=0.37, scl_inter=-12)
    values = np.random.default_rng(1).random(SHAPE).astype(np.float32) * 1000
    write_volume_like(reference, values, tmp_path / name)
    written, _ = read_volume(tmp_path / name)
    np.testing.assert_array_equal(written, values)


def test_scaled_integers_are_read_in_their_real_units(tmp_path):
    path = reference_file(tmp_path / "t1.nii", dtype=np.int16, scl_slope=0.5, scl_inter=-3)
    stored = (np.random.default_rng(0).random(SHAPE) * 100).astype(np.int16)
    np.testing.assert_allclose(read_volume(path)[0], stored * 0.5 - 3)


def test_four_axes_with_one_volume_count_as_three_and_give_three(tmp_path):
    reference = reference_file(tmp_path / "t1.nii", shape=(*SHAPE, 1), qform_code=1, **ROTATED)
    values, _ = read_volume(reference)
    write_volume_like(reference, values, tmp_path / "t2.nii")
    assert nibabel.load(tmp_path / "t2.nii").shape == SHAPE
    assert differing_fields(reference, tmp_path / "t2.nii") == []


def test_the_same_volume_gives_the_same_bytes_without_time_or_name(tmp_path):
    reference = reference_file(tmp_path / "t1.nii.gz")
    values = np.random.default_rng(1).random(SHAPE)
    write_volume_like(reference, values, tmp_path / "t2.nii.gz")
    write_volume_like(reference, values, tmp_path / "other" / "name.nii.gz")
    content = (tmp_path / "t2.nii.gz").read_bytes()
    assert content == (tmp_path / "other" / "name.nii.gz").read_bytes()
    assert content[3] & 0b1000 == 0  # gzip: no file name
    assert content[4:8] == bytes(4)  # gzip: no time


@pytest.mark.parametrize("cls", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_no_text_of_the_reference_survives(tmp_path, cls):
    image = cls(np.ones(SHAPE, np.float32), np.eye(4))
    for field in (name for name in TEXTS if name in image.header):
        image.header[field] = b"Doe^Jane"
    image.header.extensions.append(Nifti1Extension("comment", b"Doe^Jane"))
    (tmp_path / "t1.nii").write_bytes(image.to_bytes())
    assert (tmp_path / "t1.nii").read_bytes().count(b"Doe^Jane") >= 4
    write_volume_like(tmp_path / "t1.nii", np.ones(SHAPE), tmp_path / "t2.nii")
    assert b"Doe" not in (tmp_path / "t2.nii").read_bytes()


@pytest.mark.parametrize("shape", [(6, 5, 7), (5, 6), (*SHAPE, 1)])
def test_values_of_another_shape_are_refused_and_nothing_is_written(tmp_path, shape):
    reference = reference_file(tmp_path / "t1.nii")
    with pytest.raises(ValueError, match=r"t2\.nii: shape .* is not that of"):
        write_volume_like(reference, np.ones(shape), tmp_path / "t2.nii")
    assert os.listdir(tmp_path) == ["t1.nii"]  # noqa: PTH208


def test_a_failed_write_leaves_the_old_file_and_no_part_of_a_new_one(tmp_path, monkeypatch):
    reference = reference_file(tmp_path / "t1.nii")
    (tmp_path / "t2.nii").write_text("the old file")

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_volume_like(reference, np.ones(SHAPE), tmp_path / "t2.nii")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["t1.nii", "t2.nii"]
    assert (tmp_path / "t2.nii").read_text() == "the old file"


def volume_bytes(values: np.ndarray) -> bytes:
    return nibabel.Nifti1Image(values, np.eye(4)).to_bytes()


NOISE = np.random.default_rng(0).random((20, 20, 20)).astype(np.float32)
UNKNOWN_TYPE = volume_bytes(NOISE)[:70] + b"\x0f\x27" + volume_bytes(NOISE)[72:]
COLOURS = np.zeros((4, 4, 4), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
UNUSABLE = {
    "text": ("E_NOT_NIFTI", "a.nii", b"hello"),
    "nothing": ("E_EMPTY", "a.nii.gz", b""),
    "unknown data type": ("E_DTYPE", "a.nii", UNKNOWN_TYPE),
    "two volumes": ("E_4D", "a.nii", volume_bytes(np.ones((4, 4, 4, 2), np.float32))),
    "one slice": ("E_DIM", "a.nii", volume_bytes(np.ones((4, 4), np.float32))),
    "five axes": ("E_DIM", "a.nii", volume_bytes(np.ones((4, 4, 4, 1, 2), np.float32))),
    "colours": ("E_DTYPE", "a.nii", volume_bytes(COLOURS)),
    "complex": ("E_DTYPE", "a.nii", volume_bytes(NOISE.astype(np.complex64))),
    "cut": ("E_TRUNCATED", "a.nii", volume_bytes(NOISE)[:20000]),
    "cut, gzip": ("E_TRUNCATED", "a.nii.gz", gzip.compress(volume_bytes(NOISE))[:20000]),
    "constant": ("E_NO_SIGNAL", "a.nii", volume_bytes(np.full((4, 4, 4), 7, np.float32))),
    "only NaN": ("E_NO_SIGNAL", "a.nii", volume_bytes(np.full((4, 4, 4), np.nan, np.float32))),
}


@pytest.mark.parametrize(("code", "name", "content"), UNUSABLE.values(), ids=UNUSABLE)
def test_a_file_that_cannot_be_used_is_named_with_a_code(tmp_path, code, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(VolumeError) as caught:
        read_volume(path)
    assert caught.value.code == code
    assert str(caught.value).startswith(f"{code} {path}: ")


def test_a_missing_file_and_another_format_are_named_with_a_code(tmp_path):
    with pytest.raises(VolumeError, match=r"^E_MISSING .*absent\.nii: "):
        read_volume(tmp_path / "absent.nii")
    nibabel.MGHImage(NOISE, np.eye(4)).to_filename(tmp_path / "a.mgz")
    with pytest.raises(VolumeError, match=r"^E_NOT_NIFTI .*a\.mgz: not a NIfTI volume but MGH"):
        read_volume(tmp_path / "a.mgz")


def test_voxels_that_are_not_finite_become_zero_with_a_warning(tmp_path, caplog):
    values = NOISE.copy()
    values[0, 0, :3] = [np.nan, np.inf, -np.inf]
    (tmp_path / "a.nii").write_bytes(volume_bytes(values))
    read, _ = read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(read[0, 0, :3], 0)
    np.testing.assert_array_equal(read[1:], values[1:])
    assert f"W_NONFINITE {tmp_path / 'a.nii'}: 3 voxels" in caplog.text
