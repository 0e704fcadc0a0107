"""What the reader makes of seeded damage and of NIfTI in all its kinds; tests/torture has broken files."""

import gzip
import importlib.util
import pickle
from pathlib import Path
from types import ModuleType

import nibabel
import numpy as np
import pytest
from hmf_networks.nifti.codes import ERRORS, VolumeError
from hmf_networks.nifti.read import examine, read_header, read_volume
from torture.case import Volume, simulated_head
from torture.craft import header, nifti, pair

NUM_MUTATIONS = 2000


@pytest.fixture(scope="module")
def volume() -> Volume:
    return simulated_head()


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "fuzz.py"
    spec = importlib.util.spec_from_file_location("fuzz", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_damaged_headers_and_streams_raise_nothing_but_the_readers_own_error(fuzz, tmp_path):
    rng = np.random.default_rng(20)
    files, outcomes = fuzz.seeds(rng), set()
    for number in range(NUM_MUTATIONS):
        content = files[number % len(files)]
        if number % 2:
            content = fuzz.damaged(gzip.compress(content, 1), rng, len(content))
        else:
            content = fuzz.damaged(content, rng, 600)
        path = tmp_path / ("a.nii.gz" if number % 2 else "a.nii")
        path.write_bytes(content)
        try:
            read = examine(path)
        except VolumeError as error:
            outcomes.add(error.code)
        else:
            assert np.isfinite(read.values).all(), number
            assert np.isfinite(read.header.affine).all(), number
            outcomes.add("used")
    assert len(outcomes) > 8  # the damage is of many kinds
    assert outcomes <= {"used", *ERRORS}


KINDS = {
    "as it is": {},
    "big-endian": {"order": ">"},
    "NIfTI-2": {"version": 2},
    "NIfTI-2, big-endian, short": {"version": 2, "order": ">", "code": "i2"},
    "scaled": {"code": "i2", "scl_slope": 0.25, "scl_inter": -17.5},
    "negative slope": {"code": "u2", "scl_slope": -2.0, "scl_inter": 300.0},
    "slope zero": {"code": "i2", "scl_slope": 0.0, "scl_inter": 5.0},
    "double, scaled": {"code": "f8", "scl_slope": 1e-3},
    "64 bits": {"code": "i8", "scl_slope": 3.0},
    "qform alone": {"sform_code": 0},
    "left-handed": {"sform_code": 0, "pixdim": [-1, 1, 1, 1.25, 0, 0, 0, 0]},
}


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("fields", KINDS.values(), ids=KINDS)
def test_nifti_of_every_kind_is_read_as_nibabel_reads_it(volume, tmp_path, fields, packed):
    content = nifti(volume, **fields)
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")
    path.write_bytes(gzip.compress(content) if packed else content)
    image = nibabel.load(path)
    values, affine = read_volume(path)
    np.testing.assert_allclose(values, image.get_fdata(), rtol=1e-6)
    np.testing.assert_allclose(affine, image.affine, atol=1e-5)


@pytest.mark.parametrize("given", ["a.hdr", "a.img"])
@pytest.mark.parametrize("version", [1, 2])
def test_of_a_pair_either_file_may_be_given(volume, tmp_path, given, version):
    contents = pair(volume, code="i2", order=">", version=version, scl_slope=0.5, scl_inter=3)
    for suffix, content in zip(("hdr", "img"), contents, strict=True):
        (tmp_path / f"a.{suffix}").write_bytes(content)
    image = nibabel.load(tmp_path / "a.hdr")
    values, affine = read_volume(tmp_path / given)
    np.testing.assert_array_equal(values, image.get_fdata())
    np.testing.assert_allclose(affine, image.affine, atol=1e-5)


@pytest.mark.parametrize(("code", "factor"), [(1, 1000.0), (3, 0.001)], ids=["metres", "micrometres"])
def test_other_units_are_converted_to_millimetres(volume, tmp_path, code, factor):
    stored = np.diag([*[1 / factor] * 3, 1.0]) @ volume.affine
    (tmp_path / "a.nii").write_bytes(nifti(volume, affine=stored, xyzt_units=code))
    read = examine(tmp_path / "a.nii")
    np.testing.assert_allclose(read.header.affine, volume.affine, rtol=1e-5, atol=1e-4)
    assert [(warned.code, "converted" in warned.problem) for warned in read.warnings] == [("W_UNITS", True)]


def test_millimetres_that_are_called_metres_are_not_converted(volume, tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti(volume, xyzt_units=1))
    read = examine(tmp_path / "a.nii")
    np.testing.assert_allclose(read.header.affine, volume.affine, atol=1e-5)
    assert [warned.code for warned in read.warnings] == ["W_UNITS"]


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_of_several_volumes_the_one_that_is_named_is_read(volume, tmp_path, name):
    several = np.stack([volume.values * factor for factor in (1, 2, 3)], axis=-1)
    content = nifti(volume, values=several, code="f8", order=">")
    (tmp_path / name).write_bytes(gzip.compress(content, 1) if name.endswith("gz") else content)
    for number, factor in enumerate((1, 2, 3)):
        values, affine = read_volume(tmp_path / name, volume=number)
        np.testing.assert_array_equal(values, volume.values * factor)
        np.testing.assert_allclose(affine, volume.affine, atol=1e-5)
    with pytest.raises(VolumeError, match=r"^E_4D .*3 volumes in one file; say which with --volume"):
        read_volume(tmp_path / name)
    for number in (3, -1):
        with pytest.raises(VolumeError, match=rf"^E_4D .*no volume {number}: there are 0 to 2"):
            read_volume(tmp_path / name, volume=number)


def test_of_one_volume_any_number_is_that_one(volume, tmp_path):
    """With --volume 2 the contrasts that are 3-D need not be named apart."""
    (tmp_path / "a.nii").write_bytes(nifti(volume))
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii", volume=2)[0], volume.values)


def test_a_volume_that_may_be_read_has_a_header_that_may_be_read(volume, tmp_path):
    """Its user may have raised max_voxels; outputs take their geometry from the header alone."""
    (tmp_path / "a.nii").write_bytes(header((1024, 1024, 512), volume.affine) + bytes(4))
    assert read_header(tmp_path / "a.nii").shape == (1024, 1024, 512)
    with pytest.raises(VolumeError, match=r"^E_TOO_LARGE .*more than max_voxels, 268435456"):
        read_volume(tmp_path / "a.nii")
    with pytest.raises(VolumeError, match=r"^E_TRUNCATED"):
        read_volume(tmp_path / "a.nii", max_voxels=2**30)


def test_the_largest_number_of_voxels_is_inclusive(volume, tmp_path):
    (tmp_path / "a.nii").write_bytes(nifti(volume))
    size = volume.values.size
    assert read_volume(tmp_path / "a.nii", max_voxels=size)[0].size == size
    with pytest.raises(VolumeError, match=r"^E_TOO_LARGE"):
        read_volume(tmp_path / "a.nii", max_voxels=size - 1)


@pytest.mark.parametrize("cure", [None, "turn it round"])
def test_an_error_survives_the_way_from_a_worker(cure):
    error = VolumeError("E_DIM", "/a/b.nii", "an image of 3 x 4", cure)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is VolumeError
    assert str(copy) == str(error)
    assert (copy.code, copy.path, copy.problem, copy.cure) == (
        "E_DIM",
        "/a/b.nii",
        "an image of 3 x 4",
        cure or ERRORS["E_DIM"].cure,
    )


def test_a_flipped_bit_in_a_gzip_stream_is_never_read_as_a_volume(volume, tmp_path):
    whole = gzip.compress(nifti(volume), 6, mtime=0)
    rng = np.random.default_rng(0)
    for place in rng.integers(10, len(whole), 60):
        content = bytearray(whole)
        content[place] ^= 1 << rng.integers(8)
        (tmp_path / "a.nii.gz").write_bytes(content)
        with pytest.raises(VolumeError):
            read_volume(tmp_path / "a.nii.gz")
