"""Each case is what it claims to be, by nibabel and zlib alone: no reader of this house is asked."""

import gzip
import io
import zlib

import nibabel
import numpy as np
import pytest
from nibabel.fileholders import FileHolder

from torture.case import ERRORS, KINDS, PATIENT, WARNINGS, Case, Volume, passes, simulated_head, write_files
from torture.craft import ZEROS_PER_CHUNK, member_with_zeros, orientations
from torture.stranger import CASES

USED = [case for case in CASES if case.verdict != "reject"]
MOST_BYTES = 5 << 20


@pytest.fixture(scope="module")
def volume() -> Volume:
    return simulated_head()


def gunzipped(stream: bytes) -> tuple[bytes, bytes]:
    """What the members hold, and what follows the last one."""
    found = b""
    while stream[:2] == b"\x1f\x8b":
        member = zlib.decompressobj(16 + zlib.MAX_WBITS)
        found += member.decompress(stream)
        assert member.eof
        stream = member.unused_data
    return found, stream


def opened(case: Case, volume: Volume) -> nibabel.Nifti1Image:
    """The image by nibabel, whatever the names say."""
    files = {name: gunzipped(data)[0] or data for name, data in case.files(volume).items() if data is not None}
    pair = sorted(data for name, data in files.items() if ".hdr" in name.lower()[-7:])
    head = (pair or [next(data for data in files.values() if data)])[0]
    size = int.from_bytes(head[:4], "little")
    second = size in (540, int.from_bytes((540).to_bytes(4, "big"), "little"))
    if not pair:
        kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
        return kind.from_bytes(head)
    kind = nibabel.Nifti2Pair if second else nibabel.Nifti1Pair
    image = next(data for name, data in files.items() if ".img" in name.lower())
    holders = {"header": FileHolder(fileobj=io.BytesIO(head)), "image": FileHolder(fileobj=io.BytesIO(image))}
    return kind.from_file_map(holders)


def test_names_are_unique_and_all_codes_occur():
    assert len({case.name for case in CASES}) == len(CASES)
    assert {case.kind for case in CASES} == set(KINDS)
    assert frozenset().union(*(case.codes for case in CASES)) == ERRORS | WARNINGS


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_codes_fit_the_verdict(case):
    allowed = {"accept": frozenset(), "warn": WARNINGS, "reject": ERRORS}[case.verdict]
    assert case.codes <= allowed
    assert bool(case.codes) == (case.verdict != "accept")


def test_verdicts_are_judged_as_written():
    good, odd, bad = (next(case for case in CASES if case.verdict == v) for v in ("accept", "warn", "reject"))
    assert passes(good, used=True, codes=[])
    assert not passes(good, used=True, codes=["W_EXT"])
    assert passes(odd, used=True, codes=odd.codes)
    assert not passes(odd, used=True, codes=[])
    assert passes(bad, used=False, codes=[min(bad.codes)])
    assert not passes(bad, used=True, codes=[min(bad.codes)])


@pytest.mark.parametrize("case", USED, ids=lambda case: case.name)
def test_nibabel_reads_what_is_expected(case, volume):
    image = opened(case, volume)
    values, affine = case.expected(volume)
    found = np.asarray(image.dataobj).reshape(values.shape)
    assert all(n == 1 for n in image.shape[3:])
    finite = np.isfinite(values)
    np.testing.assert_array_equal(np.isfinite(found), finite)
    largest = np.abs(values[finite]).max()
    np.testing.assert_allclose(found[finite] / largest, values[finite] / largest, atol=1e-6)
    if affine is not None:
        np.testing.assert_allclose(image.affine, affine, atol=1e-4)


@pytest.mark.parametrize("case", [case for case in CASES if case.kind == "bomb"], ids=lambda case: case.name)
def test_a_bomb_is_small(case, volume):
    assert sum(len(data) for data in case.files(volume).values()) < MOST_BYTES


@pytest.mark.parametrize("case", [c for c in CASES if c.kind == "privacy"], ids=lambda case: case.name)
def test_the_name_is_planted(case, volume):
    stored = list(case.files(volume).values())
    assert any(PATIENT in data or PATIENT in unzipped_anyhow(data) for data in stored)


def test_zeros_strung_together_are_a_whole_gzip_member():
    assert gzip.decompress(member_with_zeros(b"head", 2)) == b"head" + bytes(2 * ZEROS_PER_CHUNK)


def unzipped_anyhow(data: bytes) -> bytes:
    return gunzipped(data)[0] if data[-4:] != b"\0\0\0\0" else b""


@pytest.mark.parametrize("case", [c for c in CASES if c.codes == {"E_CORRUPT"}], ids=lambda case: case.name)
def test_a_corrupt_stream_is_not_just_short(case, volume):
    *_, stream = case.files(volume).values()
    with pytest.raises((zlib.error, gzip.BadGzipFile)):
        gzip.decompress(stream)


@pytest.mark.parametrize("case", [c for c in CASES if c.codes == {"E_TRUNCATED"}], ids=lambda case: case.name)
def test_a_truncated_file_is_short(case, volume):
    lengths = [whole_length(stream) for stream in case.files(volume).values()]
    assert sum(lengths) < 352 + volume.values.nbytes


def whole_length(stream: bytes) -> int:
    """Bytes there are to read; a gzip stream without its end counts as none."""
    try:
        return len(gzip.decompress(stream)) if stream[:1] == b"\x1f" else len(stream)
    except EOFError:
        return 0


def test_orientations_are_48_and_hold_the_same_head(volume):
    found = orientations(volume)
    assert len({letters for letters, _, _ in found}) == 48
    for _, values, affine in found:
        image = nibabel.as_closest_canonical(nibabel.Nifti1Image(values, affine))
        np.testing.assert_array_equal(np.asarray(image.dataobj), volume.values)
        np.testing.assert_allclose(image.affine, volume.affine)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_name_can_be_written(case, volume, tmp_path):
    path = write_files(case, volume, tmp_path)
    content = next(iter(case.files(volume).values()))
    assert path.exists() == (content is not None)
