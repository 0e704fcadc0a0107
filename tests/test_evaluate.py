import csv
import itertools
import json
import math
from collections.abc import Iterable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hmf_networks.cli import main
from hmf_networks.metrics import METRICS
from hmf_networks.naming import output_path
from hmf_networks.reports.brasyn import brasyn_rows, normalise, ssim_map_3d, window_mean
from hmf_networks.transforms.intensity import scale_by_foreground
from PIL import Image

SHAPE = (24, 26, 20)
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
LESION = (slice(8, 12), slice(8, 12), slice(8, 12))
AIR = (slice(1, 3), slice(1, 3), slice(1, 3))


def head(number: int = 0) -> np.ndarray:
    """Smooth tissue of 100 to 900 in air of 0, in RAS."""
    x, y, z = np.meshgrid(*(np.linspace(0, 3, size) for size in SHAPE), indexing="ij")
    volume = np.zeros(SHAPE, dtype=np.float32)
    inner = (slice(4, -4),) * 3
    volume[inner] = (500 + 400 * np.sin(x * 2 + y + number) * np.cos(z + y))[inner]
    return volume


def as_network_sees(volume: np.ndarray) -> np.ndarray:
    """In [0, 1], as training scales it."""
    return (scale_by_foreground(torch.from_numpy(volume)).numpy() + 1) / 2


def save(path: Path, values: np.ndarray, affine: np.ndarray = AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), path)


def save_truth(root: Path, subjects: list[str], *, layout: str = "brats") -> None:
    for number, subject in enumerate(subjects):
        if layout == "bids":
            patient, _, session = subject.partition("/")
            folder = root / patient / session / "anat"
            save(folder / f"{subject.replace('/', '_')}_T2w.nii.gz", head(number))
        else:
            save(root / subject / f"{subject}_t2.nii.gz", head(number))


def save_label(root: Path, subject: str, *, empty: bool = False) -> None:
    label = np.zeros(SHAPE)
    label[LESION] = not empty
    save(root / subject / f"{subject}_seg.nii.gz", label)


