"""The split and the datalist: whole patients, the same every time, and nothing read unseen."""

import json
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hmf_networks.data.folder import find_subjects, keep_several
from hmf_networks.data.split import (
    load_or_split,
    named_patients,
    part_of,
    read_datalist,
    read_part,
    split_by_patient,
    write_datalist,
)
from hmf_networks.naming import CONTRASTS, subject_name

PARTS = ("training", "validation", "testing")


def sessions_of(num_patients, num_sessions=2):
    return [
        {"patient": f"p{patient:02}", "session": str(session), "t1": f"/data/p{patient:02}_{session}.nii.gz"}
        for patient in range(num_patients)
        for session in range(num_sessions)
    ]


def ixi_records(num_patients):
    return [{"patient": f"IXI{n:03}", "session": "", "layout": "ixi", "t1": f"/ixi/{n}"} for n in range(num_patients)]


def patients(records):
    return {record["patient"] for record in records}


def dataset(root, num_patients=6):
    root.mkdir(parents=True, exist_ok=True)
    for patient in range(num_patients):
        for time in ("000", "001"):
            for contrast in ("t1n", "t2w"):
                (root / f"BraTS-GLI-{patient:05}-{time}-{contrast}.nii.gz").touch()
    return root


RECORDS = {"sessions": sessions_of(12), "ixi": ixi_records(30), "both": sessions_of(12) + ixi_records(30)}


@pytest.fixture(params=RECORDS, name="records")
def records_of_each_kind(request):
    return RECORDS[request.param]


def test_no_patient_is_in_two_parts_and_no_session_is_lost(records):
    parts = split_by_patient(records)
    counts = [len(patients(parts[part])) for part in PARTS]
    assert sum(counts) == len(patients(records))
    names = [subject_name(record) for part in PARTS for record in parts[part]]
    assert sorted(names) == sorted(map(subject_name, records))


@pytest.mark.parametrize("shuffle", range(5))
def test_the_order_of_the_records_does_not_matter(records, shuffle):
    shuffled = random.Random(shuffle).sample(records, len(records))
    assert split_by_patient(shuffled) == split_by_patient(records)


def test_another_seed_is_another_split(records):
    assert split_by_patient(records, seed=1) != split_by_patient(records, seed=0)


def test_the_split_of_today_is_the_split_of_tomorrow():
    parts = split_by_patient(ixi_records(10), seed=0)
    assert [sorted(patients(parts[part])) for part in PARTS[1:]] == [["IXI001"], ["IXI002", "IXI006"]]


def test_each_part_of_a_split_is_sorted(records):
    for part in split_by_patient(records).values():
        assert part == sorted(part, key=lambda record: (record["patient"], record["session"]))


@pytest.mark.parametrize(
    ("num_patients", "fractions", "counts"),
    [
        (10, (0.7, 0.1, 0.2), [7, 1, 2]),
        (100, (0.7, 0.1, 0.2), [70, 10, 20]),
        (3, (0.7, 0.1, 0.2), [1, 1, 1]),
        (4, (0.7, 0.1, 0.2), [2, 1, 1]),
        (2, (0.5, 0, 0.5), [1, 0, 1]),
        (5, (1, 0, 0), [5, 0, 0]),
    ],
)
def test_fractions_are_met_and_each_part_above_zero_gets_a_patient(num_patients, fractions, counts):
    parts = split_by_patient(sessions_of(num_patients), fractions=fractions)
    assert [len(patients(parts[part])) for part in PARTS] == counts


def test_too_few_patients_are_refused_with_the_number_needed():
    with pytest.raises(ValueError, match=r"2 patient\(s\) are too few .*: at least 3 are needed"):
        split_by_patient(sessions_of(2))


@pytest.mark.parametrize("fractions", [(0.7, 0.1), (0.7, 0.1, 0.1), (1.2, -0.2, 0)])
def test_fractions_that_are_no_fractions_are_refused(fractions):
    with pytest.raises(ValueError, match="sum to 1"):
        split_by_patient(sessions_of(9), fractions=fractions)


def test_a_datalist_is_read_as_it_was_written(tmp_path):
    parts = split_by_patient(find_subjects(dataset(tmp_path / "data"), ["t1"]))
    write_datalist(tmp_path / "runs" / "list.json", parts, tmp_path / "data")
    assert read_datalist(tmp_path / "runs" / "list.json") == parts
    assert read_part(tmp_path / "runs" / "list.json", "testing") == parts["testing"]


