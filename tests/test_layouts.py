"""Layouts: every naming of a folder gives the same kind of record. The files are empty; names decide."""

import errno
import logging
import os
import subprocess
import sys

import pytest
from hmf_networks.data.folder import find_subjects
from hmf_networks.naming import subject_name
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.transforms.load import LoadContrastsd

IXI = [f"IXI{number}-Guys-0828-{contrast}.nii.gz" for number in ("002", "012") for contrast in ("T1", "T2", "PD")]

# id: (files, layout, subjects, contrasts of the first)
FOLDERS = {
    "brats20": (
        [f"BraTS20_Training_001/BraTS20_Training_001_{c}.nii.gz" for c in ("t1", "t1ce", "t2", "flair", "seg")],
        "brats",
        ["BraTS20_Training_001"],
        {"t1", "t1c", "t2", "flair", "label"},
    ),
    "brats23": (
        [
            f"train/BraTS-GLI-00001-{time}/BraTS-GLI-00001-{time}-{c}.nii.gz"
            for time in ("000", "001")
            for c in ("t1n", "t1c", "t2w", "t2f", "seg")
        ],
        "brats",
        ["BraTS-GLI-00001_000", "BraTS-GLI-00001_001"],
        {"t1", "t1c", "t2", "flair", "label"},
    ),
    "own-flat": (
        ["002_t1.nii", "001_T1.NII.GZ", "001_pd.nii.gz", "002_pd.nii.gz"],
        "brats",
        ["001", "002"],
        {"t1", "pd"},
    ),
    "ixi-flat": (IXI, "ixi", ["IXI002", "IXI012"], {"t1", "t2", "pd"}),
    "ixi-folders": ([f"IXI-{n[-9:-7]}/{n}" for n in IXI], "ixi", ["IXI002", "IXI012"], {"t1", "t2", "pd"}),
    "bids": (
        [
            *(f"sub-01/anat/sub-01_{c}.nii.gz" for c in ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR", "PDw")),
            "sub-01/anat/sub-01_desc-synth_T2w.nii.gz",
            "sub-01/func/sub-01_task-rest_bold.nii.gz",
            "derivatives/fmriprep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz",
            "derivatives/lesions/sub-01/anat/sub-01_label-lesion_mask.nii.gz",
            "derivatives/lesions/sub-01/anat/sub-01_dseg.nii.gz",
        ],
        "bids",
        ["01"],
        {"t1", "t1c", "t2", "flair", "pd", "label"},
    ),
    "bids-sessions": (
        [f"sub-{s}/ses-{t}/anat/sub-{s}_ses-{t}_acq-3d_T1w.nii.gz" for s in ("a", "b") for t in ("1", "2")],
        "bids",
        ["a_1", "a_2", "b_1", "b_2"],
        {"t1"},
    ),
}


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.fixture(params=FOLDERS, name="folder")
def folder_of_each_layout(request, tmp_path):
    files, layout, subjects, contrasts = FOLDERS[request.param]
    touch(tmp_path, *files)
    return tmp_path, layout, subjects, contrasts


def test_a_folder_is_recognised_by_its_names_alone(folder):
    root, layout, subjects, contrasts = folder
    records = find_subjects(root, ["t1"])
    assert [subject_name(record) for record in records] == subjects
    assert {record["layout"] for record in records} == {layout}
    assert set(records[0]) == {"patient", "session", "layout"} | contrasts


def test_the_layout_that_auto_picks_can_be_named(folder):
    root, layout, *_ = folder
    assert find_subjects(root, ["t1"], layout=layout) == find_subjects(root, ["t1"])


def test_the_paths_of_a_record_are_absolute_files_of_its_own_patient(folder):
    root, *_ = folder
    for record in find_subjects(root, []):
        for path in set(record.values()) - {record["patient"], record["session"], record["layout"]}:
            assert (root / path).is_file()
            assert path.startswith("/")
            assert record["patient"] in path.rpartition("/")[2]


@pytest.mark.parametrize(
    ("ending", "contrast"),
    [
        ("_t1", "t1"),
        ("_t1ce", "t1c"),
        ("_t2", "t2"),
        ("_FLAIR", "flair"),
        ("_pd", "pd"),
        ("_seg", "label"),
        ("-t1n", "t1"),
        ("-t1c", "t1c"),
        ("-t2w", "t2"),
        ("-t2f", "flair"),
        ("-seg", "label"),
    ],
)
def test_a_brats_ending_names_the_contrast(tmp_path, ending, contrast):
    touch(tmp_path, "x_t1gd.nii.gz" if contrast != "t1c" else "x_t1.nii.gz", f"x{ending}.nii.gz")
    (record,) = find_subjects(tmp_path, [])
    assert record[contrast] == str(tmp_path / f"x{ending}.nii.gz")


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (["run-10_T1w", "run-2_T1w"], "run-2_T1w"),
        (["acq-fast_T1w", "T1w"], "T1w"),
        (["acq-a_run-1_T1w", "run-2_T1w"], "run-2_T1w"),
    ],
)
def test_of_several_runs_the_plainest_and_lowest_is_taken_and_the_others_named(tmp_path, caplog, names, taken):
    touch(tmp_path, *(f"sub-01/anat/sub-01_{name}.nii.gz" for name in names))
    (record,) = find_subjects(tmp_path, ["t1"])
    assert record["t1"] == str(tmp_path / f"sub-01/anat/sub-01_{taken}.nii.gz")
    (message,) = caplog.messages
    assert all(name in message for name in names)


