"""BIDS in, BIDS derivatives out: judged by the validator where it is installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hmf_networks.cli import main
from hmf_networks.data.phantom import simulate_subjects
from hmf_networks.outputs import bids

VALIDATOR = shutil.which("bids-validator-deno", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


@pytest.mark.skipif(VALIDATOR is None, reason="bids-validator-deno is not installed")
def test_the_validator_finds_no_error_in_what_is_made_of_a_bids_dataset(small_weights, tmp_path):
    simulate_subjects(tmp_path / "in", num_subjects=2, seed=0, spacing_mm=4.0, layout="bids")
    broken = sorted((tmp_path / "in").glob("sub-*/anat/*FLAIR.nii.gz"))[1]
    broken.write_bytes(broken.read_bytes()[:-300])  # errors.json is there, too
    words = ["synthesize", str(tmp_path / "in"), str(tmp_path / "out"), "--target", "t2"]
    assert main([*words, "--weights", str(small_weights)]) == 2
    assert (tmp_path / "out" / "errors.json").is_file()
    done = subprocess.run(
        [VALIDATOR, "--json", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"NO_COLOR": "1"},
    )
    if not done.stdout.strip().startswith("{"):
        pytest.skip(f"the validator does not run here: {done.stderr[-300:]}")
    content = json.loads(done.stdout)
    issues = content["issues"]["issues"]
    assert [issue for issue in issues if issue["severity"] == "error"] == []
    assert content["summary"]["totalFiles"] >= 3


def test_files_of_the_dataset_are_written_once_and_never_replaced(tmp_path):
    (tmp_path / "README.md").write_text("my own words")
    bids.describe(tmp_path)
    assert (tmp_path / "README.md").read_text() == "my own words"
    assert json.loads((tmp_path / "dataset_description.json").read_text())["BIDSVersion"] == bids.VERSION
    assert {"manifest.json", "errors.json", "*.png"} <= set((tmp_path / ".bidsignore").read_text().split())
    (tmp_path / ".bidsignore").write_text("mine")
    bids.describe(tmp_path)
    assert (tmp_path / ".bidsignore").read_text() == "mine"


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{", b"\xff"])
def test_a_sidecar_that_is_missing_or_broken_says_nothing(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    assert bids.read_sidecar(tmp_path / "a.nii.gz") == {}


def test_a_sidecar_is_read_beside_its_volume(tmp_path):
    (tmp_path / "a.json").write_text('{"Sha256": "0"}')
    for name in ("a.nii", "a.nii.gz", "a.NII.GZ"):
        assert bids.read_sidecar(tmp_path / name) == {"Sha256": "0"}