def save_prediction(root: Path, subject: str, unit: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path = root / output_path({"patient": subject, "session": ""}, "t2")
    save(path, unit * 1000, affine)
    return path


@pytest.fixture
def truth(tmp_path) -> Path:
    """Seven patients, the first of them with a lesion."""
    save_truth(tmp_path / "truth", [f"p{number}" for number in range(7)])
    save_label(tmp_path / "truth", "p0")
    return tmp_path / "truth"


def save_run(root: Path, error: float, numbers: Iterable[int] = range(7)) -> Path:
    """Every voxel is wrong by `error`, towards the middle of the range; a bit more in later patients."""
    for number in numbers:
        unit, more = as_network_sees(head(number)), error * (1 + number / 100)
        save_prediction(root, f"p{number}", np.where(unit > 0.5, unit - more, unit + more))
    return root


def scores_in(folder: Path) -> dict[tuple[str, str, str, str], dict[str, float]]:
    """(method, subject, protocol, region) -> scores, from scores.csv."""
    with (folder / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        (row["method"], row["subject"], row["protocol"], row["region"]): {
            metric: float(row[metric]) for metric in (*METRICS, "mse") if row.get(metric)
        }
        for row in rows
    }


def errors_in(folder: Path) -> dict[str, str]:
    errors = json.loads((folder / "errors.json").read_text())
    assert all(set(error) == {"subject", "code", "cause", "cure"} and all(error.values()) for error in errors)
    return {error["subject"]: error["code"] for error in errors}


def evaluate(predictions: Path, truth: Path, *options: object) -> int:
    return main(["evaluate", str(predictions), str(truth), "--target", "t2", *map(str, options)])


EVERY_PROTOCOL = ("--protocol", "volume", "slice", "affine", "brasyn")


def test_a_perfect_prediction_is_perfect_under_every_protocol_and_in_every_region(tmp_path, truth):
    run = save_run(tmp_path / "run", 0.0)
    assert evaluate(run, truth, "--output", tmp_path / "out", *EVERY_PROTOCOL) == 0
    scores = scores_in(tmp_path / "out")
    assert {key[2:] for key in scores if key[1] == "p0"} == {
        *itertools.product(("volume", "affine"), ("whole", "brain", "label")),
        ("slice", "whole"),
        *itertools.product(("brasyn",), ("whole", "tumour", "healthy")),
    }
    for key, score in scores.items():
        if key[2] != "brasyn":  # whose percentiles count air: it clips the truth elsewhere than training did
            assert score["psnr"] > 120, key
            assert score["ssim"] == pytest.approx(1, abs=1e-5), key
            assert score["ms_ssim"] == pytest.approx(1, abs=1e-5), key
            assert score["nmse"] == pytest.approx(0, abs=1e-9), key


def test_the_file_itself_is_a_perfect_prediction_of_the_challenge(tmp_path, truth):
    path = truth / "p0" / "p0_t2.nii.gz"
    assert evaluate(path, path, "--output", tmp_path / "out", "--protocol", "brasyn") == 0
    (score,) = scores_in(tmp_path / "out").values()
    assert (score["psnr"], score["ssim"], score["mse"]) == (math.inf, 1, 0)
    assert "ms_ssim" not in score


def test_an_error_of_a_tenth_of_the_range_is_20_decibels(tmp_path, truth):
    run = save_run(tmp_path / "run", 0.1, [0])
    evaluate(run, truth, "--output", tmp_path / "out")
    for region in ("whole", "brain", "label"):
        score = scores_in(tmp_path / "out")["run", "p0", "volume", region]
        assert score["psnr"] == pytest.approx(20, abs=1e-3)
        assert score["mae"] == pytest.approx(0.1, abs=1e-5)


def test_the_prediction_is_never_rescaled_by_itself_under_volume_and_is_under_brasyn(tmp_path, truth):
    unit = as_network_sees(head())
    save_prediction(tmp_path / "run", "p0", unit / 2)
    evaluate(tmp_path / "run", truth, "--output", tmp_path / "out", "--protocol", "volume", "brasyn")
    scores = scores_in(tmp_path / "out")
    expected = -10 * math.log10(np.square(unit / 2).mean())
    assert scores["run", "p0", "volume", "whole"]["psnr"] == pytest.approx(expected, abs=1e-3)
    assert scores["run", "p0", "brasyn", "whole"]["psnr"] > expected + 10


@pytest.mark.parametrize(
    ("place", "changed"),
    [(AIR, {"whole"}), ((slice(13, 15),) * 3, {"whole", "brain"}), (LESION, {"whole", "brain", "label"})],
)
def test_an_error_counts_in_the_regions_where_it_is_and_in_no_other(tmp_path, truth, place, changed):
    unit = as_network_sees(head())
    wrong = unit.copy()
    wrong[place] = 1 - wrong[place]
    for name, values in (("right", unit), ("wrong", wrong)):
        save_prediction(tmp_path / name, "p0", 0.9 * values)
    evaluate(tmp_path / "right", truth, "--against", tmp_path / "wrong", "--output", tmp_path / "out")
    scores = scores_in(tmp_path / "out")
    for region in ("whole", "brain", "label"):
        right, wrong = (scores[name, "p0", "volume", region] for name in ("right", "wrong"))
        for metric in ("psnr", "nmse", "mae"):
            assert (right[metric] != wrong[metric]) == (region in changed), (region, metric)


@pytest.mark.parametrize("axes", ["LPS", "PIR", "SAL"])
def test_how_a_volume_is_stored_changes_no_score(tmp_path, truth, axes):
    save_run(tmp_path / "run", 0.1)
    image = nibabel.load(tmp_path / "run/p0/p0_t2_synth.nii.gz")
    turn = nibabel.orientations.ornt_transform(
        nibabel.io_orientation(image.affine), nibabel.orientations.axcodes2ornt(axes)
    )
    path = tmp_path / "turned/p0/p0_t2_synth.nii.gz"
    path.parent.mkdir(parents=True)
    nibabel.save(image.as_reoriented(turn), path)
    evaluate(tmp_path / "run", truth, "--against", tmp_path / "turned", "--output", tmp_path / "out")
    scores = scores_in(tmp_path / "out")
    for region in ("whole", "brain", "label"):
        assert scores["run", "p0", "volume", region] == scores["turned", "p0", "volume", region]


def test_a_prediction_on_another_grid_is_refused_and_the_others_are_scored(tmp_path, truth, caplog):
    run, unit = save_run(tmp_path / "run", 0.1), as_network_sees(head())
    hair, step = AFFINE.copy(), AFFINE.copy()
    hair[2, 3], step[2, 3] = 0.05, 1.0
    save_prediction(run, "p0", unit, hair)
    save_prediction(run, "p1", unit, step)
    save_prediction(run, "p2", unit[:-1])
    save_prediction(run, "p3", unit, AFFINE @ np.diag([1.02, 1, 1, 1]))
    with caplog.at_level("INFO"):
        assert evaluate(run, truth, "--output", tmp_path / "out") == 2
    assert errors_in(tmp_path / "out") == dict.fromkeys(("p1", "p2", "p3"), "E_GRID")
    assert {key[1] for key in scores_in(tmp_path / "out")} == {"p0", "p4", "p5", "p6"}
    assert "Protocol volume, region brain, 4 subjects" in caplog.text
    assert "p1: E_GRID" in caplog.text


def test_a_label_on_another_grid_would_name_the_wrong_voxels_and_is_refused(tmp_path, truth, caplog):
    label, step = np.zeros(SHAPE), AFFINE.copy()
    label[LESION], step[0, 3] = 1, 1.0
    save(truth / "p0/p0_seg.nii.gz", label, step)
    with caplog.at_level("INFO"):
        assert evaluate(save_run(tmp_path / "run", 0.1), truth, "--output", tmp_path / "out") == 2
    assert errors_in(tmp_path / "out") == {"p0": "E_GRID"}
    assert "p0_seg.nii.gz: its corners lie up to 1.00 mm" in caplog.text


def test_where_no_names_meet_nothing_is_written(tmp_path, truth, capsys):
    save_prediction(tmp_path / "run", "stranger", as_network_sees(head()))
    assert evaluate(tmp_path / "run", truth, "--output", tmp_path / "out") == 1
    assert "no prediction belongs to a subject of the truth: there e.g. p0, here e.g. stranger" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()


def test_when_nobody_can_be_scored_all_are_named_and_the_tables_are_empty(tmp_path, truth):
    save_prediction(tmp_path / "run", "p0", np.full(SHAPE, np.nan))
    assert evaluate(tmp_path / "run", truth, "--output", tmp_path / "out", "--against", truth) == 1
    assert evaluate(tmp_path / "run", truth, "--output", tmp_path / "out") == 2
    assert len(errors_in(tmp_path / "out")) == 7
    assert json.loads((tmp_path / "out/scores.json").read_text())["rows"] == []


def test_a_prediction_with_one_nan_is_refused_and_not_scored(tmp_path, truth):
    run = save_run(tmp_path / "run", 0.1)
    spoilt = as_network_sees(head())
    spoilt[2, 2, 2] = np.nan
    save_prediction(run, "p1", spoilt)
    assert evaluate(run, truth, "--output", tmp_path / "out") == 2
    assert errors_in(tmp_path / "out") == {"p1": "E_NONFINITE"}


def test_what_has_no_partner_is_named_and_the_others_are_scored(tmp_path, truth):
    run = save_run(tmp_path / "run", 0.1, [0, 1, 2, 3, 4])
    save_prediction(run, "stranger", as_network_sees(head()))
    assert evaluate(run, truth, "--output", tmp_path / "out") == 2
    assert errors_in(tmp_path / "out") == dict.fromkeys(("p5", "p6", "stranger"), "E_MISSING")
    assert len({key[1] for key in scores_in(tmp_path / "out")}) == 5


def test_files_that_cannot_be_used_are_named_and_the_others_are_scored(tmp_path, truth):
    run, other = save_run(tmp_path / "run", 0.1), save_run(tmp_path / "other", 0.2)
    (run / "p1/p1_t2_synth.nii.gz").write_bytes(b"no volume at all")
    save_prediction(other, "p2", np.ones(SHAPE))
    (truth / "p3/p3_t2.nii.gz").write_bytes(b"no volume at all")
    assert evaluate(run, truth, "--against", other, "--output", tmp_path / "out") == 2
    errors = errors_in(tmp_path / "out")
    assert set(errors) == {"p1", "p2", "p3"}
    assert errors["p2"] == "E_NO_SIGNAL"
    scored = {key[:2] for key in scores_in(tmp_path / "out")}
    assert ("run", "p1") not in scored
    assert ("other", "p1") in scored
    assert ("run", "p2") in scored
    assert not any(subject == "p3" for _, subject in scored)


def test_a_second_evaluation_leaves_nothing_of_the_first(tmp_path, truth):
    good, out = save_run(tmp_path / "good", 0.1), tmp_path / "out"
    bad = save_run(tmp_path / "bad", 0.3, [0, 1, 2])
    assert evaluate(bad, truth, "--output", out) == 2
    assert evaluate(good, truth, "--output", out, "--worst", 1) == 0
    assert not (out / "errors.json").exists()
    assert [path.name for path in (out / "worst").iterdir()] == ["p6.png"]
    assert {key[0] for key in scores_in(out)} == {"good"}


def test_the_worst_are_listed_and_drawn_as_truth_prediction_and_difference(tmp_path, truth, caplog):
    run = save_run(tmp_path / "run", 0.1)
    with caplog.at_level("INFO"):
        assert evaluate(run, truth, "--output", tmp_path / "out", "--worst", 2, "--protocol", "slice") == 0
    worst = json.loads((tmp_path / "out/scores.json").read_text())["worst"]
    assert [entry["subject"] for entry in worst] == ["p6", "p5"]
    assert f"p6  {worst[0]['brain_psnr']:.2f}\n  p5  {worst[1]['brain_psnr']:.2f}" in caplog.text
    assert sorted(path.name for path in (tmp_path / "out/worst").iterdir()) == ["p5.png", "p6.png"]
    pixels = np.asarray(Image.open(tmp_path / "out/worst/p6.png")).astype(float)[40:]
    true, synthetic, difference = np.array_split(pixels, 3, axis=1)
    assert true.std() > synthetic.std() > difference.std()
    assert difference.max() == pytest.approx(3 * 0.106 * 255, abs=3)


def test_without_an_output_folder_nothing_is_written(tmp_path, truth, caplog, monkeypatch):
    run = save_run(tmp_path / "run", 0.1)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with caplog.at_level("INFO"):
        assert evaluate(run, truth) == 0
    assert "Protocol volume, region label, 1 subject" in caplog.text
    assert list(Path().iterdir()) == []


def test_runs_are_compared_on_the_subjects_that_both_have(tmp_path, truth, caplog):
    run, other = save_run(tmp_path / "a/run", 0.1), save_run(tmp_path / "b/run", 0.2, range(6))
    with caplog.at_level("INFO"):
        assert evaluate(run, truth, "--against", other, "--output", tmp_path / "out") == 2
    content = json.loads((tmp_path / "out/scores.json").read_text(), parse_constant=pytest.fail)
    by_place = {(c["region"], c["metric"]): c for c in content["comparisons"]}
    brain = by_place["brain", "psnr"]
    assert (brain["run"], brain["against"], brain["num_subjects"]) == (str(run), str(other), 6)
    assert brain["median_difference"] == pytest.approx(20 * math.log10(2), abs=0.3)
    assert brain["p"] == pytest.approx(2 / 64)
    assert brain["p_holm"] == pytest.approx(10 * 2 / 64)  # five metrics in whole and brain
    assert by_place["label", "psnr"]["p"] is None
    assert "all 10 tests" in caplog.text
    assert "too few" in caplog.text


def test_bids_derivatives_find_their_truth_by_patient_and_session(tmp_path):
    subjects = ["sub-01/ses-1", "sub-01/ses-2", "sub-02"]
    save_truth(tmp_path / "bids", subjects, layout="bids")
    run = tmp_path / "bids/derivatives/hmf"  # inside the dataset: neither takes the other for its own
    for number, (patient, session) in enumerate([("01", "1"), ("01", "2"), ("02", "")]):
        record = {"patient": patient, "session": session, "layout": "bids"}
        save(run / output_path(record, "t2"), 1000 * as_network_sees(head(number)))
    save(run / output_path(record | {"patient": "03"}, "t1"), head())
    assert evaluate(run, tmp_path / "bids", "--output", tmp_path / "out") == 0
    content = json.loads((tmp_path / "out/scores.json").read_text())
    assert {(row["subject"], row["session"]) for row in content["rows"]} == {("01", "1"), ("01", "2"), ("02", "")}
    assert {entry["num_subjects"] for entry in content["summary"]} == {2}
    assert min(row["psnr"] for row in content["rows"]) > 120
    assert {entry["subject"] for entry in content["worst"]} == {"01_1", "01_2", "02"}


def test_t1_and_t1_with_contrast_agent_are_told_apart(tmp_path):
    save(tmp_path / "bids/sub-01/anat/sub-01_T1w.nii.gz", head())
    record = {"patient": "01", "session": "", "layout": "bids"}
    save(tmp_path / "run" / output_path(record, "t1c"), head())
    assert main(["evaluate", str(tmp_path / "run"), str(tmp_path / "bids"), "--target", "t1"]) == 1
    save(tmp_path / "run" / output_path(record, "t1"), head())
    assert main(["evaluate", str(tmp_path / "run"), str(tmp_path / "bids"), "--target", "t1"]) == 0


def test_two_single_files_are_compared(tmp_path, truth):
    path = save_prediction(tmp_path / "run", "p0", as_network_sees(head()))
    assert evaluate(path, truth / "p0/p0_t2.nii.gz", "--output", tmp_path / "out") == 0
    assert {key[1] for key in scores_in(tmp_path / "out")} == {"p0_t2"}
    assert (tmp_path / "out/worst/p0_t2.png").is_file()


def test_a_file_for_a_dataset_or_a_dataset_for_a_file_is_an_error(tmp_path, truth, capsys):
    path = save_prediction(tmp_path / "run", "p0", as_network_sees(head()))
    assert evaluate(path, truth) == 1
    assert evaluate(tmp_path / "run", truth / "p0/p0_t2.nii.gz") == 1
    assert capsys.readouterr().err.count("one NIfTI file for one NIfTI file") == 2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--protocol", "volum"], "did you mean 'volume'?"),
        (["--worst", "-1"], "write 0 or more"),
        (["--against", "run"], "is given twice"),
        (["--against", "absent"], "absent does not exist"),
        (["--against", "empty"], "looked for files like 001/001_t2_synth.nii.gz or sub-001/anat/sub-001_desc-synth"),
    ],
    ids=" ".join,
)
def test_what_cannot_run_ends_in_one_line_that_says_why(tmp_path, truth, capsys, monkeypatch, options, said):
    save_run(tmp_path / "run", 0.1, [0])
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert evaluate(Path("run"), truth, "--output", "out", *options) == 1
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert not Path("out").exists()