def test_a_bids_file_in_the_folder_of_another_subject_is_left_out_and_named(tmp_path, caplog):
    touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-02_T2w.nii.gz")
    (record,) = find_subjects(tmp_path, ["t1"])
    assert "t2" not in record
    assert "sub-02_T2w.nii.gz" in caplog.text


def test_our_own_outputs_and_hidden_files_are_no_sources(tmp_path):
    touch(tmp_path, "001_t1.nii.gz", "001/001_t2_synth.nii.gz", "._001_t2.nii.gz", ".trash/001_t2.nii.gz")
    (record,) = find_subjects(tmp_path, ["t1"])
    assert "t2" not in record


def test_linked_folders_are_entered_and_a_circle_of_links_ends(tmp_path):
    touch(tmp_path, "store/001/001_t1.nii.gz")
    data = tmp_path / "data"
    data.mkdir()
    (data / "001").symlink_to(tmp_path / "store" / "001")
    (data / "circle").symlink_to(data)
    assert [record["patient"] for record in find_subjects(data, ["t1"])] == ["001"]


def test_an_incomplete_subject_is_left_out_with_one_warning_that_names_what_is_missing(tmp_path, caplog):
    touch(tmp_path, "001_t1.nii.gz", "001_t2.nii.gz", "002_t1.nii.gz", "003_flair.nii.gz")
    with caplog.at_level(logging.WARNING):
        records = find_subjects(tmp_path, ["t1"], "t2")
    assert [record["patient"] for record in records] == ["001"]
    assert caplog.messages == ["subject 002 left out: it has no t2", "subject 003 left out: it has no t1, t2"]


def test_without_a_target_the_target_need_not_exist(tmp_path):
    touch(tmp_path, "001_t1.nii.gz", "001_flair.nii.gz")
    assert len(find_subjects(tmp_path, ["t1", "flair"])) == 1


def test_when_no_subject_is_complete_the_missing_contrast_and_first_subjects_are_named(tmp_path):
    touch(tmp_path, *(f"00{number}_t1.nii.gz" for number in range(1, 6)))
    with pytest.raises(ValueError, match=r"t2 is missing in 5 of 5 \(001, 002, 003, \.\.\.\)"):
        find_subjects(tmp_path, ["t1"], "t2")


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (["scan1.nii.gz", "scan2.nii"], r"found 2 \.nii/\.nii\.gz file\(s\), e\.g\. scan1\.nii\.gz"),
        (["IM0001.dcm"], r"found 1 other file\(s\), e\.g\. IM0001\.dcm"),
        ([], "found no file at all"),
    ],
)
def test_a_folder_without_subjects_is_refused_with_what_was_sought_and_found(tmp_path, files, found):
    touch(tmp_path, *files)
    with pytest.raises(ValueError, match=found) as refusal:
        find_subjects(tmp_path, ["t1", "flair"])
    message = str(refusal.value)
    assert "\n" not in message
    for part in (str(tmp_path), "t1, flair", "bids (sub-01", "ixi (IXI002", "brats (001", "docs/data.md"):
        assert part in message


