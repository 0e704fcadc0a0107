"""Our reader gives every case of the torture set its verdict; docs/reliability.md explains all it says."""

import gzip
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hmf_networks.nifti.codes import ERRORS, WARNINGS, VolumeError
from hmf_networks.nifti.read import Volume, examine

from torture.case import PATIENT, passes, simulated_head, write_files
from torture.craft import nifti, raw
from torture.ours import CASES as OURS
from torture.stranger import CASES as STRANGE

CASES = {case.name: case for case in STRANGE + OURS}
DOCS = Path(__file__).parents[2] / "docs" / "reliability.md"
MOST_BYTES_FOR_A_BOMB = 200e6
# Without the one that is a gigabyte of addresses and never written to: tracemalloc counts those.
REFUSED_BOMBS = [
    case
    for case in CASES.values()
    if case.kind == "bomb" and case.verdict == "reject" and case.name != "bomb_whole_zeros_u1"
]


def judged(path: Path) -> tuple[Volume | None, list[str], str]:
    """The volume if it is used, the codes, and all that is said."""
    try:
        read = examine(path)
    except VolumeError as error:
        return None, [error.code], str(error)
    return read, [warned.code for warned in read.warnings], " ".join(w.problem for w in read.warnings)


def test_no_two_cases_share_a_name():
    assert len(CASES) == len(STRANGE) + len(OURS)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_case_gets_its_verdict_and_its_values(case, tmp_path):
    head = simulated_head()
    read, codes, text = judged(write_files(case, head, tmp_path))
    assert passes(case, used=read is not None, codes=codes), text
    assert PATIENT.decode() not in text
    if read is None:
        return
    values, affine = case.expected(head)
    finite = np.isfinite(values)
    largest = np.abs(values[finite]).max()
    np.testing.assert_allclose(read.values[finite] / largest, values[finite] / largest, rtol=0, atol=1e-5)
    if affine is not None:
        np.testing.assert_allclose(read.header.affine, affine, rtol=0, atol=1e-4)


@pytest.mark.parametrize("case", REFUSED_BOMBS, ids=lambda case: case.name)
def test_a_refused_bomb_takes_little_memory(case, tmp_path):
    path = write_files(case, simulated_head(), tmp_path)
    tracemalloc.start()
    judged(path)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < MOST_BYTES_FOR_A_BOMB


@pytest.mark.parametrize(("name", "code"), [("scan.nii", "E_TOO_LARGE"), ("scan.nii.gz", "W_TRAILING")])
def test_a_terabyte_of_nothing_behind_a_file_is_not_read(name, code, tmp_path):
    content = nifti(simulated_head())
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    os.truncate(path, 1 << 40)  # a hole: it takes no place on the disk
    assert judged(path)[1] == [code]


def test_max_voxels_counts_the_volume_that_is_read(tmp_path):
    head = simulated_head()
    path = tmp_path / "scan.nii"
    path.write_bytes(nifti(head, data=raw(head.values) + raw(head.values[::-1]), dim=[4, 20, 24, 18, 2, 1, 1, 1]))
    read = examine(path, volume=1, max_voxels=head.values.size)
    np.testing.assert_array_equal(read.values, head.values[::-1])
    with pytest.raises(VolumeError, match="E_TOO_LARGE"):
        examine(path, volume=1, max_voxels=head.values.size - 1)


def test_the_docs_explain_every_code():
    text = DOCS.read_text()
    rows = [f"| `{code}` | {fault.meaning} | {fault.cure} |" for code, fault in ERRORS.items()]
    rows += [f"| `{code}` | {meaning} |" for code, meaning in WARNINGS.items()]
    assert [row for row in rows if row not in text] == []
