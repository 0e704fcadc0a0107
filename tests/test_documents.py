"""What the documents show runs, and what they point to is there."""

import re
import tomllib
import urllib.parse

import pytest
from hmf_networks.bundles.find import bundle_root

REPOSITORY = bundle_root().parent
DOCUMENTS = sorted(
    path for folder in (".", "docs", "training", "bundle/docs") for path in REPOSITORY.glob(f"{folder}/*.md")
)
documents = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))


@pytest.mark.slow
def test_the_page_on_python_runs_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "python.md").read_text(), re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    said = capsys.readouterr().out
    assert "network: HMFMambaINR" in said
    assert (tmp_path / "scores" / "scores.csv").is_file()
    assert "torch.Size([1, 1, 128, 160]) torch.Size([1, 1, 2, 126])" in said


@documents
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#]+)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


@documents
def test_files_that_are_named_exist(document):
    text = document.read_text(encoding="utf-8")
    named = set(re.findall(r"\b(?:docs|benchmarks|tests|bundle|training)/[\w/]+\.(?:md|py|json)\b", text))
    named |= {f"bundle/configs/{name}" for name in re.findall(r"\b(?:tasks|networks)/\w+\.json", text)}
    written_later = {"bundle/runs/models/model.json"}
    assert [name for name in named - written_later if not (REPOSITORY / name).exists()] == []


def test_the_badges_are_true():
    badges = re.findall(r"img\.shields\.io/badge/([^)]+)-\w+\)", (REPOSITORY / "README.md").read_text(encoding="utf-8"))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (monai,) = (need for need in project["dependencies"] if need.startswith("monai"))
    assert urllib.parse.unquote(" ".join(badges)).replace("--", "-").replace("≥", ">=").split() == [
        f"license-{project['license']}",
        f"python-{project['requires-python']}",
        f"MONAI_bundle-{monai.removeprefix('monai')}",
        "use-research_only",
    ]