def test_two_predictions_for_one_subject_are_an_error(tmp_path, truth, capsys):
    run = save_run(tmp_path / "run", 0.1)
    save(run / "again" / "p0_t2_synth.nii", head())
    assert evaluate(run, truth) == 1
    assert "subject p0 has two predictions" in capsys.readouterr().err


def test_values_that_synthesize_does_not_write_are_warned_of(tmp_path, truth, caplog):
    save(tmp_path / "run/p0/p0_t2_synth.nii.gz", as_network_sees(head()))
    evaluate(tmp_path / "run", truth)
    assert "reaches from 0 to 1, `hmf synthesize` writes 0 to 1000" in caplog.text


def test_an_empty_label_is_no_region_and_in_the_challenge_all_is_healthy(tmp_path, truth):
    save_label(truth, "p1", empty=True)
    run = save_run(tmp_path / "run", 0.1, [1, 2])
    evaluate(run, truth, "--output", tmp_path / "out", "--protocol", "volume", "brasyn")
    regions = {subject: set() for subject in ("p1", "p2")}
    for _, subject, protocol, region in scores_in(tmp_path / "out"):
        regions[subject].add((protocol, region))
    always = {("volume", "whole"), ("volume", "brain"), ("brasyn", "whole")}
    assert regions == {"p1": always | {("brasyn", "healthy")}, "p2": always}