def test_a_missing_folder_is_named_with_its_config_key(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"dataset_dir .*/nowhere does not exist"):
        find_subjects(tmp_path / "nowhere", ["t1"])


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("001_t1.nii", "001_t1.nii.gz"),
        ("a/001_t1.nii.gz", "b/001_t1.nii.gz"),
        ("IXI002-HH-1-T1.nii.gz", "sub/IXI002-HH-1-T1.nii.gz"),
        ("sub-1/anat/sub-1_T1w.nii", "sub-1/anat/sub-1_T1w.nii.gz"),
    ],
)
def test_the_same_contrast_found_twice_is_refused_with_both_paths(tmp_path, first, second):
    touch(tmp_path, first, second)
    with pytest.raises(ValueError, match="has t1 twice") as refusal:
        find_subjects(tmp_path, ["t1"])
    names = [name.removeprefix("sub-1/anat/") for name in (first, second)]  # as far as they differ
    assert f"t1 twice: {names[0]} and {names[1]}; keep" in str(refusal.value)


def test_of_two_layouts_in_one_folder_that_of_most_complete_subjects_is_taken_and_the_other_told(tmp_path, caplog):
    bids_names = [f"sub-{n}/anat/sub-{n}_{suffix}.nii.gz" for n in (1, 2) for suffix in ("T1w", "T2w")]
    touch(tmp_path, "003_t1.nii", "IXI004-HH-1-T1.nii.gz", *bids_names[:3])
    assert [record["patient"] for record in find_subjects(tmp_path, ["t1"])] == ["1", "2"]
    assert "1 subject(s) named as ixi left out, e.g. IXI004: the others are named as bids" in caplog.text
    assert "1 subject(s) named as brats left out, e.g. 003: the others are named as bids" in caplog.text
    touch(tmp_path, "003_flair.nii", "005_t1.nii", "005_flair.nii")
    assert [record["patient"] for record in find_subjects(tmp_path, ["t1", "flair"])] == ["003", "005"]


def test_what_a_bids_dataset_was_made_of_is_not_taken_in_its_place(tmp_path, caplog):
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii", *(f"sourcedata/{n}/{n}_t1.nii" for n in range(5)))
    assert [record["patient"] for record in find_subjects(tmp_path, ["t1"])] == ["1"]
    assert caplog.text == ""


def test_training_leaves_out_what_was_not_fetched(tmp_path, caplog):
    touch(tmp_path, "001_t1.nii", "002_t2.nii", "001_t2.nii")
    (tmp_path / "002_t1.nii").symlink_to(tmp_path / "not" / "fetched")
    assert [record["patient"] for record in find_subjects(tmp_path, ["t1"], "t2")] == ["001"]
    assert "subject 002 left out: it has no t1" in caplog.text


def test_a_part_of_a_bids_dataset_may_be_given(tmp_path):
    names = [f"sub-1/ses-{n}/anat/sub-1_ses-{n}_{suffix}.nii.gz" for n in "12" for suffix in ("T1w", "T2w")]
    touch(tmp_path, "sub-2/anat/sub-2_T1w.nii.gz", *names)
    for part, sessions in (("sub-1", ["1", "2"]), ("sub-1/ses-2", ["2"]), ("sub-1/ses-1/anat", ["1"])):
        records = find_subjects(tmp_path / part, ["t1", "t2"])
        assert [(record["patient"], record["session"]) for record in records] == [("1", s) for s in sessions]


