"""`hmf synthesize --uncertainty`, and what benchmarks/calibrate.py fits for it, on simulated patients."""

import json
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hmf_networks.cli import main
from hmf_networks.data.folder import find_subjects
from hmf_networks.data.phantom import simulate_subjects
from hmf_networks.hashing import file_hash
from hmf_networks.transforms.expected_error import check_calibration
from hmf_networks.transforms.familiarity import check_familiar

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
VOLUME = "sub-sim001/anat/sub-sim001_desc-synth_T2w.nii.gz"
ERROR = "sub-sim001/anat/sub-sim001_desc-syntherror_T2w.nii.gz"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def patients(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bids")
    simulate_subjects(folder, num_subjects=4, seed=0, spacing_mm=4.0, layout="bids")
    return folder


def synthesized(patients: Path, weights: Path, folder: Path, *more: str) -> Path:
    words = ["synthesize", str(patients), str(folder), "--target", "t2", "--sources", "t1", "flair"]
    assert main([*words, "--weights", str(weights), *more]) == 0
    return folder


def calibrate(monkeypatch, *arguments: object) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import calibrate

    monkeypatch.setattr(sys, "argv", ["calibrate.py", *map(str, arguments)])
    calibrate.main()


def test_the_switch_adds_a_volume_and_changes_none(patients, any_weights, tmp_path):
    without = synthesized(patients, any_weights, tmp_path / "without")
    with_it = synthesized(patients, any_weights, tmp_path / "with", "--uncertainty")
    assert not (without / ERROR).exists()
    assert file_hash(without / VOLUME) == file_hash(with_it / VOLUME)
    volume, error = nibabel.load(with_it / VOLUME), nibabel.load(with_it / ERROR)
    np.testing.assert_array_equal(volume.affine, error.affine)
    spread = error.get_fdata()
    assert spread.shape == volume.shape
    assert spread.min() == 0
    assert spread.max() > 0
    assert (spread[volume.get_fdata() == 0] == 0).mean() > 0.9  # background
    assert (with_it / ERROR.replace(".nii.gz", ".json")).is_file()


def test_neither_a_synthesis_nor_its_error_is_a_scan_to_learn_from(patients, any_weights, tmp_path):
    made = synthesized(patients, any_weights, tmp_path / "out", "--uncertainty")
    with pytest.raises(ValueError, match="no subject"):
        find_subjects(made, [])


def test_what_is_fitted_travels_with_the_weights_and_is_judged(monkeypatch, patients, any_weights, tmp_path):
    weights = Path(shutil.copy(any_weights, tmp_path / "model.pt"))
    shutil.copy(any_weights.with_name("model.json"), tmp_path / "model.json")
    before = file_hash(weights)
    common = ("--weights", weights, "--bids", patients, "--voxels", 500)
    calibrate(monkeypatch, "fit", *common, "--patients", "sim001", "sim002", "sim003")
    about = json.loads((tmp_path / "model.json").read_text())
    check_calibration(about["calibration"])
    check_familiar(about["familiar"])
    assert file_hash(weights) == before

    found = tmp_path / "uncertainty.json"
    calibrate(monkeypatch, "judge", *common, "--held-out", "sim004", "--json", found)
    text = found.read_text()
    assert before in text
    assert "spearman" in text

    made = synthesized(patients, weights, tmp_path / "out", "--uncertainty")
    told = json.loads((made / VOLUME.replace(".nii.gz", ".json")).read_text())
    assert "familiar" in json.dumps(told).lower()
    assert nibabel.load(made / ERROR).get_fdata().max() > 0
