"""`hmf check`: every file and subject is named with what is wrong with it, and nothing is changed."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hmf_networks.cli import main
from hmf_networks.data.check import check_path, summary


@pytest.fixture
def folder(simulated, tmp_path) -> Path:
    shutil.copytree(simulated, tmp_path / "in")
    return tmp_path / "in"


def scans(folder: Path, number: int, ending: str) -> Path:
    return next(folder.glob(f"*{number:05d}-000/*-{ending}.nii.gz"))


def verdicts(report: dict) -> dict[str, tuple[str, list[str]]]:
    return {entry["subject"]: (entry["verdict"], entry["codes"]) for entry in report["subjects"]}


def test_a_good_folder_is_accepted_whole(folder):
    report = check_path(folder)
    assert {entry["verdict"] for entries in report.values() for entry in entries} == {"accept"}
    assert len(report["subjects"]) == 4
    assert all(set(entry["contrasts"]) >= {"t1", "t2", "flair", "label"} for entry in report["subjects"])
    assert {entry["path"] for entry in report["files"]} == {
        path.relative_to(folder).as_posix() for path in folder.rglob("*.nii.gz")
    }


def test_each_fault_is_named_where_it_is(folder):
    broken = scans(folder, 1, "t1n")
    broken.write_bytes(broken.read_bytes()[:-200])
    moved = nibabel.load(scans(folder, 2, "t2f"))
    moved.affine[0, 3] += 3
    nibabel.Nifti1Image(np.asarray(moved.dataobj), moved.affine).to_filename(scans(folder, 2, "t2f"))
    shutil.copy(scans(folder, 4, "t2w"), scans(folder, 3, "t2w"))
    (folder / "notes.mgz").write_bytes(b"\0\0\0\1" + bytes(400))
    report = check_path(folder)
    rejected = {e["path"].rpartition("/")[2]: e["codes"] for e in report["files"] if e["verdict"] == "reject"}
    assert rejected == {broken.name: ["E_TRUNCATED"], "notes.mgz": ["E_NOT_NIFTI"]}
    found = verdicts(report)
    assert found["BraTS-SIM-00002_000"] == ("reject", ["E_GRID"])
    assert found["BraTS-SIM-00001_000"] == ("reject", ["E_TRUNCATED"])
    assert "E_DUPLICATE" in found["BraTS-SIM-00003_000"][1]
    assert "E_DUPLICATE" in found["BraTS-SIM-00004_000"][1]
    assert "BraTS-SIM-00002_000: E_GRID flair: its corners lie up to 3.00 mm from those of t1" in summary(report)


def test_a_patient_in_two_parts_is_a_leak_by_name_and_by_voxels(folder, tmp_path):
    parts = {
        "training": [{"patient": "anna", "t1": str(scans(folder, 1, "t1n"))}],
        "testing": [
            {"patient": "anna", "session": "2", "t1": str(scans(folder, 2, "t1n"))},
            {"patient": "bert", "t1": str(scans(folder, 3, "t1n"))},
            {"patient": "copy", "t1": str(scans(folder, 1, "t1n"))},
        ],
    }
    (tmp_path / "list.json").write_text(json.dumps(parts))
    found = verdicts(check_path(tmp_path / "list.json"))
    leaks = {subject for subject, (_, codes) in found.items() if "E_LEAK" in codes}
    assert leaks == {"anna", "anna_2", "copy"}
    assert found["bert"] == ("accept", [])


def test_a_contrast_in_two_files_is_named(folder):
    path = scans(folder, 1, "t1n")
    nibabel.load(path).to_filename(path.with_suffix(""))
    assert verdicts(check_path(folder))["BraTS-SIM-00001_000"] == ("reject", ["E_AMBIGUOUS"])


def test_names_that_differ_in_case_alone_are_told(folder):
    scan = scans(folder, 1, "t1n")
    other = folder / "other"
    other.mkdir()
    values = nibabel.load(scan)
    changed = nibabel.Nifti1Image(np.asarray(values.dataobj)[::-1], values.affine)
    changed.to_filename(other / scan.name.replace("BraTS-SIM", "brats-sim"))
    found = verdicts(check_path(folder))
    assert "W_NAME" in found["BraTS-SIM-00001_000"][1]
    assert "W_NAME" in found["brats-sim-00001_000"][1]


def test_a_spelling_of_the_path_changes_no_verdict(folder, monkeypatch):
    (folder.parent / "link").symlink_to(folder)
    monkeypatch.chdir(folder.parent)
    label = scans(folder, 1, "seg")
    healthy = np.zeros(nibabel.load(label).shape, np.uint8)
    nibabel.Nifti1Image(healthy, nibabel.load(label).affine).to_filename(label)
    report = check_path(folder)
    assert {entry["verdict"] for entries in report.values() for entry in entries} == {"accept"}
    assert check_path(folder.name) == check_path("link") == report


def test_files_of_no_subject_are_counted(folder):
    shutil.copy(scans(folder, 1, "t1n"), folder / "scan (copy).nii.gz")
    assert "1 of the files belong to no subject by their names, e.g. scan (copy).nii.gz" in summary(check_path(folder))


def test_nothing_is_changed(folder):
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    check_path(folder)
    after = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}
    assert before == after


def test_the_exit_code_tells_and_json_is_all_that_is_printed(folder, capsys, caplog):
    with caplog.at_level("INFO"):
        assert main(["check", str(folder), "--json"]) == 0
    assert len(json.loads(caplog.messages[-1])["files"]) == len(list(folder.rglob("*.nii.gz")))
    scans(folder, 1, "t1n").write_bytes(b"")
    assert main(["check", str(folder)]) == 2
    assert main(["check", str(scans(folder, 1, "t1n"))]) == 2
    assert main(["check", str(scans(folder, 2, "t1n"))]) == 0
    (folder / "empty").mkdir()
    assert main(["check", str(folder / "empty")]) == 1
    assert main(["check", str(folder / "absent")]) == 1
    assert "does not exist" in capsys.readouterr().err


def test_files_that_fit_no_layout_are_judged_one_by_one(tmp_path, write_nifti):
    values = np.random.default_rng(0).random((5, 6, 7))
    write_nifti("scan.nii.gz", values)
    write_nifti("other.nii", np.zeros((5, 6, 7)))
    report = check_path(tmp_path)
    assert report["subjects"] == []
    assert {entry["path"]: entry["codes"] for entry in report["files"]} == {
        "other.nii": ["E_NO_SIGNAL"],
        "scan.nii.gz": [],
    }