def test_stubs_that_macos_packs_into_archives_are_no_scans(tmp_path):
    touch(tmp_path, "001_t1.nii.gz", "__MACOSX/001_t1.nii.gz", "__MACOSX/._001_t1.nii.gz")
    (record,) = find_subjects(tmp_path, ["t1"])
    assert record["t1"] == str(tmp_path / "001_t1.nii.gz")


@pytest.mark.parametrize(
    "names", [("001_t1.nii.gz", "002_t1.nii.gz"), ("sub-1/anat/sub-1_T1w.nii", "sub-2/anat/sub-2_T1w.nii")]
)
def test_a_link_to_nowhere_is_a_scan_that_whoever_reads_it_names(tmp_path, names):
    """A dataset whose content was not fetched: git-annex, DataLad."""
    touch(tmp_path, names[0])
    link = tmp_path / names[1]
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "not" / "fetched")
    assert [record["t1"] for record in find_subjects(tmp_path, ["t1"], strict=False)] == [
        str(tmp_path / n) for n in names
    ]


def test_not_strict_a_folder_that_cannot_be_looked_into_stands_there_as_a_record(tmp_path, monkeypatch):
    touch(tmp_path, "sub-1/anat/sub-1_T1w.nii", "sub-2/anat/sub-2_T1w.nii")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith(("sub-2/anat", "sourcedata", "lost+found")):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    (tmp_path / "sourcedata").mkdir()
    (tmp_path / "lost+found").mkdir()
    first, second = find_subjects(tmp_path, ["t1"], strict=False)
    assert first["patient"] == "1"
    assert second["patient"] == "sub-2_anat"
    with pytest.raises(VolumeError, match=r"^E_MISSING .*folder anat cannot be looked into \(Permission"):
        LoadContrastsd(["t1"])(second)


def test_not_strict_namesakes_are_refused_alone(tmp_path):
    touch(tmp_path, "BraTS-GLI-00001_000_t1.nii", "BraTS-GLI-00001-000-t1n.nii", "002_t1.nii")
    with pytest.raises(ValueError, match="subject BraTS-GLI-00001_000 is there twice"):
        find_subjects(tmp_path, ["t1"])
    records = find_subjects(tmp_path, ["t1"], strict=False)
    for record in records:
        code = "E_EMPTY" if record["patient"] == "002" else "E_AMBIGUOUS"
        with pytest.raises(VolumeError, match=f"^{code} "):
            LoadContrastsd(["t1"])(record)
    assert len(records) == 3


def test_a_misspelt_layout_or_contrast_is_answered_with_a_suggestion(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'bids'"):
        find_subjects(tmp_path, ["t1"], layout="bid")
    with pytest.raises(ValueError, match="did you mean 'flair'"):
        find_subjects(tmp_path, ["t1"], "flare")


def test_finding_subjects_loads_no_heavy_package():
    code = (
        "import sys, hmf_networks.data.split as split; "
        "sys.exit(', '.join({'torch', 'monai', 'numpy', 'nibabel'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr.strip() == ""


def test_of_masks_from_several_pipelines_the_first_is_taken(tmp_path):
    touch(tmp_path, "sub-01/anat/sub-01_T1w.nii.gz")
    mask = "sub-01/anat/sub-01_label-lesion_mask.nii.gz"
    touch(tmp_path, f"derivatives/rater-a/{mask}", f"derivatives/rater-b/{mask}")
    (record,) = find_subjects(tmp_path, ["t1"])
    assert record["label"] == str(tmp_path / "derivatives/rater-a" / mask)


def test_bids_files_below_another_root_are_not_taken_for_brats(tmp_path):
    touch(tmp_path, "study/sub-01/anat/sub-01_T1w.nii.gz", "study/sub-01/anat/sub-01_FLAIR.nii.gz")
    with pytest.raises(ValueError, match=r"no subject .*bids \(sub-01/anat"):
        find_subjects(tmp_path, ["flair"])


def test_sources_may_not_be_empty_when_there_is_a_target(tmp_path):
    with pytest.raises(ValueError, match="sources is empty"):
        find_subjects(tmp_path, [], "t2")
