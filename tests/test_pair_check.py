"""Faults planted between the contrasts of simulated subjects are found; good subjects are not accused."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from hmf_networks.data.check import _upright
from hmf_networks.data.folder import find_subjects
from hmf_networks.data.pair_check import compare_contrasts
from hmf_networks.nifti.read import examine

SPACING_MM = [4.0, 4.0, 4.0]
Volumes = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def people(simulated: Path) -> list[Volumes]:
    subjects = []
    for record in find_subjects(simulated, ["t1", "t2", "flair"]):
        read = {name: examine(record[name]) for name in ("t1", "t2", "flair")}
        subjects.append({name: _upright(r.values, r.header.affine)[0] for name, r in read.items()})
    return subjects


def codes(volumes: Volumes, spacing_mm: list[float] = SPACING_MM) -> set[str]:
    return {finding.code for finding in compare_contrasts(volumes, spacing_mm)}


def test_good_subjects_are_not_accused(people):
    assert [codes(volumes) for volumes in people] == [set()] * len(people)


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("name", ["t1", "t2", "flair"])
def test_a_shift_is_found_and_measured(people, name, axis):
    for volumes in people:
        moved = volumes | {name: np.roll(volumes[name], 2, axis)}  # 8 mm; the border is background
        found = [f for f in compare_contrasts(moved, SPACING_MM) if name in f.contrasts]
        assert {finding.code for finding in found} == {"W_SHIFT"}
        assert all(abs(finding.number - 8) < 1.5 for finding in found)


def test_a_mirrored_contrast_is_found_by_its_name(people):
    for volumes, name in itertools.product(people, ("t1", "t2", "flair")):
        (finding,) = compare_contrasts(volumes | {name: volumes[name][::-1]}, SPACING_MM)
        assert (finding.code, finding.contrasts) == ("W_FLIP", (name,))


def test_the_same_image_twice_is_found_whatever_its_scale(people):
    for volumes in people:
        assert "E_DUPLICATE" in codes(volumes | {"t2": volumes["t1"].copy()})
        assert "E_DUPLICATE" in codes(volumes | {"t2": (volumes["t1"] * 0.3 + 7).astype(np.float32)})


@pytest.mark.parametrize(("one", "other"), [("t1", "t2"), ("t2", "flair")])
def test_exchanged_contrasts_are_found(people, one, other):
    for volumes in people:
        exchanged = volumes | {one: volumes[other], other: volumes[one]}
        assert codes(exchanged) == {"W_SWAP"}


def test_the_scale_of_a_scanner_changes_no_verdict(people):
    volumes = people[0] | {"t2": people[0]["t2"][::-1]}
    rescaled = {
        name: (volume * scale).astype(np.float32) for scale, (name, volume) in enumerate(volumes.items(), 3)
    }
    assert codes(volumes) == codes(rescaled) == {"W_FLIP"}


def test_thick_slices_are_judged_too(people):
    thick = {name: volume[:, :, ::2] for name, volume in people[0].items()}
    assert codes(thick, [4.0, 4.0, 8.0]) == set()
    assert codes(thick | {"t1": thick["t1"][::-1]}, [4.0, 4.0, 8.0]) == {"W_FLIP"}


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 3), (5, 6, 7)])
def test_nothing_is_said_of_what_is_too_small_or_empty(shape):
    noise = np.random.default_rng(0).random((2, *shape)).astype(np.float32)
    assert codes({"t1": noise[0], "t2": noise[1]}) == set()
    assert codes({"t1": np.zeros(shape, np.float32), "t2": np.zeros(shape, np.float32)}) == set()
    assert codes({}) == codes({"t1": noise[0]}) == set()
