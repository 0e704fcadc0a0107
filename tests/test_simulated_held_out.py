"""`benchmarks/simulated_held_out.py` from the command line to its JSON, on heads of balls, 4 mm voxels."""

import json
import math
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hmf_networks.hashing import file_hash
from hmf_networks.reports.card_table import TABLES, card_table
from hmf_networks.reports.results import VIEWS

from tests.heads import ball_labels

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
HELD_OUT, FITTED = 18, 15


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture(scope="module")
def maps(tmp_path_factory) -> Path:
    """Two maps, and a third that nobody may open: it is none."""
    folder = tmp_path_factory.mktemp("maps")
    for number in (HELD_OUT, FITTED):
        image = nibabel.Nifti1Image(ball_labels().astype(np.uint16), np.eye(4))
        image.to_filename(folder / f"balls_{number}.nii.gz")
    (folder / "balls_16.nii.gz").write_text("broken")
    return folder


@pytest.fixture
def measure(monkeypatch, tmp_path, capsys):
    def run(*arguments: object) -> tuple[dict, str]:
        import simulated_held_out

        tiny = simulated_held_out.Size(2, 1, 1, 8.0, 3, spacing_mm=4.0, decoded_mm=(3.0,))
        monkeypatch.setattr(simulated_held_out, "FAST", tiny)
        path = tmp_path / "simulated.json"
        words = ["simulated_held_out.py", "--fast", "--device", "cpu", "--json", path, *arguments]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        simulated_held_out.main()
        return json.loads(path.read_text()), capsys.readouterr().out

    return run


@pytest.mark.slow
def test_every_task_lesions_and_decoding_are_measured_and_become_tables(measure, maps, any_weights):
    what = ("--weights", any_weights, "--labels", maps, "--maps", HELD_OUT, "--fitted-on-maps", FITTED)

    found, said = measure(*what)

    assert found["skipped"] == []
    assert found["settings"]["weights_sha256"] == file_hash(any_weights)
    assert {(p["kind"], p["map"]) for p in found["people"]} == {("with skull", HELD_OUT), ("brain extracted", HELD_OUT)}
    assert {row["task"] for row in found["rows"]} == set(found["settings"]["tasks"])
    assert {row["method"] for row in found["rows"]} >= {"HMF-MambaINR", "voxelwise linear", "best copy"}
    for entry in found["lesions"]:
        mean = {key: entry[key]["mean"] for key in ("lesion", "rest", "difference")}
        assert mean["difference"] == pytest.approx(mean["lesion"] - mean["rest"])
    assert found["lesions"]
    assert {entry["spacing_mm"] for entry in found["decoding_summary"]} == {3.0}
    for view in VIEWS["simulated"]:
        assert view in TABLES
        table = card_table(found, view)
        assert table.count("\n") > 3
    assert card_table(found, "lesions") in said


def test_a_map_that_is_both_or_is_not_there_is_refused_at_once(measure, maps, any_weights):
    what = ("--weights", any_weights, "--labels", maps)
    with pytest.raises(SystemExit, match="fitted on and held out"):
        measure(*what, "--maps", FITTED, "--fitted-on-maps", FITTED)
    with pytest.raises(SystemExit, match="19"):
        measure(*what, "--maps", 19, "--fitted-on-maps", FITTED)


def test_gradient_energy_counts_steps_inside_the_mask_alone():
    from simulated_scores import gradient_energy

    ramp = torch.arange(4.0)[:, None, None].expand(4, 3, 2).clone()  # 1 a step along x, 0 along y
    mask = torch.ones_like(ramp, dtype=torch.bool)
    assert gradient_energy(ramp, mask) == pytest.approx(9 / (9 + 8))
    ramp[3] = 100
    mask[3] = False
    assert gradient_energy(ramp, mask) == pytest.approx(6 / (6 + 6))


def test_what_the_network_s_pixels_can_hold_comes_back_and_what_they_cannot_is_lost():
    from simulated_scores import by_pixels

    coarse = torch.rand(8, 10, 2)
    assert torch.equal(by_pixels(coarse, (1.0, 1.0, 1.0), 1.0), coarse)
    stripes = torch.tensor([0.0, 1.0]).repeat(10)[:, None, None].expand(20, 10, 1)
    blurred = by_pixels(stripes, (0.5, 1.0, 1.0), 1.0)
    assert blurred[4:-4].std() < 0.2 * stripes[4:-4].std()


def test_a_difference_is_taken_in_each_person_and_only_where_both_are_known():
    from simulated_tables import compared

    found = compared({"a": 1.0, "b": 4.0, "c": 9.0}, {"a": 2.0, "b": 3.0}, names=("lesion", "rest"))
    assert [found[key]["mean"] for key in ("lesion", "rest", "difference")] == [2.5, 2.5, 0.0]
    assert (found["difference"]["low"], found["difference"]["high"]) == (-1.0, 1.0)
    assert math.isnan(compared({"a": 1.0}, {"a": 2.0}, names=("lesion", "rest"))["difference"]["low"])