def test_the_challenge_scales_by_percentiles_of_the_whole_volume_from_zero_on():
    volume = np.linspace(-100, 900, 1001, dtype=np.float32).reshape(7, 11, 13)
    scaled = normalise(volume)
    high = np.percentile(volume, 99.5)
    np.testing.assert_allclose(scaled, volume.clip(0, high) / high, atol=1e-6)
    assert np.isnan(normalise(np.ones((3, 3, 3), dtype=np.float32))).all()


def test_the_window_of_the_challenge_is_a_gaussian_of_eleven_voxels_mirrored_at_the_border():
    taps = np.exp(-np.square(np.arange(-5, 6) / 1.5) / 2)
    taps /= taps.sum()
    values = np.random.default_rng(0).random((15, 16, 17))
    mirrored = np.pad(values, 5, mode="reflect")
    for x, y, z in [(0, 0, 0), (7, 8, 9), (14, 3, 16)]:
        window = mirrored[x : x + 11, y : y + 11, z : z + 11]
        assert window_mean(values)[x, y, z] == pytest.approx(np.einsum("ijk,i,j,k", window, taps, taps, taps))


def test_ssim_in_three_dimensions_follows_its_definition():
    rng = np.random.default_rng(0)
    truth = rng.random((12, 12, 12), dtype=np.float32)
    prediction = (truth + rng.normal(0, 0.2, truth.shape)).astype(np.float32)
    wider = max(np.ptp(truth), np.ptp(prediction))
    c1, c2 = (0.01 * wider) ** 2, (0.03 * wider) ** 2
    p, t, pp, tt, pt = map(window_mean, (prediction, truth, prediction**2, truth**2, prediction * truth))
    expected = (2 * p * t + c1) * (2 * (pt - p * t) + c2)
    expected /= (p * p + t * t + c1) * (pp - p * p + tt - t * t + c2)
    np.testing.assert_allclose(ssim_map_3d(prediction, truth), expected, atol=1e-5)
    assert (ssim_map_3d(truth, truth) == 1).all()


