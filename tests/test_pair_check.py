import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hmf_networks.data.folder import find_subjects
from hmf_networks.data.pair_check import Finding, compare_contrasts

SPACING_MM = (4.0, 4.0, 4.0)
Volumes = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def subjects(simulated: Path) -> list[Volumes]:
    """T1, T1 with gadolinium, T2 and FLAIR of four simulated patients, RAS+."""
    return [
        {name: read_upright(record[name]) for name in ("t1", "t1c", "t2", "flair")}
        for record in find_subjects(simulated, [])
    ]


@pytest.fixture
def subject(subjects: list[Volumes]) -> Volumes:
    return {name: volume.copy() for name, volume in subjects[0].items()}


def read_upright(path: str) -> np.ndarray:
    return np.asarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj, dtype=np.float32)


def moved(volume: np.ndarray, axis: int, steps: float) -> np.ndarray:
    """Shifted along one axis; what comes round the end is background in these volumes."""
    whole = int(np.floor(steps))
    share = np.float32(steps - whole)
    return (1 - share) * np.roll(volume, whole, axis) + share * np.roll(volume, whole + 1, axis)


def verdicts(findings: list[Finding]) -> list[tuple[str, tuple[str, ...]]]:
    return [(finding.code, finding.contrasts) for finding in findings]


def test_good_subjects_are_silent(subjects):
    assert [compare_contrasts(volumes, SPACING_MM) for volumes in subjects] == [[]] * 4


@pytest.mark.parametrize(("axis", "word"), [(0, "right"), (1, "front"), (2, "up")])
def test_a_shift_of_5_mm_is_found_with_its_length_and_direction(subject, axis, word):
    subject["flair"] = moved(subject["flair"], axis, 5 / 4)
    (finding,) = compare_contrasts(subject, SPACING_MM)
    assert finding[:2] == ("W_SHIFT", ("flair",))
    assert finding.number == pytest.approx(5, abs=1.5)
    assert f"mm {word}" in finding.message


@pytest.mark.parametrize("pair", list(itertools.combinations(("t1", "t1c", "t2", "flair"), 2)))
def test_of_two_contrasts_a_shift_names_both(subject, pair):
    first, second = pair
    (finding,) = compare_contrasts({first: subject[first], second: moved(subject[second], 1, -5 / 4)}, SPACING_MM)
    assert finding[:2] == ("W_SHIFT", pair)
    assert finding.number == pytest.approx(5, abs=1.5)


@pytest.mark.parametrize("name", ["t1", "t1c", "t2", "flair"])
def test_the_mirrored_contrast_is_named(subject, name):
    subject[name] = subject[name][::-1]
    assert verdicts(compare_contrasts(subject, SPACING_MM)) == [("W_FLIP", (name,))]


def test_of_two_contrasts_a_mirrored_one_names_both(subject):
    two = {"t1": subject["t1"], "t2": subject["t2"][::-1]}
    assert verdicts(compare_contrasts(two, SPACING_MM)) == [("W_FLIP", ("t1", "t2"))]


def test_a_mirrored_head_that_lies_off_centre_is_mirrored_and_not_shifted(subject):
    aside = {name: moved(volume, 0, 2) for name, volume in subject.items()}
    aside["t2"] = aside["t2"][::-1]
    assert verdicts(compare_contrasts(aside, SPACING_MM)) == [("W_FLIP", ("t2",))]


@pytest.mark.parametrize("copy", [lambda image: image.copy(), lambda image: np.rint(0.4 * image + 30)])
def test_one_image_under_two_names_is_a_duplicate(subject, copy):
    subject["flair"] = copy(subject["t1"])
    assert verdicts(compare_contrasts(subject, SPACING_MM)) == [("E_DUPLICATE", ("t1", "flair"))]


@pytest.mark.parametrize("pair", [("t1", "t2"), ("t1c", "t2"), ("t2", "flair"), ("t1", "flair")])
def test_exchanged_contrasts_are_named(subjects, pair):
    first, second = pair
    for volumes in subjects:
        exchanged = volumes | {first: volumes[second], second: volumes[first]}
        findings = compare_contrasts(exchanged, SPACING_MM)
        assert [(code, set(names)) for code, names in verdicts(findings)] == [("W_SWAP", set(pair))]


