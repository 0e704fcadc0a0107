"""A bundle is judged by reading alone: whatever would run somebody's code is named, and ours has none."""

import json
import subprocess
import sys
import zipfile

import pytest
from hmf_networks.bundles.find import bundle_root
from hmf_networks.bundles.lint import lint_bundle
from hmf_networks.bundles.lint_config import is_allowed_target
from hmf_networks.bundles.lint_expression import faults_of_expression
from hmf_networks.bundles.pack import pack
from hmf_networks.cli import main

from tests.evil_bundles import KNOWN, archived, configured, harmless
from tests.evil_bundles_blind import BLIND


@pytest.fixture
def bundle(tmp_path):
    return harmless(tmp_path / "a_bundle")


def test_there_is_nothing_to_find_in_a_harmless_bundle(bundle):
    assert lint_bundle(bundle) == []
    assert lint_bundle(archived(bundle)) == []


def test_there_is_nothing_to_find_in_ours(tmp_path):
    packed = pack(tmp_path, bundle_root())
    for path in (bundle_root(), packed.folder, packed.archive):
        assert lint_bundle(path) == []


@pytest.mark.parametrize("spoil", KNOWN + BLIND)
def test_every_evil_bundle_is_found(spoil, bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = spoil(bundle) or bundle
    assert lint_bundle(path), spoil.__doc__
    if path == bundle:
        assert lint_bundle(archived(bundle)), "in an archive as well"
    assert not (tmp_path / "pwned").exists()


def test_our_package_is_known_by_its_bytes(tmp_path):
    packed = pack(tmp_path, bundle_root())
    (packed.folder / "hmf_networks" / "cli.py").open("a").write("\n")
    assert [finding.file for finding in lint_bundle(packed.folder)] == ["hmf_networks/cli.py"]


@pytest.mark.parametrize(
    "text",
    [
        "$import torch",
        "$import torch.distributed as dist",
        "$sys.path.insert(1, @bundle_root)",
        "$@network.to(@device)",
        "$@train#handlers[: -2 if dist.get_rank() > 0 else None]",
        "$[@a, @b][0] + 'x'",
        "$os.path.join(@root, 'a', '#b')",
        "$not @x",
        "$@##pixels / 2",
        "$[{'image': i} for i in @datalist]",
        '$torch.device(f"cuda:{@local_rank}")',
        "$setattr(torch.backends.cudnn, 'benchmark', True)",
        "$monai.data.load_decathlon_datalist(@path)",
    ],
)
def test_what_configs_need_is_allowed(text):
    assert list(faults_of_expression(text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "$import subprocess",
        "$import evil as torch",
        "$import os as np",
        "$from os import system",
        "$import torch; evil()",
        "$sys.path.insert(0, '/tmp')",
        "$sys.path.insert(0, *@paths)",
        "$os",
        "$os.system",
        "$@a.__class__",
        "$@a.system('x')",
        "$(lambda: 0)()",
        "$[x() for x in (1,)]",
        "$[x for a.b in (1,)]",
        "$[x for x in (1,) if evil]",
        "$f'{evil}'",
        "$@",
        "$@ ['imports']",
        "$'{0.x}'.format(@a)",
        "$getattr(@a, 'b')",
        "$(@a or @b)()",
        "$@a[0]()",
        "$torch.load('x')",
        "$torch.hub.load('x', 'y')",
        "$open('x')",
        "$__local_refs",
        "$(x := 1)",
        "$'@or' 'x",
        "$1 if",
    ],
)
def test_what_no_config_needs_is_not_allowed(text):
    assert list(faults_of_expression(text)) != []


@pytest.mark.parametrize(
    ("keys", "rule"),
    [
        ({"a": {"_target_": "torch.load", "f": "x"}}, "target"),
        ({"a": {"_target_": "$@x"}}, "target"),
        ({"a": {"_target_": ["os.system"]}}, "target"),
        ({"a": {"_target_": "monai.transforms.io.array.os.system"}}, "target"),
        ({"a": {"_target_": "monai.bundle.ConfigParser"}}, "target"),
        ({"a": {"_target_": "hmf_networks.atomic.write_whole"}}, "target"),
        ({"a": {"_target_": "Compose", "_mode_": "debug"}}, "mode"),
        ({"a": {"weights_only": False}}, "loading"),
        ({"a": {"_target_": "LoadImaged", "reader": ["NibabelReader", "evil.Reader"]}}, "reader"),
        ({"a": "%../other/train.json::run"}, "include"),
    ],
)
def test_the_rule_is_named_with_its_place(bundle, keys, rule):
    configured(bundle, **keys)
    (finding,) = lint_bundle(bundle)
    assert (finding.file, finding.rule) == ("configs/inference.json", rule)
    assert finding.key.startswith("a")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("large_files.yml", b"large_files:"),
        ("large_files.yml", b"large_files: 3"),
        ("large_files.json", b'{"large_files": [3]}'),
        ("configs/x.yaml", b"a: !!int ''"),
        ("configs/x.yaml", b"a: !!bool x"),
        ("models/x.safetensors", b"anything"),
    ],
)
def test_what_makes_no_sense_is_found_and_does_not_stop_it(bundle, name, content):
    (bundle / name).write_bytes(content)
    assert {finding.file for finding in lint_bundle(bundle)} == {name}


