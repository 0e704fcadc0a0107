import csv
import json
import math

import numpy as np
import pytest
from hmf_networks import metrics
from hmf_networks.reports.table import METRICS, format_table, summarise, write_scores


def row(method: str = "copy", subject: str = "01", psnr: float = 30.0, **others) -> dict:
    scores = {"psnr": psnr, "ssim": 0.9, "ms_ssim": 0.95, "nmse": 0.01, "mae": 0.02}
    return {"method": method, "subject": subject, "protocol": "volume", "region": "brain", **scores, **others}


@pytest.fixture
def rows() -> list[dict]:
    """Two methods on 40 subjects, PSNR 20.0 to 23.9 and 5 dB above."""
    return [row(m, f"{i:02}", base + i / 10) for m, base in (("copy", 20), ("ours", 25)) for i in range(40)]


def test_the_summary_holds_means_and_counts_subjects(rows):
    copy, ours = summarise(rows)
    assert (copy["method"], copy["protocol"], copy["region"], copy["num_subjects"]) == ("copy", "volume", "brain", 40)
    assert copy["psnr"]["mean"] == pytest.approx(21.95)
    assert ours["psnr"]["mean"] == pytest.approx(26.95)
    assert ours["ssim"] == pytest.approx({"mean": 0.9, "low": 0.9, "high": 0.9})


def test_the_bootstrap_interval_is_the_normal_one_for_many_subjects(rows):
    psnr = summarise(rows)[0]["psnr"]
    half = 1.96 * np.std([20 + i / 10 for i in range(40)]) / math.sqrt(40)
    assert psnr["low"] == pytest.approx(psnr["mean"] - half, abs=0.05)
    assert psnr["high"] == pytest.approx(psnr["mean"] + half, abs=0.05)


def test_the_summary_repeats_and_follows_its_seed(rows):
    assert summarise(rows) == summarise(rows)
    assert summarise(rows, seed=1)[0]["psnr"] != summarise(rows)[0]["psnr"]


def test_the_order_of_the_rows_changes_no_figure(rows):
    by_method = {entry["method"]: entry for entry in summarise(rows[::-1])}
    assert [by_method["copy"], by_method["ours"]] == summarise(rows)


def test_an_interval_does_not_depend_on_the_other_methods(rows):
    assert summarise(rows[:40])[0] == summarise(rows)[0]


def test_a_subject_with_two_sessions_counts_once():
    (entry,) = summarise([row(psnr=20), row(psnr=30), row(subject="02", psnr=40)])
    assert entry["num_subjects"] == 2
    assert entry["psnr"]["mean"] == 32.5


def test_regions_and_protocols_are_never_mixed():
    summary = summarise([row(psnr=20), row(psnr=30, region="whole"), row(psnr=40, protocol="slice")])
    assert [entry["psnr"]["mean"] for entry in summary] == [20, 30, 40]


def test_a_score_that_is_missing_is_left_out():
    (entry,) = summarise([row(psnr=20), row(subject="02", psnr=30), row(subject="03", psnr=math.nan, nmse=None)])
    assert entry["psnr"]["mean"] == 25
    assert entry["num_subjects"] == 3
    (entry,) = summarise([row() | dict.fromkeys(METRICS, math.nan)])
    assert entry["num_subjects"] == 0
    assert math.isnan(entry["psnr"]["mean"])


def test_a_perfect_subject_makes_the_mean_infinite_and_breaks_nothing():
    (entry,) = summarise([row(psnr=math.inf), row(subject="02"), row(subject="03"), row(subject="04")])
    assert entry["psnr"]["mean"] == entry["psnr"]["high"] == math.inf
    assert entry["psnr"]["low"] == 30
    assert "30.00 to inf" in format_table([entry])


def test_the_table_is_aligned_markdown_under_its_protocol(rows):
    lines = format_table(summarise(rows)).splitlines()
    assert lines[0] == "Protocol volume, region brain, 40 subjects"
    assert lines[2] == "| method | PSNR dB | PSNR 95 % interval |   SSIM | MS-SSIM |   NMSE |    MAE |"
    assert lines[3] == "| ------ | ------: | -----------------: | -----: | ------: | -----: | -----: |"
    assert lines[5].startswith("| ours   |   26.95 |     26.")
    assert len({len(line) for line in lines[2:]}) == 1


def test_one_subject_has_no_interval():
    table = format_table(summarise([row()]))
    assert "1 subject\n" in table
    assert "| copy   |   30.00 |                  - | 0.9000 |  0.9500 | 0.0100 | 0.0200 |" in table


def test_the_heading_tells_when_the_methods_were_not_scored_on_the_same_subjects(rows):
    assert "39 to 40 subjects (the methods" in format_table(summarise(rows[1:]))


def test_a_table_of_scores_that_do_not_exist_is_an_error(rows):
    with pytest.raises(ValueError, match=r"no scores for slice/brain; there are volume/brain"):
        format_table(summarise(rows), protocol="slice")


def test_written_scores_give_the_same_summary_when_read_back(rows, tmp_path):
    rows += [row("ours", "40", math.inf, nmse=math.nan, seconds=np.float32(2.5))]
    write_scores(rows, tmp_path / "new" / "scores.csv", tmp_path / "new" / "scores.json")
    with (tmp_path / "new" / "scores.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    content = json.loads((tmp_path / "new" / "scores.json").read_text(), parse_constant=pytest.fail)
    assert table[-1]["seconds"] == "2.5"
    assert summarise(table) == summarise(content["rows"]) == summarise(rows)
    assert format_table(content["summary"]) == format_table(summarise(rows))


def test_a_failed_write_leaves_the_old_file_alone(rows, tmp_path):
    paths = tmp_path / "scores.csv", tmp_path / "scores.json"
    write_scores(rows, *paths)
    before = [path.read_bytes() for path in paths]
    with pytest.raises(TypeError):
        write_scores([row(extra=object())], *paths)
    assert [path.read_bytes() for path in paths] == before
    assert sorted(tmp_path.iterdir()) == sorted(paths)


def test_the_table_knows_every_measure():
    assert metrics.METRICS == METRICS


def test_scores_of_an_older_file_without_ms_ssim_are_still_read():
    older = [{key: str(value) for key, value in row(subject=s).items() if key != "ms_ssim"} for s in "ab"]
    (entry,) = summarise(older)
    assert entry["psnr"]["mean"] == 30
    assert "| 0.9000 |       - | 0.0100 |" in format_table([entry])
    del entry["ms_ssim"]  # as in an older JSON
    assert "| 0.9000 |       - | 0.0100 |" in format_table([entry])


def test_what_else_is_known_stands_in_the_json(rows, tmp_path):
    write_scores(rows, tmp_path / "a.csv", tmp_path / "a.json", more={"worst": [{"brain_psnr": math.inf}]})
    assert json.loads((tmp_path / "a.json").read_text())["worst"] == [{"brain_psnr": "inf"}]
