"""What is to be made of the subjects of a folder."""

from pathlib import Path

import pytest
from hmf_networks.data.tasks import each_task, find_tasks, shared_tasks
from hmf_networks.naming import CONTRASTS, usable_sources

ALL = list(CONTRASTS)


@pytest.fixture
def folder(tmp_path) -> Path:
    """Subjects of which files are there, with nothing in them."""
    for subject, contrasts in {"a": ["t1"], "b": ["t1", "t1c", "flair"], "c": ["t1", "t2", "flair", "pd"]}.items():
        for contrast in contrasts:
            path = tmp_path / subject / f"{subject}_{contrast}.nii.gz"
            path.parent.mkdir(exist_ok=True)
            path.touch()
    return tmp_path


def made(tasks: list[dict[str, str]]) -> list[str]:
    return [f"{task['patient']} {task['target']}" for task in tasks]


def test_exactly_what_is_missing_is_made_and_never_t1c(folder):
    assert made(find_tasks(folder, ALL, ALL)) == ["a t2", "a flair", "a pd", "b t2", "b pd"]


def test_of_what_a_network_does_not_make_nothing_is_missing(folder):
    assert made(find_tasks(folder, ALL, ["t1c", "flair"])) == ["a flair"]


def test_a_subject_that_lacks_nothing_is_left_out_with_one_line(folder, caplog):
    with caplog.at_level("INFO"):
        find_tasks(folder, ALL, ALL)
    assert caplog.messages == ["1 subject(s) left out, as they lack nothing: c"]


def test_where_nobody_lacks_anything_the_way_out_is_told(folder):
    with pytest.raises(ValueError, match=r"^nothing is to be made: all 3 .* have t1; .* by --target: t1, t1c$"):
        find_tasks(folder, ALL, ["t1", "t1c"])


@pytest.mark.parametrize("target", ["t2", "t1c", "flair"])
def test_a_target_that_is_named_is_made_for_every_subject_that_has_it_or_not(folder, target):
    tasks = find_tasks(folder, ALL, ALL, target)
    assert made(tasks) == [f"{subject} {target}" for subject in "abc"]
    assert not any(target in usable_sources(task, ALL) for task in tasks)


def test_a_contrast_that_is_not_given_counts_as_missing(folder):
    tasks = find_tasks(folder, ALL, ALL, given=["flair", "pd"])
    assert made(tasks)[4:] == ["b t1", "b t2", "b pd", "c t1", "c t2"]
    assert {tuple(usable_sources(task, ALL, ["flair", "pd"])) for task in tasks} == {
        (),  # of a, which will be told so
        ("flair",),
        ("flair", "pd"),
    }


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"given": ["t2"], "target": "t2"}, r"has a source to make t2 from; what may be used: t2$"),
        ({"given": ["t1w"]}, r"unknown contrast 't1w'.* did you mean 't1'"),
        ({"given": []}, r"no source is given; it works from t1, flair"),
        ({"given": ["pd"]}, r"the network does not know pd; it works from t1, flair"),
        ({"given": ["t1"], "any_subset": False}, r"the network needs t1, flair: give flair too"),
        ({"target": "pd"}, r"the network makes t2, not pd"),
        ({"any_subset": "false"}, r"any_subset is 'false'; write True or False"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_begun(folder, options, said):
    sources = ["t1", "t2"] if options.get("given") == ["t2"] else ["t1", "flair"]
    with pytest.raises(ValueError, match=said):
        find_tasks(folder, sources, ["t2"], **options)


def test_a_fixed_task_is_done_for_every_subject_and_names_those_that_lack_a_source(folder):
    tasks = find_tasks(folder, ["t1", "flair"], ["t2"], any_subset=False)
    assert made(tasks) == ["a t2", "b t2", "c t2"]
    with pytest.raises(ValueError, match=r"no subject in .* has all of t1c, pd"):
        find_tasks(folder, ["t1c", "pd"], ["t2"], any_subset=False)


def test_the_outputs_of_a_subject_stand_in_a_row_and_differ_in_nothing_else(folder):
    first, *others = (task for task in find_tasks(folder, ALL, ALL) if task["patient"] == "a")
    for other in others:
        assert {key for key in first if first[key] != other[key]} == {"target"}


def test_each_contrast_that_a_record_has_is_asked_for_from_its_others_but_t1c():
    record = {"patient": "a", "session": "", "t1": "1", "t1c": "2", "t2": "3"}
    tasks = each_task([record], CONTRASTS, any_subset=True)
    assert [task["target"] for task in tasks] == ["t1", "t2"]
    assert each_task([{"patient": "b", "t1": "1"}], CONTRASTS, any_subset=True) == []


def test_a_fixed_task_is_asked_of_every_record():
    records = [{"patient": name, "t1": "1", "t2": "2"} for name in "ab"]
    assert [task["target"] for task in each_task(records, ["t2"], any_subset=False)] == ["t2", "t2"]


def test_training_from_any_subset_names_no_target_and_the_other_parts_do():
    record = {"patient": "a", "t1": "1", "t2": "2"}
    parts = {"training": [record], "validation": [record], "testing": []}
    shared = shared_tasks(parts, CONTRASTS, any_subset=True)
    assert shared["training"] == [record]
    assert [task["target"] for task in shared["validation"]] == ["t1", "t2"]
    fixed = shared_tasks(parts, ["t2"], any_subset=False)
    assert fixed["training"] == fixed["validation"] == [record | {"target": "t2"}]