def test_the_ssim_of_the_challenge_counts_what_is_out_of_the_tumour_as_equal():
    truth = head()
    prediction = np.where(truth > 0, 1000 - truth, 0)
    label = np.zeros(SHAPE)
    label[LESION] = 1
    rows = {row["region"]: row for row in brasyn_rows(prediction, truth, label)}
    assert rows["tumour"]["ssim"] > 0.9 > rows["tumour"]["ssim_inside"]
    assert rows["whole"]["ssim"] == rows["whole"]["ssim_inside"]


def test_in_the_challenge_an_error_in_the_tumour_is_none_in_the_healthy_rest():
    truth, label = head(), np.zeros(SHAPE)
    label[LESION] = 1
    prediction = np.where(label > 0, 0.8 * truth, truth).astype(np.float32)
    if np.percentile(prediction, 99.5) != np.percentile(truth, 99.5):
        pytest.fail("the lesion holds the brightest voxels; both volumes would be scaled differently")
    rows = {row["region"]: row for row in brasyn_rows(prediction, truth, label)}
    assert rows["healthy"]["psnr"] == math.inf
    assert rows["healthy"]["ssim"] == 1
    assert rows["tumour"]["psnr"] == pytest.approx(-10 * math.log10(rows["tumour"]["mse"]))
    assert rows["tumour"]["psnr"] < 40
