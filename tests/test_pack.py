"""The packed bundle: whole, the same bytes every time, and nothing of one machine in it."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import hmf_networks
import pytest
from hmf_networks.bundles import pack as packing
from hmf_networks.bundles.find import bundle_root
from hmf_networks.bundles.pack import NAME, NEEDED, faults_of, for_the_zoo, members_of, pack
from hmf_networks.cli import main
from hmf_networks.nets import HMFMambaINR
from monai.bundle import ConfigParser, create_workflow, load
from monai.bundle.utils import load_bundle_config

BUNDLE = bundle_root()


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    return pack(tmp_path_factory.mktemp("packed"), BUNDLE)


@pytest.fixture
def bundle(tmp_path):
    """A copy to spoil."""
    shutil.copytree(BUNDLE, tmp_path / "bundle")
    shutil.copy(BUNDLE.parent / "LICENSE", tmp_path / "bundle")
    return tmp_path / "bundle"


def test_the_folder_holds_all_that_the_zoo_asks_for_and_the_package(packed):
    there = {path.relative_to(packed.folder).as_posix() for path in packed.folder.rglob("*") if path.is_file()}
    assert set(NEEDED) <= there
    code = {path.relative_to(packing.PACKAGE.parent).as_posix() for path in packing.PACKAGE.rglob("*.py")}
    assert code <= there
    assert {path.split("/")[0] for path in there} == {"LICENSE", "configs", "docs", "models", "hmf_networks"}
    assert not [name for name in there if "__pycache__" in name or name.endswith(".so")]
    assert sorted(path.name for path in packed.folder.parent.iterdir()) == [NAME, f"{NAME}_v{packed.version}.zip"]


def test_the_zip_is_the_folder_in_the_same_bytes_every_time(packed, tmp_path):
    again = pack(tmp_path, BUNDLE)
    assert again.archive.read_bytes() == packed.archive.read_bytes()
    with zipfile.ZipFile(packed.archive) as archive:
        assert archive.testzip() is None
        assert {name.split("/")[0] for name in archive.namelist()} == {packed.archive.stem}
        for name in archive.namelist():
            assert archive.read(name) == (packed.folder / name.partition("/")[2]).read_bytes()


def test_the_version_is_that_of_the_package(packed):
    assert packed.version == hmf_networks.__version__


def test_monai_reads_the_folder_and_the_zip(packed, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for path in (packed.folder, packed.archive):
        parser = load_bundle_config(str(path), "inference.json")
        assert isinstance(parser, ConfigParser)
        assert parser["_meta_#version"] == packed.version
        assert isinstance(parser.get_parsed_content("network_def"), HMFMambaINR)
    assert isinstance(load(NAME, bundle_dir=str(packed.folder.parent)), HMFMambaINR)
    workflow = create_workflow(
        config_file=str(packed.folder / "configs" / "inference.json"),
        workflow_type="inference",
        bundle_root=str(packed.folder),
        dataset_dir=str(tmp_path),
    )
    assert isinstance(workflow.network_def, HMFMambaINR)


def test_what_is_there_is_replaced_only_when_asked_to(tmp_path):
    first = pack(tmp_path, BUNDLE)
    (first.folder / "mine").write_text("mine")
    with pytest.raises(FileExistsError, match="--overwrite"):
        pack(tmp_path, BUNDLE)
    assert (first.folder / "mine").is_file()
    pack(tmp_path, BUNDLE, overwrite=True)
    assert not (first.folder / "mine").exists()


@pytest.mark.parametrize(
    ("name", "old", "new", "fault"),
    [
        ("configs/train.json", "/workspace/data/brats", "/home/somebody/brats", "configs/train.json"),
        ("docs/README.md", "# Model", "C:\\Users\\somebody # Model", "docs/README.md"),
        ("configs/metadata.json", '"task"', '"tusk"', "lacks task"),
        ("configs/metadata.json", '"version": "0', '"version": "9', "changelog"),
        ("models/model.json", '"sha256"', '"sha1"', "other weights"),
    ],
)
def test_what_is_not_fit_to_be_published_is_refused_and_nothing_is_left(bundle, tmp_path, name, old, new, fault):
    text = (bundle / name).read_text(encoding="utf-8")
    assert old in text
    (bundle / name).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ValueError, match=fault):
        pack(tmp_path / "out", bundle)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_missing_file_is_named(bundle):
    (bundle / "models" / "model.pt").unlink()
    assert list(faults_of(members_of(bundle))) == ["missing: models/model.pt"]


def test_large_files_are_told_with_their_hashes(packed, monkeypatch):
    assert packed.large == []
    assert "no large_files.yml" in for_the_zoo(packed)
    monkeypatch.setattr(packing, "LARGEST_MB", 5)
    large = packing.large_files(members_of(BUNDLE))
    assert large == ["models/model.pt"]
    told = for_the_zoo(packed._replace(large=large))
    assert "- path: 'models/model.pt'" in told
    assert json.loads((BUNDLE / "models" / "model.json").read_text())["sha256"][0] in told


def test_the_card_parses_as_hugging_face_wants_it(packed, tmp_path):
    scripts = pytest.importorskip("monai.bundle.scripts")
    shutil.copytree(packed.folder / "docs", tmp_path / "docs")
    shutil.copy(packed.folder / "LICENSE", tmp_path)
    card = Path(shutil.copy(packed.folder / "docs" / "README.md", tmp_path / "README.md"))
    scripts._add_model_card_metadata(str(card))
    _, header, body = card.read_text(encoding="utf-8").split("---\n", 2)
    fields = dict(line.split(": ") for line in header.splitlines() if ": " in line)
    assert fields == {"library_name": "monai", "license": "apache-2.0"}
    assert body.startswith("# Model overview")


def test_the_command_says_where_it_put_it(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["pack"]) == 0
    assert (tmp_path / "dist" / NAME / "LICENSE").is_file()
    assert main(["pack"]) == 1
    assert "--overwrite" in capfd.readouterr().err


def test_the_packed_package_finds_the_bundle_around_it(packed, tmp_path):
    code = "from hmf_networks.bundles.find import bundle_root; print(bundle_root())"
    answer = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(packed.folder)},
        capture_output=True,
        text=True,
    )
    assert Path(answer.stdout.strip()) == packed.folder