def test_t1_and_flair_alone_are_told_apart(subject):
    (finding,) = compare_contrasts({"t1": subject["flair"], "flair": subject["t1"]}, SPACING_MM)
    assert finding[:2] == ("W_SWAP", ("t1", "flair"))


def test_a_lone_t1_called_t2_is_unlike_its_name(subject):
    assert verdicts(compare_contrasts({"t2": subject["t1"]}, SPACING_MM)) == [("W_SWAP", ("t2",))]


def test_another_t2_called_t1_is_unlike_its_name(subject):
    noise = np.random.default_rng(0).standard_normal(subject["t2"].shape, dtype=np.float32)
    subject["t1"] = np.where(subject["t2"] > 0, subject["t2"] ** 0.8 + 5 * noise, 0)
    assert verdicts(compare_contrasts(subject, SPACING_MM)) == [("W_SWAP", ("t1",))]


def test_thick_slices_are_judged_like_cubes():
    from hmf_networks.data.phantom import simulate_subject

    images = simulate_subject(5, 1, spacing_mm=2.0, contrasts=("t1", "t2", "flair")).images
    slices = {name: image.reshape(*image.shape[:2], -1, 2).mean(-1, dtype=np.float32) for name, image in images.items()}
    assert compare_contrasts(slices, (2.0, 2.0, 4.0)) == []
    slices["t2"] = moved(slices["t2"], 2, 5 / 4)
    (finding,) = compare_contrasts(slices, (2.0, 2.0, 4.0))
    assert finding[:2] == ("W_SHIFT", ("t2",))
    assert finding.number == pytest.approx(5, abs=1.5)


@pytest.mark.parametrize("fault", ["none", "shift", "flip", "exchange"])
def test_the_scale_of_a_contrast_changes_no_verdict(subject, fault):
    if fault == "shift":
        subject["t2"] = moved(subject["t2"], 1, 5 / 4)
    if fault == "flip":
        subject["t2"] = subject["t2"][::-1]
    if fault == "exchange":
        subject["t1"], subject["t2"] = subject["t2"], subject["t1"]
    scales = dict(zip(subject, (1e-30, 0.37, 3.0, 1e30), strict=True))
    rescaled = {name: (volume * scales[name]).astype(np.float32) for name, volume in subject.items()}
    before, after = compare_contrasts(subject, SPACING_MM), compare_contrasts(rescaled, SPACING_MM)
    assert verdicts(before) == verdicts(after)
    assert [found.number for found in after] == pytest.approx([found.number for found in before], rel=0.02)


@pytest.mark.parametrize("shape", [(0, 4, 4), (1, 1, 1), (2, 1, 3), (5, 5, 1), (12, 12, 12)])
@pytest.mark.parametrize("values", ["zeros", "noise", "one voxel"])
def test_volumes_that_hold_too_little_are_passed_over(shape, values):
    rng = np.random.default_rng(0)
    volumes = {name: np.zeros(shape, np.float32) for name in ("t1", "t2", "flair")}
    for volume in volumes.values():
        if values == "noise":
            volume += rng.standard_normal(shape, dtype=np.float32)
        elif volume.size:
            volume.flat[rng.integers(volume.size)] = values == "one voxel"
    codes = {finding.code for finding in compare_contrasts(volumes, (1.0, 1.0, 1.0))}
    assert codes <= {"E_DUPLICATE"}  # one voxel is soon the same


def test_one_spoilt_voxel_changes_no_verdict(subject):
    subject["t1"][20, 20, 20] = 1e38
    assert compare_contrasts(subject, SPACING_MM) == []
    subject["t1"] = moved(subject["t1"], 1, 2)
    assert verdicts(compare_contrasts(subject, SPACING_MM)) == [("W_SHIFT", ("t1",))]


def test_nothing_and_a_single_contrast_are_silent(subject):
    assert compare_contrasts({}, SPACING_MM) == []
    assert compare_contrasts({"t1": subject["t1"]}, SPACING_MM) == []
