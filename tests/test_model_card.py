"""`hmf card`: its tables are those of the results, and no figure stands in it that was not measured."""

import json
import re
from pathlib import Path

import pytest
from hmf_networks.cli import main
from hmf_networks.hashing import file_hash
from hmf_networks.reports.card_prose import figures_in, loose_tables, prose_of
from hmf_networks.reports.card_table import card_table
from hmf_networks.reports.results import VIEWS, view_of

BUNDLE = Path(__file__).parent.parent / "bundle"
CARD = """# Card

The network reaches PROSE on held-out patients.

<!-- results: held_out -->

Not measured yet.

<!-- end -->

<!-- results: volume -->

Not measured yet.

<!-- end -->

<!-- results: uncertainty -->

Not measured yet.

<!-- end -->
"""
METADATA = '{\n    "name": "x",\n    "eval_metrics": {},\n    "short": ["a", "b"]\n}\n'


def entry(method: str, psnr: float, ssim: float, **more: object) -> dict:
    scores = {"psnr": mean_of(psnr, 1.0), "ssim": mean_of(ssim, 0.01)}
    place = {"group": "held out", "task": "t1->t2", "variant": "as it is", "protocol": "volume"}
    return place | {"method": method, "region": "brain", "num_subjects": 2} | scores | more


def mean_of(value: float, margin: float) -> dict[str, float]:
    return {"mean": value, "low": value - margin, "high": value + margin}


@pytest.fixture
def home(tmp_path) -> Path:
    """A bundle with its card and weights, and results of these weights."""
    for folder in ("bundle/docs", "bundle/configs", "bundle/models", "docs/results"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "bundle/configs/metadata.json").write_text(METADATA)
    weights = tmp_path / "bundle/models/model.pt"
    weights.write_bytes(b"weights")
    settings = {"settings": {"weights_sha256": file_hash(weights)}}
    summary = [entry("HMF-MambaINR", 24.31, 0.912), entry("voxelwise linear", 21.0, 0.8)]
    summary.append(entry("HMF-MambaINR", 30.0, 0.95, region="whole"))
    put(tmp_path, "held_out", settings | {"summary": summary})
    row = {"hmf synthesize": {"seconds": 23.46, "peak MB": 1500.0}}
    machine = {"cpu": "a processor", "threads": 2}
    put(tmp_path, "volume", settings | {"title": "cold start", "machine": machine, "rows": row})
    rank = {"task": "t1->t2", "spearman": 0.61, "ause": mean_of(0.02, 0.01), "coverage": {"50": 0.48, "95": 0.9}}
    put(tmp_path, "uncertainty", settings | {"tasks": [rank]})
    say(tmp_path, "24.3 dB (SSIM 0.91) in 23 s")
    return tmp_path


def put(home: Path, name: str, content: dict) -> None:
    (home / f"docs/results/{name}.json").write_text(json.dumps(content))


def say(home: Path, prose: str) -> None:
    (home / "bundle/docs/README.md").write_text(CARD.replace("PROSE", prose))


def card(home: Path, option: str) -> int:
    return main(["card", option, "--bundle", str(home / "bundle")])


def change(home: Path, old: str, new: str, path: str = "bundle/docs/README.md") -> None:
    text = (home / path).read_text()
    assert old in text
    (home / path).write_text(text.replace(old, new, 1))


def test_what_was_written_passes_and_writing_again_changes_nothing(home):
    assert card(home, "--write") == 0
    files = [home / "bundle/docs/README.md", home / "bundle/configs/metadata.json"]
    written = [path.read_text() for path in files]
    assert "24.31 (23.31 to 25.31)" in written[0]
    assert "+3.31" in written[0]
    assert card(home, "--check") == 0
    assert card(home, "--write") == 0
    assert [path.read_text() for path in files] == written


def test_metadata_gets_the_scores_and_keeps_its_form(home):
    card(home, "--write")
    text = (home / "bundle/configs/metadata.json").read_text()
    metrics = json.loads(text)["eval_metrics"]
    assert metrics == {"held_out": {"held out": {"t1->t2": {"psnr_db": 24.31, "ssim": 0.912, "num_subjects": 2}}}}
    assert '"short": ["a", "b"]' in text


