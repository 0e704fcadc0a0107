"""A study: read from a page, run where it is missing, gone on with after a stop, told in tables and figures."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hmf_networks.bundles.find import bundle_root
from hmf_networks.engines.bundle_run import keys_of
from hmf_networks.outputs.failure import SubjectsFailed
from hmf_networks.studies import compare as comparing
from hmf_networks.studies import runs as running
from hmf_networks.studies.figures import draw_boxes, draw_panel, drops
from hmf_networks.studies.runs import Place, scores_folder, settings_hash
from hmf_networks.studies.study import Method, Run, Study, read_study, runs_of
from hmf_networks.studies.tables import powerless, write_tables

CONFIGS = bundle_root() / "configs"
SHIPPED = sorted(path.stem for path in (CONFIGS / "studies").glob("*.json"))
STUDY = Study(
    "small", {}, [], {"A->B": [], "B->A": []}, {"ours": Method([], {}), "theirs": Method([], {})}, [0, 1], {}, {}
)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_study_sets_keys_that_there_are(name):
    study = read_study(Path(name), CONFIGS)
    known = keys_of([CONFIGS / "train.json"])
    assert next(iter(study.methods)) == "HMF-MambaINR"
    for overrides in (study.budget, *(method.overrides for method in study.methods.values())):
        assert {key.partition("#")[0] for key in overrides} <= known | {"plain_unet"}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_budget_is_the_same_for_all_methods(name):
    study = read_study(Path(name), CONFIGS)
    for method in study.methods.values():
        assert not set(method.overrides) & set(study.budget)


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ({"tasks": {"A": []}, "methods": {"ours": []}, "seed": [1]}, "unknown key 'seed'.*did you mean 'seeds'"),
        ({"tasks": {}, "methods": {"ours": []}}, "must name at least one"),
        ({"tasks": {"A": []}, "methods": {"ours": []}, "seeds": 3}, "seeds must be a list of whole numbers"),
        ({"tasks": {"A": []}, "methods": {"ours": []}, "seeds": []}, "seeds must be a list of whole numbers"),
        ({"tasks": {"A": []}, "methods": {"ours": []}, "budget": None}, "budget must be an object"),
        ({"tasks": {"A": []}, "methods": {"ours": {"sets": {}}}}, "unknown key of ours 'sets'.*did you mean 'set'"),
        ({"tasks": {"A": 3}, "methods": {"ours": []}}, "A must be a list of overlays"),
        ({"tasks": {"A": []}, "methods": {"ours": []}, "data": {"subject": 3}}, "did you mean 'subjects'"),
        ({"tasks": {"A->B": [], "A_to_B": []}, "methods": {"ours": []}}, "would share a folder"),
        ({"tasks": {"A": []}, "methods": {"..": []}}, "'..' is no name"),
        (
            {"tasks": {"A": []}, "methods": {"ours": []}, "conditions": {"x": {"corruption#levl": 5}}},
            "corruption#level",
        ),
        ([1], "a study must be an object"),
        ({"tasks": {"A": "tasks/none.json"}, "methods": {"ours": []}}, "none.json is not there"),
    ],
)
def test_a_page_that_cannot_be_meant_is_refused_in_a_line(page, told, tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(page))
    with pytest.raises(ValueError, match=told):
        read_study(path, CONFIGS)


def test_a_study_that_is_not_there_is_told_with_its_neighbour():
    with pytest.raises(ValueError, match=r"unknown study 'smok'.*did you mean 'smoke'"):
        read_study(Path("smok"), CONFIGS)


@pytest.fixture
def place(tmp_path):
    return Place(bundle_root(), tmp_path / "scans", tmp_path / "study")


KEYS = ("method", "subject", "protocol", "region", "session", "psnr", "ssim", "ms_ssim", "nmse", "mae", "input_psnr")
LOST = 3.0  # dB under every condition


def finished(run: Run, study: Study, place: Place, _device: object = None, *, better: float = 1.0) -> None:
    """What a run leaves, with scores by formula: ours is `better` dB above theirs."""
    for condition in ("", *study.conditions):
        folder = scores_folder(place.of(run), condition)
        folder.mkdir(parents=True)
        with (folder / "scores.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, KEYS)
            writer.writeheader()
            for subject in range(8):
                psnr = 20 + subject + 0.25 * run.seed + better * (run.method == "ours") - LOST * (condition != "")
                row = {"method": run.method, "subject": subject, "protocol": "volume", "region": "brain", "session": ""}
                row |= {"psnr": psnr, "ssim": psnr / 40, "ms_ssim": psnr / 40, "nmse": 1 / psnr, "mae": 0}
                writer.writerow(row | ({"input_psnr": 17.5} if condition else {}))
    hashes = {"settings_sha256": settings_hash(run, study, place), "weights_sha256": "0" * 64}
    (place.of(run) / "run.json").write_text(json.dumps({**run._asdict(), **hashes}))


def test_a_condition_has_a_table_of_its_own_and_tells_how_bad_the_input_was(place):
    study = STUDY._replace(conditions={"severe motion": {"corruption#kind": "motion"}})
    for run in runs_of(study):
        finished(run, study, place)
    write_tables(study, place)
    told = json.loads((place.output_dir / "results.json").read_text())["tasks"]
    clean, moved = (told[name]["summary"][0]["psnr"]["mean"] for name in ("A->B", "A->B, severe motion"))
    assert clean - moved == pytest.approx(LOST)
    text = (place.output_dir / "results.md").read_text()
    assert text.count("The corrupted sources lie at 17.5 dB PSNR") == 2  # one for each task


def test_the_mean_is_over_subjects_and_seeds_and_the_test_over_subjects(place):
    for run in runs_of(STUDY):
        finished(run, STUDY, place)
    rows = write_tables(STUDY, place)
    told = json.loads((place.output_dir / "results.json").read_text())
    summary = {entry["method"]: entry for entry in told["tasks"]["A->B"]["summary"]}
    assert summary["ours"]["psnr"]["mean"] == pytest.approx(20 + 3.5 + 0.125 + 1)
    assert summary["ours"]["num_subjects"] == 8
    (tested,) = (c for c in told["tasks"]["A->B"]["comparisons"] if c["metric"] == "psnr")
    assert (tested["against"], tested["num_subjects"]) == ("theirs", 8)
    assert tested["median_difference"] == pytest.approx(1)
    assert tested["p"] == pytest.approx(2 / 2**8)  # eight wins of eight
    assert {"task", "seed", "protocol", "region", "settings_sha256", "weights_sha256"} <= set(rows[0])
    assert (place.output_dir / "results.md").read_text().count("## ") == 2


def test_latex_holds_the_best_of_each_column_bold(place):
    for run in runs_of(STUDY):
        finished(run, STUDY, place)
    write_tables(STUDY, place)
    lines = (place.output_dir / "results.tex").read_text().splitlines()
    (ours,), (theirs,) = ([line for line in lines if line.startswith(name)] for name in ("ours", "theirs"))
    assert ours.count("\\textbf") == 6  # PSNR and SSIM above, NMSE below, in two tasks
    assert "\\textbf" not in theirs


def test_only_what_is_missing_is_run_and_the_tables_are_the_same(place, monkeypatch, tmp_path):
    monkeypatch.setattr(comparing, "train_and_score", finished)
    place.dataset_dir.mkdir()
    comparing.compare(STUDY, place.bundle, place.output_dir, data=place.dataset_dir)
    whole = {path.name: path.read_bytes() for path in place.output_dir.glob("results.*")}

    stopped = place._replace(output_dir=tmp_path / "stopped")
    calls = []

    def until_the_third(run, *arguments):
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(run)
        finished(run, *arguments)

    monkeypatch.setattr(comparing, "train_and_score", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        comparing.compare(STUDY, place.bundle, stopped.output_dir, data=place.dataset_dir)
    again = []
    monkeypatch.setattr(comparing, "train_and_score", lambda run, *rest: (again.append(run), finished(run, *rest)))
    comparing.compare(STUDY, place.bundle, stopped.output_dir, data=place.dataset_dir)
    assert [*calls, *again] == list(runs_of(STUDY))
    assert {path.name: path.read_bytes() for path in stopped.output_dir.glob("results.*")} == whole


def test_runs_of_another_study_are_neither_mixed_in_nor_lost(place):
    for run in runs_of(STUDY):
        finished(run, STUDY, place)
    longer = STUDY._replace(budget={"flat_epochs": 99})
    place.dataset_dir.mkdir()
    with pytest.raises(ValueError, match="is of another study, data or version; name another --output"):
        comparing.compare(longer, place.bundle, place.output_dir, data=place.dataset_dir)


def test_a_run_that_fails_is_named_and_the_others_are_done(place, monkeypatch, caplog):
    def fails_for_theirs(run, *arguments):
        if run.method == "theirs":
            raise RuntimeError("training ended with 1: out of luck")
        finished(run, *arguments)

    monkeypatch.setattr(comparing, "train_and_score", fails_for_theirs)
    place.dataset_dir.mkdir()
    with pytest.raises(SubjectsFailed, match="4 of 8 runs failed: A->B, theirs, seed 0"):
        comparing.compare(STUDY, place.bundle, place.output_dir, data=place.dataset_dir)
    assert "out of luck" in caplog.text
    assert "ours" in (place.output_dir / "results.md").read_text()


def test_what_a_command_says_last_is_what_is_told_of_its_failure(tmp_path):
    with pytest.raises(RuntimeError, match=r"training ended with 1: .*nowhere does not exist.*log.txt"):
        running._command("training", [CONFIGS / "train.json"], {"dataset_dir": "/nowhere"}, tmp_path)


def test_nothing_is_begun_twice_nor_by_two(place, monkeypatch):
    from filelock import FileLock

    place.dataset_dir.mkdir()
    place.output_dir.mkdir()
    monkeypatch.setattr(comparing, "train_and_score", finished)
    with FileLock(place.output_dir / ".lock"), pytest.raises(ValueError, match="another process works in it"):
        comparing.compare(STUDY, place.bundle, place.output_dir, data=place.dataset_dir)


def test_other_scans_are_not_mixed_in(place, monkeypatch):
    monkeypatch.setattr(comparing, "train_and_score", finished)
    place.dataset_dir.mkdir()
    comparing.compare(STUDY, place.bundle, place.output_dir, data=place.dataset_dir)
    more = STUDY._replace(seeds=[0, 1, 2])
    comparing.compare(more, place.bundle, place.output_dir, data=place.dataset_dir)  # a seed more may come
    (place.dataset_dir / "scan.nii.gz").touch()
    with pytest.raises(ValueError, match="is of another study, data or version"):
        comparing.compare(more, place.bundle, place.output_dir, data=place.dataset_dir)


def test_a_run_that_was_begun_otherwise_does_not_go_on(place):
    run = next(runs_of(STUDY))
    place.of(run).mkdir(parents=True)
    (place.of(run) / "settings.json").write_text(json.dumps({"settings_sha256": "of another learning rate"}))
    with pytest.raises(ValueError, match="is of another study"):
        running.is_done(run, STUDY, place)


def test_significance_that_no_score_could_reach_is_told():
    tested = [{"p": 0.01, "num_subjects": 8}] * 20
    assert powerless(tested) == "With 8 subjects and 20 tests no p Holm can fall below 0.16.\n"
    assert powerless(tested[:2]) == ""


def test_levels_become_curves_that_begin_at_clean():
    conditions = {f"noise {n}": {"corruption#kind": "noise", "corruption#level": n} for n in (3, 1)}
    conditions["mild"] = {"corruption#kind": "motion", "corruption#level": "mild"}
    study = STUDY._replace(conditions=conditions)
    place = {"subject": "1", "protocol": "volume", "region": "brain", "method": "ours"}
    tables = {"A->B": 20.0, "A->B, noise 1": 18.0, "A->B, noise 3": 12.0, "A->B, mild": 15.0}
    rows = [{**place, "task": task, "psnr": psnr} for task, psnr in tables.items()]
    assert drops(study, "A->B", rows) == {"noise": {"ours": [(0, 20.0), (1, 18.0), (3, 12.0)]}}


@pytest.mark.slow
def test_a_study_runs_from_nothing_to_a_figure(tmp_path):
    small = {"pixel_mm": 4.0, "plane_size": [48, 64], "flat_epochs": 1, "decay_epochs": 0, "slices_per_volume": 2}
    small |= {"validation_slices": 2, "val_interval": 1, "device": "$torch.device('cpu')"}
    page = {
        "data": {"subjects": 4, "seed": 1, "spacing_mm": 4.0},
        "configs": ["quickstart.json"],
        "tasks": {"T1+FLAIR->T2": "tasks/brats_t1_flair_to_t2.json"},
        "methods": {
            "U-Net, L1": {"configs": ["networks/unet.json"], "set": {"plain_unet#features": [8, 8, 8, 8, 8, 8]}}
        },
        "budget": small,
        "conditions": {"noise 5": {"corruption#kind": "noise", "corruption#level": 5}},
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(page))
    comparing.compare(read_study(path, CONFIGS), bundle_root(), tmp_path / "out")
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert {"results.csv", "results.json", "results.md", "results.tex", "box_T1+FLAIR_to_T2.png"} <= written
    told = json.loads((tmp_path / "out" / "results.json").read_text())
    trivial = {"voxelwise linear", "copy of the last source"}
    for task, without_network in (("T1+FLAIR->T2", trivial), ("T1+FLAIR->T2, noise 5", set())):
        methods = {entry["method"] for entry in told["tasks"][task]["summary"] if entry["region"] == "brain"}
        assert methods >= {"U-Net, L1"} | without_network
    assert all(isinstance(row["psnr"], float | str) for row in told["rows"])
    assert not list((tmp_path / "out").rglob("last.pt"))
    assert [name for name in written if name.startswith("panel_")]


def test_figures_are_drawn_of_what_they_are_given(tmp_path):
    from PIL import Image

    rows = [
        {"method": name, "subject": str(s), "protocol": "volume", "region": "brain", "psnr": 20 + s + better}
        for name, better in (("ours", 2), ("theirs", 0))
        for s in range(5)
    ]
    draw_boxes(rows, tmp_path / "box.png", "A->B")
    y, x = np.mgrid[-1:1:48j, -1:1:40j]
    truth = np.where(x**2 + y**2 < 0.6, x, -1.0).astype(np.float32)[None]
    planes = {"image": np.concatenate([truth, -truth]), "label": truth, "pred": truth + 0.1}
    draw_panel({"ours": planes, "theirs": planes | {"pred": -truth}}, tmp_path / "panel.png")
    for name in ("box.png", "panel.png"):
        assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 10
