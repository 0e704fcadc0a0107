"""The bundle as MONAI sees it: every config complete, one network everywhere, metadata the schema takes."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from hmf_networks import __version__
from hmf_networks.naming import CONTRASTS
from hmf_networks.nets import HMFMambaINR
from monai.bundle import ConfigParser, ConfigWorkflow, verify_net_in_out

BUNDLE = Path(__file__).parent.parent / "bundle"
CONFIGS = BUNDLE / "configs"
PINS = (BUNDLE.parent / "constraints.txt").read_text()
OVERLAYS = sorted(
    path.relative_to(CONFIGS).as_posix() for path in CONFIGS.glob("*/*.json") if path.parent.name != "studies"
)


def read(*names: str) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([CONFIGS / name for name in names])
    return parser


@pytest.mark.parametrize(
    ("names", "workflow_type"),
    [
        (["train.json"], "train"),
        (["train.json", "evaluate.json"], "train"),
        (["train.json", "networks/quickstart.json", "quickstart.json"], "train"),
        (["inference.json"], "inference"),
        (["inference.json", "networks/quickstart.json"], "inference"),
    ],
)
def test_every_workflow_has_all_properties_that_monai_asks_for(names, workflow_type, simulated, tmp_path):
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / name) for name in names],
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=str(CONFIGS / "logging.conf"),
        workflow_type=workflow_type,
        bundle_root=str(BUNDLE),
        dataset_dir=str(simulated),
        output_dir=str(tmp_path),
        split=[0.5, 0.25, 0.25],
    )
    workflow.initialize()
    assert workflow.check_properties() == []


def test_what_is_validated_and_saved_is_the_average_and_not_the_network_in_training(simulated, tmp_path):
    parser = read("train.json", "networks/quickstart.json")
    for key, value in {"bundle_root": BUNDLE, "dataset_dir": simulated, "output_dir": tmp_path}.items():
        parser[key] = str(value)
    parser["split"] = [0.5, 0.25, 0.25]
    evaluator, average = (parser.get_parsed_content(key) for key in ("validate#evaluator", "average"))
    saver = parser.get_parsed_content("validate#handlers#0")
    assert evaluator.network is average.network is saver.network
    assert average.network is not parser.get_parsed_content("network")
    assert parser.get_parsed_content("train#trainer").network is parser.get_parsed_content("network")


def test_training_and_inference_describe_the_same_network_and_planes():
    train, inference = read("train.json"), read("inference.json")
    same = ("network_def", "sources", "targets", "any_subset", "pixel_mm", "plane", "plane_size", "foreground_box")
    for key in same:
        assert train[key] == inference[key], key


def test_several_processes_are_prepared_as_one_is():
    one, several = (read(*names)["initialize"] for names in (["train.json"], ["train.json", "multi_gpu_train.json"]))
    for entry in one:
        if isinstance(entry, dict) or "sys.path" in entry:
            assert entry in several, entry


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_changes_only_what_is_there(overlay):
    whole = read("train.json")
    for key in json.loads((CONFIGS / overlay).read_text()):
        if key == "_desc_":
            continue
        parent, _, name = key.rpartition("#")
        assert parent == "" or isinstance(whole.get(parent), dict), f"{overlay}: {key}"
        if parent != "network_def":  # a constructor argument may rest on its default
            assert key in whole, f"{overlay}: {key} is not in train.json, {name} would do nothing"


@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name.startswith("networks/")])
def test_every_network_overlay_builds_a_network_that_runs(overlay):
    parser = read("train.json", overlay)
    if isinstance(parser.get("network_def"), dict):
        parser["network_def#width"] = 8
    network = parser.get_parsed_content("network_def").eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 10, 32, 32)).shape == (1, 5, 32, 32)


@pytest.mark.parametrize("name", [name for name in OVERLAYS if name.startswith("tasks/")])
def test_a_task_names_known_contrasts_and_itself(name):
    task = json.loads((CONFIGS / name).read_text())
    assert {*task["sources"], task["target"]} <= set(CONTRASTS)
    assert task["target"] not in task["sources"]
    assert task["targets"] == [task["target"]]
    assert task["any_subset"] is False
    assert Path(name).stem.endswith("_".join([*task["sources"], "to", task["target"]]))


@pytest.mark.parametrize("name", [name for name in OVERLAYS if name.startswith("tasks/")])
def test_a_task_over_inference_has_a_network_without_masks_from_its_sources_to_its_target(name):
    parser = read("inference.json", name)
    parser["network_def#width"] = 8
    network = parser.get_parsed_content("network_def")
    arguments = {key: network.arguments[key] for key in ("in_channels", "out_channels", "num_masks")}
    assert arguments == {"in_channels": 2, "out_channels": 1, "num_masks": 0}
    assert parser.get_parsed_content("inferer").masks is False


def test_the_paper_s_network_is_what_the_class_builds_by_default():
    network = read("inference.json", "networks/paper.json").get_parsed_content("network_def")
    channels = {"in_channels": 10, "out_channels": 5, "num_masks": 5}
    with torch.device("meta"):
        assert network.arguments == HMFMambaINR().arguments | channels


def test_the_any_to_any_network_has_a_mask_for_every_source_and_the_inferer_gives_it():
    parser = read("inference.json")
    assert parser.get_parsed_content("sources") == parser.get_parsed_content("targets") == list(CONTRASTS)
    network = parser.get_parsed_content("network_def")
    assert (network.arguments["in_channels"], network.arguments["num_masks"]) == (10, 5)
    assert parser.get_parsed_content("inferer").masks is True


def test_expressions_are_short_and_hold_no_code():
    for path in CONFIGS.rglob("*.json"):
        for line in path.read_text().splitlines():
            assert '"$' not in line or not any(word in line for word in ("lambda", " for ")), f"{path}: {line}"


def test_the_inference_config_stands_alone():
    text = (CONFIGS / "inference.json").read_text()
    assert "@_meta_" not in text
    assert '"%' not in text.replace('"inference": "%run"', "")


def test_metadata_has_what_the_schema_and_the_zoo_require():
    metadata = json.loads((CONFIGS / "metadata.json").read_text())
    texts = ("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description")
    for key in (*texts, "authors", "copyright", "name"):
        assert isinstance(metadata[key], str), key
        assert metadata[key], key
    assert metadata["version"] == __version__
    assert metadata["version"] in metadata["changelog"]
    project = tomllib.loads((BUNDLE.parent / "pyproject.toml").read_text())["project"]
    needed = {re.match(r"[\w-]+", package).group() for package in project["dependencies"]}
    pinned = dict(line.split("==") for line in PINS.splitlines() if "==" in line)
    required = metadata["required_packages_version"]
    assert required.keys() == needed - {"torch", "monai", "numpy"}  # these have keys of their own
    assert required == {name: pinned[name] for name in required}
    formats = metadata["network_data_format"]
    for tensor in (formats["inputs"]["image"], formats["outputs"]["pred"]):
        assert {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range"} <= tensor.keys()


def test_the_network_takes_and_gives_the_shapes_that_metadata_declares():
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.json"),
        **{"network_def#width": 8},
    )


CHECK_UNDER_TORCHRUN = """
import sys
from monai.bundle import ConfigWorkflow
configs, dataset_dir, output_dir = sys.argv[1:]
workflow = ConfigWorkflow(
    config_file=[f"{configs}/train.json", f"{configs}/multi_gpu_train.json"],
    meta_file=f"{configs}/metadata.json", logging_file=False, workflow_type="train",
    dataset_dir=dataset_dir, output_dir=output_dir, split=[0.5, 0.25, 0.25],
)
workflow.initialize()
print("missing:", workflow.check_properties())
workflow.finalize()
"""


@pytest.mark.slow
def test_the_workflow_of_several_processes_has_all_properties_too(simulated, tmp_path):
    script = tmp_path / "check.py"
    script.write_text(CHECK_UNDER_TORCHRUN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
    done = subprocess.run(
        [*command, str(script), str(CONFIGS), str(simulated), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "missing: []" in done.stdout, done.stderr[-2000:]