@pytest.mark.parametrize(
    ("path", "old", "new", "complaint"),
    [
        ("bundle/docs/README.md", "24.31 (", "24.81 (", "the card says 24.81 (23.31 to 25.31), the results give"),
        ("bundle/docs/README.md", "24.3 dB", "25.9 dB", "README.md:3: 25.9 dB is in no table"),
        ("bundle/docs/README.md", "SSIM 0.91", "SSIM 0.97", "README.md:3: SSIM 0.97 is in no table"),
        ("bundle/docs/README.md", "in 23 s", "in 12 s", "README.md:3: 12 s is in no table"),
        ("bundle/configs/metadata.json", "24.31", "26.31", "psnr_db: it says 26.31, the results give 24.31"),
        ("docs/results/volume.json", "weights_sha256", "sha", "volume.json: measured of weights that it does not"),
        ("docs/results/volume.json", "settings", 'settings": {"fast": true}, "of', "measured with --fast"),
        ("bundle/models/model.pt", "weights", "others", "held_out.json: measured of weights"),
    ],
)
def test_whatever_is_changed_is_named(home, capsys, path, old, new, complaint):
    card(home, "--write")
    change(home, old, new, path)
    assert card(home, "--check") == 2
    assert complaint in capsys.readouterr().err


def test_a_changed_cell_is_named_with_its_own_line(home, capsys):
    card(home, "--write")
    change(home, "1500", "1400")
    lines = (home / "bundle/docs/README.md").read_text().splitlines()
    line = next(number for number, text in enumerate(lines, 1) if "1400" in text)
    card(home, "--check")
    assert f"README.md:{line}: the card says 1400, the results give 1500 (volume)" in capsys.readouterr().err


def test_results_are_asked_for_where_the_card_has_none_and_the_card_where_results_are_gone(home, capsys):
    assert card(home, "--check") == 2
    assert "but there are results for 'held_out'" in capsys.readouterr().err
    card(home, "--write")
    (home / "docs/results/uncertainty.json").unlink()
    assert card(home, "--check") == 2
    assert "there is no uncertainty.json" in capsys.readouterr().err


def test_without_any_results_an_empty_card_passes_and_a_figure_does_not(home):
    for path in (home / "docs/results").iterdir():
        path.unlink()
    say(home, "nothing")
    assert card(home, "--check") == 0
    say(home, "24.3 dB")
    assert card(home, "--check") == 2


def test_weights_trained_on_simulation_only_may_be_others(home):
    put(home, "held_out_simulation_only", {"weights_sha256": "another", "summary": [entry("HMF-MambaINR", 22, 0.9)]})
    card(home, "--write")
    assert card(home, "--check") == 0


@pytest.mark.parametrize(
    ("old", "new"), [("<!-- results: volume -->", "<!-- results: volumes -->"), ("<!-- end -->", "")]
)
def test_markers_that_cannot_be_meant_are_refused(home, capsys, old, new):
    change(home, old, new)
    assert card(home, "--check") == 1
    assert "README.md" in capsys.readouterr().err


def test_figures_are_found_in_prose_and_nowhere_else():
    text = (
        "From 18 to 24.5 dB, SSIM of 0.91 in the brain\nand 0.95 at 0.70 mm. Later 0.33.\n"
        "It took 20 s for 60 slices. `9 dB` <!-- 8 dB -->\n```\n7 dB\n```\n"
    )
    found = [(figure.unit, figure.quoted, figure.line) for figure in figures_in(prose_of(text, []))]
    assert found == [("dB", "18", 1), ("dB", "24.5", 1), ("s", "20", 3), ("SSIM", "0.91", 1), ("SSIM", "0.95", 2)]


def test_a_table_of_scores_needs_markers():
    assert loose_tables("words\n\n| method | PSNR dB |\n|---|--:|\n| x | 30 |\n\n| a | b |\n|---|---|\n") == [3]


def test_uncertainty_is_read_under_several_keys():
    flat = {"summary": [{"task": "t1->t2", "spearman": 0.6, "ause": 0.1, "coverage_50": 0.5, "coverage_95": 0.9}]}
    nested = {"tasks": {"t1->t2": {"Spearman": {"mean": 0.6}, "AUSE": 0.1, "covered": {"0.5": 0.5, "0.95": 0.9}}}}
    one, other = (card_table(content, "uncertainty") for content in (flat, nested))
    assert one == other
    assert "0.600" in one
    with pytest.raises(ValueError, match="hold nothing"):
        card_table({"rows": []}, "uncertainty")


def test_the_card_of_this_bundle_agrees_with_its_results(capsys):
    assert main(["card", "--check"]) == 0, capsys.readouterr().err
    marked = re.findall("<!-- results: (.+) -->", (BUNDLE / "docs" / "README.md").read_text(encoding="utf-8"))
    assert {view_of(what) for what in marked} == {(name, view) for name in VIEWS for view in VIEWS[name]}
