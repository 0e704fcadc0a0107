import csv
import json
import logging
import math
from pathlib import Path

import pytest
import torch
from hmf_networks.reports.score_table import ScoreTable, volume_rows
from ignite.engine import Engine

SHAPE = (24, 26, 20)


def head() -> torch.Tensor:
    """A truth in [-1, 1]: smooth tissue in air, (X, Y, Z)."""
    x, y, z = torch.meshgrid(*(torch.linspace(0, 3, size) for size in SHAPE), indexing="ij")
    truth = torch.full(SHAPE, -1.0)
    inner = (slice(4, -4), slice(4, -4), slice(4, -4))
    truth[inner] = (0.8 * torch.sin(x * 2 + y) * torch.cos(z + y))[inner]
    return truth


def scores_of(rows: list[dict]) -> dict[tuple[str, str], dict]:
    return {(row["protocol"], row["region"]): row for row in rows}


def test_a_perfect_prediction_has_perfect_scores_under_every_protocol():
    rows = volume_rows(head(), head())
    assert {row["protocol"] for row in rows} == {"volume", "affine", "slice"}
    for row in rows:
        assert row["mae"] == pytest.approx(0, abs=1e-6)
        assert row["nmse"] == pytest.approx(0, abs=1e-6)
        assert row["ssim"] == pytest.approx(1, abs=1e-4)
        assert row["psnr"] > 80


def test_an_error_of_a_tenth_of_the_range_is_20_decibels():
    """[-1, 1] is a range of 2, scored as [0, 1]: an offset of 0.2 is an error of 0.1."""
    truth = head() * 0.8 - 0.1
    row = scores_of(volume_rows(truth + 0.2, truth))["volume", "whole"]
    assert row["mae"] == pytest.approx(0.1, abs=1e-5)
    assert row["psnr"] == pytest.approx(20, abs=1e-3)


def test_the_affine_protocol_forgives_scale_and_offset_inside_the_brain_and_volume_does_not():
    truth = head()
    prediction = torch.where(truth > -1, truth * 0.5 + 0.1, truth)
    scores = scores_of(volume_rows(prediction, truth))
    assert scores["affine", "brain"]["mae"] == pytest.approx(0, abs=1e-5)
    assert scores["volume", "brain"]["mae"] > 0.05


def test_a_prediction_beyond_the_range_is_scored_as_it_would_be_written():
    truth = head()
    wild = torch.where(truth > 0.5, 5.0, truth)
    clipped = torch.where(truth > 0.5, 1.0, truth)
    assert (
        scores_of(volume_rows(wild, truth))["volume", "whole"]
        == scores_of(volume_rows(clipped, truth))["volume", "whole"]
    )


def test_the_label_region_is_scored_by_itself_and_only_when_there_is_one():
    truth, region = head(), torch.zeros(1, *SHAPE)
    region[0, 8:12, 8:12, 8:12] = 1
    prediction = torch.where(region[0] > 0, truth + 0.2, truth).clamp(-1, 1)
    scores = scores_of(volume_rows(prediction, truth, region))
    assert scores["volume", "label"]["mae"] > 10 * scores["volume", "brain"]["mae"]
    for empty in (None, torch.zeros(1, *SHAPE)):
        assert ("volume", "label") not in scores_of(volume_rows(prediction, truth, empty))


def run(table: ScoreTable, patients: list[str]) -> None:
    """An evaluator whose network is 0.1 off; one volume a step, as the engine leaves it after a step."""

    def step(engine: Engine, patient: str) -> list[dict]:
        truth = head()[None]
        sources = torch.stack([truth[0], -truth[0]])
        engine.state.batch = [{"patient": patient, "session": "1"}]
        return [{"image": sources, "label": truth, "pred": truth + 0.1}]

    engine = Engine(step)
    table.attach(engine)
    engine.run(patients)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_network_and_rivals_are_scored_on_the_same_volumes(tmp_path, caplog):
    rivals = {"copy": lambda image: image[:, :1], "missing": None, "inverse": lambda image: image[:, 1:]}
    with caplog.at_level(logging.INFO):
        run(ScoreTable(str(tmp_path), method="ours", rivals=rivals), ["a", "b"])
    rows = rows_of(tmp_path / "scores.csv")
    assert {row["method"] for row in rows} == {"ours", "copy", "inverse"}
    assert {(row["subject"], row["session"]) for row in rows} == {("a", "1"), ("b", "1")}
    whole = {
        row["method"]: float(row["mae"]) for row in rows if (row["protocol"], row["region"]) == ("volume", "whole")
    }
    assert whole["copy"] == 0
    assert whole["ours"] == pytest.approx(0.05, abs=1e-5)
    assert whole["inverse"] > whole["ours"]
    assert "copy" in caplog.text
    assert "scores.csv" in caplog.text


def test_both_files_hold_the_same_rows(tmp_path):
    run(ScoreTable(str(tmp_path), method="ours"), ["a", "b"])
    from_csv, content = rows_of(tmp_path / "scores.csv"), json.loads((tmp_path / "scores.json").read_text())
    assert len(from_csv) == len(content["rows"]) > 0
    for one, other in zip(from_csv, content["rows"], strict=True):
        assert (one["method"], one["subject"], one["protocol"]) == (
            other["method"],
            other["subject"],
            other["protocol"],
        )
        assert math.isclose(float(one["mae"]), float(other["mae"]), rel_tol=1e-6)


def test_a_second_run_starts_from_an_empty_table(tmp_path):
    table = ScoreTable(str(tmp_path), method="ours")
    run(table, ["a", "b"])
    num_rows = len(rows_of(tmp_path / "scores.csv"))
    run(table, ["a"])
    assert len(rows_of(tmp_path / "scores.csv")) == num_rows / 2


def test_the_sessions_of_a_patient_count_as_one_subject(tmp_path):
    table = ScoreTable(str(tmp_path), method="ours")
    run(table, ["a", "a", "b"])
    summary = json.loads((tmp_path / "scores.json").read_text())["summary"]
    assert {entry["num_subjects"] for entry in summary} == {2}
