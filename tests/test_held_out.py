"""`benchmarks/held_out.py` from the command line to its JSON, on simulated patients of 4 mm."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from hmf_networks.data.phantom import simulate_subjects
from hmf_networks.hashing import file_hash
from hmf_networks.reports.scoring import brain_psnr, read_prediction, read_truth

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
ALONE, THE_OTHERS, WITHOUT_FLAIR = "sim001", ("sim002", "sim003"), "sim003"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def patients(tmp_path_factory) -> Path:
    """Three in BIDS, one of them without FLAIR."""
    folder = tmp_path_factory.mktemp("bids")
    simulate_subjects(folder, num_subjects=3, seed=0, spacing_mm=4.0, layout="bids")
    next(folder.glob(f"sub-{WITHOUT_FLAIR}/anat/*_FLAIR.nii.gz")).unlink()
    return folder


@pytest.fixture
def measure(monkeypatch, tmp_path, capsys):
    """Runs the command; what its JSON holds and what it printed."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))

    def run(*arguments: object) -> tuple[dict, str]:
        import held_out

        path = tmp_path / "scores.json"
        monkeypatch.setattr(sys, "argv", ["held_out.py", *map(str, arguments), "--json", str(path)])
        held_out.main()
        return json.loads(path.read_text()), capsys.readouterr().out

    return run


def hashes(folder: Path) -> dict[str, str]:
    return {str(path): file_hash(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def psnr_of(rows: list[dict], **values: str) -> dict[str, float]:
    """Method -> PSNR of the one row that has these values."""
    values = {"protocol": "volume", "region": "brain", **values}
    return {row["method"]: row["psnr"] for row in rows if values.items() <= row.items()}


def test_each_left_out_patient_meets_the_regression_of_the_others(measure, patients):
    before = hashes(patients)
    names = (ALONE, *THE_OTHERS)

    found, said = measure("--no-network", "--bids", patients, "--fitted-on", *names, "--leave-one-out")

    of_t1 = [entry["fitted_on"] for entry in found["regressions"] if entry["task"] == "t1->t2"]
    assert sorted(of_t1) == sorted([name for name in names if name != out] for out in names)
    alone, _ = measure("--no-network", "--bids", patients, "--fitted-on", *THE_OTHERS, "--held-out", ALONE)
    for task in ("t1->t2", "t1+flair->t2"):
        scores = psnr_of(found["rows"], patient=ALONE, task=task)
        assert scores == psnr_of(alone["rows"], patient=ALONE, task=task)
        assert scores["best copy"] == max(score for name, score in scores.items() if name.startswith("copy"))
    assert f"t1+flair->t2, {WITHOUT_FLAIR}: it has no flair" in found["skipped"]
    assert "t1->t2, protocol affine, 3 patients" in said
    assert hashes(patients) == before


def test_the_network_is_scored_as_its_files_are_and_for_its_own_task_alone(measure, patients, small_weights, tmp_path):
    who = ("--bids", patients, "--fitted-on", *THE_OTHERS, "--held-out", ALONE)

    found, said = measure("--weights", small_weights, *who, "--keep", tmp_path / "kept", "--device", "cpu")

    assert {row["task"] for row in found["rows"]} == {"t1+flair->t2"}
    assert len(found["skipped"]) == 5  # the other tasks, and the patient without FLAIR
    truth = read_truth({"t2": str(next(patients.glob(f"sub-{ALONE}/anat/*T2w.nii.gz")))}, "t2")
    written = read_prediction(next((tmp_path / "kept").rglob("*_t2_synth.nii.gz")), truth)
    scores = psnr_of(found["rows"], patient=ALONE)
    assert scores["HMF-MambaINR"] == brain_psnr(written, truth)
    difference = scores["HMF-MambaINR"] - scores["voxelwise linear"]
    assert f"t1+flair->t2: as it is {difference:+.2f} dB, no" in said
    assert found["settings"]["weights_sha256"] == file_hash(small_weights)


def test_any_to_any_weights_do_every_task_from_its_sources_alone(measure, patients, any_weights, tmp_path):
    who = ("--bids", patients, "--fitted-on", *THE_OTHERS, "--held-out", ALONE)

    found, _ = measure("--weights", any_weights, *who, "--keep", tmp_path / "kept", "--device", "cpu")

    tasks = found["settings"]["tasks"]
    assert [row["task"] for row in found["rows"] if row["method"] == "HMF-MambaINR"] == [
        task
        for task in tasks
        for _ in range(4)  # two protocols, two regions
    ]
    manifests = [json.loads(path.read_text()) for path in (tmp_path / "kept").glob("*/manifest.json")]
    outputs = [output for manifest in manifests for output in manifest["outputs"].values()]
    made = sorted(f"{'+'.join(output['sources'])}->{output['target']}" for output in outputs)
    assert made == sorted(tasks)


@pytest.mark.skipif(find_spec("itk") is None, reason="needs itk, extra `prepare`")
def test_brats_is_scored_as_it_is_and_with_registered_truths(measure, patients, simulated):
    who = ("--bids", patients, "--fitted-on", ALONE, "--held-out", "sim002", "--brats", simulated)

    found, said = measure("--no-network", *who)

    rows = [row for row in found["rows"] if row["task"] == "t2->t1"]
    variants = {(row["data"], row["variant"]) for row in rows}
    assert variants == {("bids", "as it is"), ("brats", "as it is"), ("brats", "registered")}
    assert len(found["registrations"]) == 4 * 3  # t2 onto t1, t1 onto t2, flair onto t1
    assert max(abs(mm) for entry in found["registrations"] for mm in entry["shift_mm"]) < 0.5  # of a voxel of 4
    assert said.count("t2->t1, protocol volume, 5 patients, ") == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--held-out", ALONE, "--fitted-on", ALONE], "fitted on and held out"),
        (["--held-out", "sim01", "--fitted-on", ALONE], "did you mean 'sim001'"),
        (["--held-out", ALONE, "--fitted-on", "sim002", "--keep", "{patients}/kept"], "nothing is written"),
        (["--fitted-on", ALONE], "nobody to score"),
    ],
)
def test_what_cannot_be_meant_is_refused_at_once(measure, patients, arguments, complaint):
    arguments = [argument.format(patients=patients) for argument in arguments]
    with pytest.raises(SystemExit, match=complaint):
        measure("--no-network", "--bids", patients, *arguments)
