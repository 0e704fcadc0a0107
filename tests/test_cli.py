import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hmf_networks import __version__
from hmf_networks.cli import main
from hmf_networks.data.folder import find_subjects
from hmf_networks.naming import CONTRASTS

HEAVY = ("torch", "monai", "ignite", "scipy", "nilearn")
RUN_AND_LIST_MODULES = """
import sys
from hmf_networks.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code
print("LOADED", *sorted(name for name in sys.modules if "." not in name))
sys.exit(code)
"""


@pytest.mark.parametrize(
    "arguments", [["--help"], ["info"], ["--version"], ["simulate", "--help"], ["evaluate", "--help"]], ids=" ".join
)
def test_help_and_info_start_without_heavy_packages(arguments):
    done = subprocess.run(
        [sys.executable, "-c", RUN_AND_LIST_MODULES, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    loaded = done.stdout.rpartition("LOADED")[2].split()
    assert "argparse" in loaded
    assert not set(HEAVY) & set(loaded)


def test_python_m_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "hmf_networks", "--version"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == f"hmf {__version__} - research only, not a medical device\n"


def test_info_names_contrasts_and_layouts(caplog):
    with caplog.at_level("INFO"):
        assert main(["info"]) == 0
    for word in (*CONTRASTS, "bids", "brats", "ixi", "sub-01", "not a medical device"):
        assert word in caplog.text


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["simulate", "OUT", "--spaicng", "6"], "--spacing"),
        (["simulate", "OUT", "--sujbects=2"], "--subjects"),
        (["cost", "--widht", "3"], "--width"),
        (["picture", "a=b", "--ouput", "c", "--output", "d"], "--output"),
        (["evaluate", "P", "T", "--taget", "t2", "--target", "t2"], "--target"),
        (["info", "--hepl"], "--help"),
        (["simulate", "OUT", "--subject", "2"], "--subjects"),
        (["synthesise", "IN", "OUT"], "synthesize"),
    ],
    ids=" ".join,
)
def test_a_misspelt_option_is_answered_with_the_one_that_was_meant(capsys, tmp_path, monkeypatch, arguments, meant):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 1
    assert f"did you mean '{meant}'?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["synthesise"],
        ["simulate"],
        ["info", "extra"],
        ["cost", "--size", "3"],
        ["check", ""],
        ["synthesize", "IN", "", "--target", "t2"],
        ["check", "IN", "--volume", "-1"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_makes_no_sense_ends_with_1(capsys, arguments):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 1
    assert "hmf" in capsys.readouterr().err


def test_simulate_writes_patients_that_the_loader_finds(tmp_path):
    assert main(["simulate", str(tmp_path / "sim"), "--spacing", "6", "--subjects", "2"]) == 0
    records = find_subjects(tmp_path / "sim", ["t1", "flair"], "t2")
    assert len(records) == 2
    image = nibabel.load(records[0]["t2"])
    np.testing.assert_allclose(image.header.get_zooms(), 6)
    assert np.ptp(image.get_fdata()) > 0


def test_an_unknown_layout_is_answered_with_the_one_that_was_meant(capsys, tmp_path):
    assert main(["simulate", str(tmp_path / "sim"), "--layout", "bidds"]) == 1
    assert "did you mean 'bids'?" in capsys.readouterr().err
    assert not (tmp_path / "sim").exists()


def test_a_picture_of_files_is_drawn(tmp_path, write_nifti):
    volume = np.zeros((12, 13, 14))
    volume[3:-3, 3:-3, 3:-3] = np.random.default_rng(0).random((6, 7, 8)) + 1
    path = write_nifti("t1.nii", volume)
    assert main(["picture", f"t1={path}", f"again={path}", "--output", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_volumes_of_one_shape_that_lie_elsewhere_are_no_picture(capsys, tmp_path, write_nifti):
    volume, moved = np.random.default_rng(0).random((6, 7, 8)), np.eye(4)
    moved[2, 3] = 3.0
    paths = [write_nifti("a.nii", volume), write_nifti("b.nii", volume, moved)]
    assert (
        main(["picture", *(f"t1={path}" for path in paths[:1]), f"t2={paths[1]}", "--output", str(tmp_path / "p.png")])
        == 1
    )
    assert "b.nii: its corners lie up to 3.00 mm from those of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("volume", "said"), [("t1.nii", "'t1.nii' is not NAME=FILE"), ("t1=absent.nii", "E_MISSING absent.nii")]
)
def test_a_picture_of_nothing_is_an_error_in_one_line(capsys, tmp_path, volume, said):
    assert main(["picture", volume, "--output", str(tmp_path / "a.png")]) == 1
    assert said in capsys.readouterr().err
    assert not Path(tmp_path / "a.png").exists()


def test_cost_counts_the_network(caplog):
    with caplog.at_level("INFO"):
        assert main(["cost", "--width", "4", "--size", "16", "16"]) == 0
    assert "M parameters" in caplog.text
    assert "width 4, input 1 x 2 x 16 x 16" in caplog.text