def test_a_datalist_tells_no_absolute_path_and_leaves_no_draft(tmp_path):
    parts = split_by_patient(find_subjects(dataset(tmp_path / "data"), ["t1"]))
    write_datalist(tmp_path / "list.json", parts, tmp_path / "data")
    assert str(tmp_path) not in (tmp_path / "list.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "list.json"]


def test_a_datalist_follows_its_dataset_to_another_place(tmp_path):
    datalist_path = tmp_path / "list.json"
    load_or_split(dataset(tmp_path / "old"), ["t1"], "t2", datalist_path)
    (tmp_path / "old").rename(tmp_path / "new")
    parts = load_or_split(tmp_path / "new", ["t1"], "t2", datalist_path)
    assert all(str(tmp_path / "new") in record["t1"] for part in PARTS for record in parts[part])


def test_the_second_run_reads_the_split_of_the_first_whatever_its_seed(tmp_path):
    first = load_or_split(dataset(tmp_path / "data"), ["t1"], "t2", tmp_path / "deep" / "list.json", seed=0)
    again = load_or_split(tmp_path / "data", ["t1"], "t2", tmp_path / "deep" / "list.json", seed=5)
    assert again == first


def test_processes_that_start_together_agree(tmp_path):
    dataset(tmp_path / "data")

    def start(_):
        return load_or_split(tmp_path / "data", ["t1"], "t2", tmp_path / "list.json")

    with ThreadPoolExecutor(8) as pool:
        splits = list(pool.map(start, range(8)))
    assert all(split == splits[0] for split in splits)


def test_a_datalist_given_as_dataset_dir_is_not_split_again(tmp_path):
    parts = split_by_patient(find_subjects(dataset(tmp_path / "data"), ["t1"]), seed=3)
    write_datalist(tmp_path / "mine.json", parts, tmp_path / "data")
    assert load_or_split(tmp_path / "mine.json", ["t1"], "t2", tmp_path / "other.json") == parts
    assert not (tmp_path / "other.json").exists()


def test_find_subjects_reads_all_parts_of_a_datalist(tmp_path):
    records = find_subjects(dataset(tmp_path / "data"), ["t1"])
    write_datalist(tmp_path / "list.json", split_by_patient(records), tmp_path / "data")
    assert find_subjects(tmp_path / "list.json", ["t1"], "t2") == records


def test_files_beside_a_datalist_are_found_and_the_layout_is_datalist(tmp_path):
    (tmp_path / "x.nii").touch()
    (tmp_path / "list.json").write_text('{"name": "mine", "testing": [{"patient": "x", "t1": "x.nii"}]}')
    assert read_datalist(tmp_path / "list.json") == {
        "training": [],
        "validation": [],
        "testing": [{"patient": "x", "session": "", "layout": "datalist", "t1": str(tmp_path / "x.nii")}],
    }


A, B = {"patient": "a", "t1": "a.nii"}, {"patient": "b", "t1": "b.nii"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"training": [A], "testing": [A | {"session": "2"}]}, "patient a is in training and in testing"),
        ({"training": [A], "testing": [B | {"t1": "a.nii"}]}, "a.nii belongs to patient a and to b"),
        ({"training": [A, A]}, "subject a is there twice"),
        ({"training": [A | {"t1": "gone.nii"}]}, r"training\[0\]: file gone.nii is not there in "),
        ({"training": [{"t1": "a.nii"}]}, "has no 'patient'; add it"),
        ({"training": [A | {"flare": "a.nii"}]}, "unknown key 'flare'.* did you mean 'flair'"),
        ({"training": [A | {"patient": 7}]}, "'patient' must be text in quotes, not 7"),
        ({"training": [A | {"layout": "bid"}]}, "did you mean 'bids'"),
        ({"training": [A], "test": [B]}, "unknown part 'test'.* did you mean 'testing'"),
        ({"training": A}, "'training' must be a list"),
        ({"training": ["a.nii"]}, "must look like"),
        ({"train": [A]}, "needs at least one of the keys training, validation, testing"),
        ([A], "is not a datalist"),
        ({"training": [A], "dataset_dir": 3}, "'dataset_dir' must be the text"),
    ],
)
def test_a_faulty_datalist_is_refused_and_the_fault_named(tmp_path, content, message):
    (tmp_path / "a.nii").touch()
    (tmp_path / "b.nii").touch()
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_datalist(tmp_path / "list.json")


def test_a_file_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "scan.mgz").write_bytes(b"\x1f\x8b\x00")
    with pytest.raises(ValueError, match=r"scan\.mgz is neither NIfTI .* nor a datalist \(\.json\)"):
        find_subjects(tmp_path / "scan.mgz", ["t1"])


def test_an_unknown_part_is_answered_with_a_suggestion(tmp_path):
    with pytest.raises(ValueError, match=r"unknown part 'train'.* did you mean 'training'"):
        read_part(tmp_path / "list.json", "train")


def test_a_part_to_evaluate_is_known_and_not_empty():
    record = {"patient": "a", "session": ""}
    parts = {"training": [record], "validation": [], "testing": []}
    assert part_of(parts, "training") == [record]
    with pytest.raises(ValueError, match=r"'testing'.*evaluated_part to one of: training"):
        part_of(parts, "testing")
    with pytest.raises(ValueError, match="did you mean 'testing'"):
        part_of(parts, "test")


def test_patients_are_shared_out_by_name(simulated):
    names = sorted({record["patient"] for record in find_subjects(simulated, [])})
    parts = named_patients(simulated, names[:2], names[2:3])
    assert [len(parts[part]) for part in PARTS] == [2, 1, 1]
    with pytest.raises(ValueError, match="unknown patient"):
        named_patients(simulated, ["nobody"])
    with pytest.raises(ValueError, match="in training and validation"):
        named_patients(simulated, names[:1], names[:1])


def test_two_contrasts_are_enough_where_any_subset_is_learned_from(simulated, tmp_path):
    parts = load_or_split(simulated, CONTRASTS, None, tmp_path / "list.json", [0.5, 0.25, 0.25], any_subset=True)
    assert sum(len(records) for records in parts.values()) == 4  # none of them has PD


def test_a_single_contrast_is_nothing_to_learn_from(tmp_path, caplog):
    records = [{"patient": "a", "session": "", "t1": "1"}, {"patient": "b", "session": "", "t1": "1", "t2": "2"}]
    assert [record["patient"] for record in keep_several(records, CONTRASTS, tmp_path)] == ["b"]
    assert "subject a left out" in caplog.text
    with pytest.raises(ValueError, match="has two of"):
        keep_several(records[:1], CONTRASTS, tmp_path)
