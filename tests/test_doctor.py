"""What is installed is told, and what does not work together is named with its cure."""

import json
import shutil
import subprocess
import sys

import pytest
from hmf_networks import doctor
from hmf_networks.bundles.find import bundle_root
from hmf_networks.cli import main
from hmf_networks.doctor import examine


@pytest.fixture
def bundle(tmp_path):
    shutil.copytree(bundle_root(), tmp_path / "bundle")
    return tmp_path / "bundle"


def found(bundle) -> dict[str, doctor.Check]:
    return {check.what: check for check in examine(bundle)}


def test_all_is_well_here(bundle):
    checks = found(bundle)
    assert {"python", "torch", "monai", "device", "memory", "scan", "weights", "one plane"} <= checks.keys()
    assert not [str(check) for check in checks.values() if check.cure and check.what not in ("memory", "scan")]


def test_an_old_or_missing_package_is_named_with_its_cure(bundle, monkeypatch):
    versions = {"monai": "1.5.1", "numpy": None, "torch": "2.13.0+cpu"}
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, "1.0"))
    checks = found(bundle)
    assert checks["monai"].cure == "pip install monai==1.6.1"
    assert checks["numpy"].found == "not installed"
    assert checks["numpy"].cure.startswith("pip install numpy==")
    assert not checks["torch"].cure
    assert "device" not in checks  # nothing more is tried


def test_it_starts_where_torch_is_missing():
    code = "import sys; sys.modules['torch'] = sys.modules['monai'] = None; import hmf_networks.doctor"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_other_weights_than_those_that_are_told_of_are_named(bundle):
    path = bundle / "models" / "model.pt"
    path.write_bytes(path.read_bytes() + b" ")
    check = found(bundle)["weights"]
    assert "SHA-256" in check.found
    assert check.cure


def test_the_command_ends_with_two_where_something_is_wrong(monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(doctor, "examine", lambda _bundle: iter([doctor.Check("a", "well")]))
    assert main(["doctor"]) == 0
    monkeypatch.setattr(doctor, "examine", lambda _bundle: iter([doctor.Check("a", "ill", "rest")]))
    assert main(["doctor"]) == 2
    assert "-> rest" in caplog.text


def test_info_tells_the_same_to_programs(caplog):
    caplog.set_level("INFO")
    assert main(["info", "--json"]) == 0
    told = json.loads(caplog.messages[-1])
    assert told["contrasts"] == ["t1", "t1c", "t2", "flair", "pd"]
    about = json.loads((bundle_root() / "models" / "model.json").read_text())
    assert told["weights_sha256"] in about["sha256"]