def test_broken_packing_is_found_in_weights_and_refused_in_an_archive(bundle):
    path = bundle / "models" / "model.pt"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(bundle / "x", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in archive.namelist():
            packed.writestr(name, archive.read(name))
    content = bytearray((bundle / "x").read_bytes())
    (bundle / "x").unlink()
    content[60:90] = bytes(30)
    path.write_bytes(content)
    assert {finding.file for finding in lint_bundle(bundle)} == {"models/model.pt"}
    outer = bundle.parent / "outer.zip"
    outer.write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as a zip"):
        lint_bundle(outer)


@pytest.mark.parametrize(
    ("name", "is_well"),
    [
        ("monai.networks.nets.unet.UNet", True),
        ("monai.inferers.inferer.SlidingWindowInferer", True),
        ("CheckpointLoader", True),
        ("monai.networks.nets.os.PathLike", False),
        ("monai.bundle.scripts.Popen", False),
        ("LogfileHandler", False),
        ("TrtHandler", False),
    ],
)
def test_targets_are_judged_by_their_module_and_name(name, is_well):
    assert is_allowed_target(name) == is_well


def test_a_key_that_is_there_twice_is_judged_twice(bundle):
    text = (bundle / "configs" / "train.json").read_text()
    (bundle / "configs" / "train.json").write_text('{"x": "$evil()", "x": 1, ' + text[1:])
    assert {finding.rule for finding in lint_bundle(bundle)} == {"config", "expression"}


def test_yaml_is_read_and_without_its_reader_not_trusted(bundle, monkeypatch):
    (bundle / "configs" / "more.yaml").write_text("a: 1\n")
    assert lint_bundle(bundle) == []
    (bundle / "configs" / "more.yaml").write_text("a: !!python/object/apply:os.system [x]\n")
    assert [finding.rule for finding in lint_bundle(bundle)] == ["config"]
    (bundle / "configs" / "more.yaml").write_text("a: $evil()\n")
    assert {finding.rule for finding in lint_bundle(bundle)} == {"expression"}
    (bundle / "configs" / "more.yaml").write_text("a: 1\n")
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert [finding.rule for finding in lint_bundle(bundle)] == ["config"]


def test_what_is_to_be_fetched_are_weights(bundle):
    for path, is_well in (("models/model.pt", True), ("fire.py", False), ("../model.pt", False)):
        (bundle / "large_files.yml").write_text(f"large_files:\n- path: {path}\n  url: x\n")
        assert (lint_bundle(bundle) == []) == is_well


def test_what_cannot_be_read_is_found(bundle):
    (bundle / "configs" / "train.json").write_bytes(b"\xff{}")
    (bundle / "models" / "other.pt").write_bytes(b"\x80\x02.")
    (bundle / "models" / "third.pt").write_bytes(b"PK\x03\x04")
    found = {finding.file for finding in lint_bundle(bundle)}
    assert found == {"configs/train.json", "models/other.pt", "models/third.pt"}


def test_an_archive_that_unpacks_to_very_much_is_found(bundle):
    path = archived(bundle)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{bundle.name}/docs/big.txt", bytes(2**22))
    assert [finding.rule for finding in lint_bundle(path)] == ["archive"]


def test_the_command_ends_with_two_where_there_is_something(bundle, caplog, tmp_path):
    caplog.set_level("INFO")
    assert main(["lint-bundle", str(bundle)]) == 0
    configured(bundle, a="$evil()")
    assert main(["lint-bundle", str(bundle), "--json"]) == 2
    (finding,) = json.loads(caplog.messages[-1])
    assert finding["key"] == "a"
    assert main(["lint-bundle", str(tmp_path / "nothing")]) == 1


def test_it_needs_neither_torch_nor_monai():
    code = "import sys, hmf_networks.bundles.lint; print({'torch', 'monai', 'numpy'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.stdout.strip() == "set()"
