"""The main job on simulated patients, through the configs alone: train, resume, evaluate, synthesise."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hmf_networks.data.head_phantom import simulate_heads
from hmf_networks.physics.head import make_head
from monai.bundle import ConfigWorkflow
from PIL import Image

from tests.heads import ball_labels

CONFIGS = Path(__file__).parent.parent / "bundle" / "configs"
TINY = {
    "network_def#width": 4,
    "network_def#state_size": 2,
    "network_def#num_residual_blocks": 1,
    "network_def#inr_hidden_channels": 8,
    "plane_size": [48, 64],
    "pixel_mm": 4.0,
}
SHORT = TINY | {
    "split": [0.5, 0.25, 0.25],
    "slices_per_volume": 4,
    "validation_slices": 3,
    "batch_size": 4,
    "flat_epochs": 1,
    "decay_epochs": 1,
    "discriminator_def#channels": 4,
    "discriminator_def#num_layers_d": 1,
}
FROM_MAPS = {key: value for key, value in SHORT.items() if key != "split"} | {
    "pixel_mm": 1.0,
    "slices_per_map": 4,
    "validation_slices": 2,
    "maps#counts": [1, 1, 0],
}


def run(names: list[str], run_id: str, **overrides: object) -> ConfigWorkflow:
    workflow = ConfigWorkflow(
        config_file=[str(CONFIGS / name) for name in names],
        meta_file=str(CONFIGS / "metadata.json"),
        logging_file=False,
        workflow_type="inference" if run_id == "inference" else "train",
        run_id=run_id,
        bundle_root=str(CONFIGS.parent),
        **overrides,
    )
    workflow.initialize()
    workflow.run()
    return workflow


@pytest.fixture(scope="module")
def trained(simulated, tmp_path_factory) -> Path:
    """Output folder of a training run of two epochs."""
    output_dir = tmp_path_factory.mktemp("run")
    run(["train.json"], "training", dataset_dir=str(simulated), output_dir=str(output_dir), **SHORT)
    return output_dir


def test_training_leaves_a_datalist_weights_and_a_checkpoint(trained):
    datalist = json.loads((trained / "datalist.json").read_text())
    assert [len(datalist[part]) for part in ("training", "validation", "testing")] == [2, 1, 1]
    assert list((trained / "tensorboard").iterdir())
    weights = torch.load(trained / "models" / "model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in weights.values())
    assert torch.load(trained / "models" / "last.pt", weights_only=True)["progress"]["epoch"] == 2


def test_a_resumed_run_goes_on_at_the_next_epoch(trained, simulated):
    longer = SHORT | {"decay_epochs": 2, "resume": True}
    workflow = run(["train.json"], "training", dataset_dir=str(simulated), output_dir=str(trained), **longer)
    trainer = workflow.parser.get_parsed_content("train#trainer")
    assert trainer.state.epoch == 3
    assert trainer.state.iteration == 3 * len(trainer.data_loader)
    assert torch.load(trained / "models" / "last.pt", weights_only=True)["progress"]["epoch"] == 3


def test_evaluation_scores_the_network_and_its_rivals_under_named_protocols(trained, simulated):
    run(["train.json", "evaluate.json"], "evaluating", dataset_dir=str(simulated), output_dir=str(trained), **SHORT)
    with (trained / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["method"] for row in rows} == {"HMF-MambaINR", "voxelwise linear", "copy of the last source"}
    assert {row["protocol"] for row in rows} == {"volume", "affine", "slice"}
    assert {row["target"] for row in rows} == {"t1", "t2", "flair"}  # what the patients have, but t1c
    brain = {
        row["method"]: float(row["psnr"])
        for row in rows
        if (row["protocol"], row["region"], row["target"]) == ("volume", "brain", "t2")
    }
    assert brain["voxelwise linear"] > brain["copy of the last source"]
    assert json.loads((trained / "scores.json").read_text())["summary"]


def test_inference_writes_the_missing_contrast_on_the_grid_of_the_first_source(trained, simulated, tmp_path):
    arguments = {"dataset_dir": str(simulated), "ckpt_path": str(trained / "models" / "model.pt"), **TINY}
    arguments["target"] = "t2"
    run(["inference.json"], "inference", output_dir=str(tmp_path / "out"), **arguments)
    for patient in sorted(path for path in simulated.iterdir() if path.is_dir()):
        name = patient.name.rsplit("-", 1)[0] + "_000"
        written = nibabel.load(tmp_path / "out" / name / f"{name}_t2_synth.nii.gz")
        source = nibabel.load(patient / f"{patient.name}-t1n.nii.gz")
        for field in ("pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "quatern_b", "qoffset_x"):
            assert written.header[field].tobytes() == source.header[field].tobytes(), field
        values, mask = written.get_fdata(), source.get_fdata() != 0
        assert values.shape == source.shape
        assert values.min() == 0
        assert values.max() <= 1000
        assert values[mask].std() > 0
        assert values[~mask & (nibabel.load(patient / f"{patient.name}-t2f.nii.gz").get_fdata() == 0)].max() == 0
        sidecar = json.loads((tmp_path / "out" / name / f"{name}_t2_synth.json").read_text())
        assert sidecar["Sources"]["t1"] == f"{patient.name}-t1n.nii.gz"
        assert len(sidecar["WeightsSha256"]) == 64
        picture = np.asarray(Image.open(tmp_path / "out" / name / f"{name}_t2_synth.png"))
        assert picture.std() > 10
    with pytest.raises(RuntimeError) as refused:  # MONAI wraps our FileExistsError
        run(["inference.json"], "inference", output_dir=str(tmp_path / "out"), **arguments)
    assert "exist already" in f"{refused.value.__cause__}{refused.value.__context__}{refused.value}"


def test_a_fixed_task_trains_evaluates_and_synthesises_from_the_same_overlay(simulated, tmp_path):
    task = "tasks/brats_t2_flair_to_t1.json"
    arguments = {"dataset_dir": str(simulated), "output_dir": str(tmp_path / "run")}
    short = SHORT | {"decay_epochs": 0, "slices_per_volume": 2}
    run(["train.json", task], "training", **arguments, **short)
    about = json.loads((tmp_path / "run" / "models" / "model.json").read_text())
    assert (about["sources"], about["targets"], about["any_subset"]) == (["t2", "flair"], ["t1"], False)
    run(["train.json", task, "evaluate.json"], "evaluating", **arguments, **short)
    with (tmp_path / "run" / "scores.csv").open() as file:
        assert {row["target"] for row in csv.DictReader(file)} == {"t1"}
    arguments |= {"output_dir": str(tmp_path / "out"), "ckpt_path": str(tmp_path / "run/models/model.pt")}
    run(["inference.json", task], "inference", **arguments, **TINY)
    assert len(list((tmp_path / "out").rglob("*_t1_synth.nii.gz"))) == 4


@pytest.fixture(scope="module")
def from_maps(tmp_path_factory) -> Path:
    """Folder with label maps, and in `run` what a training on nothing else left."""
    folder = tmp_path_factory.mktemp("from_maps")
    (folder / "maps").mkdir()
    for name in ("a", "b"):
        image = nibabel.Nifti1Image(ball_labels().astype(np.uint16), np.eye(4))
        nibabel.save(image, folder / "maps" / f"{name}.nii.gz")
    arguments = {"labels_dir": str(folder / "maps"), "output_dir": str(folder / "run")}
    run(["train.json", "simulated.json"], "training", **arguments, **FROM_MAPS)
    return folder


def test_training_needs_no_scan_where_there_are_label_maps(from_maps):
    weights = torch.load(from_maps / "run" / "models" / "model.pt")
    assert all(value.isfinite().all() for value in weights.values())


def test_patients_are_mixed_in_with_skull_and_without(from_maps, tmp_path):
    heads = [make_head(ball_labels())]
    arguments = {"num_subjects": 2, "seed": 0, "spacing_mm": 2.0, "stripped_share": 0.0}
    simulate_heads(tmp_path / "patients", heads, **arguments)
    patients = tmp_path / "patients" / "scans"
    names = [path.name.rsplit("-", 1)[0] for path in sorted(patients.iterdir())]
    files = ["train.json", "simulated.json", "fine_tune.json"]
    started = str(from_maps / "run" / "models" / "model.pt")
    arguments = {"labels_dir": str(from_maps / "maps"), "dataset_dir": str(patients), "initial_weights": started}
    arguments |= {"training_patients": names[:1], "validation_patients": names[1:], "real_slices": 3}
    arguments |= {"output_dir": str(tmp_path / "run"), "half_precision_weights": True}
    workflow = run(files, "training", **arguments, **FROM_MAPS | {"plane_size": [96, 96]})
    before, after = torch.load(started), torch.load(tmp_path / "run" / "models" / "model.pt")
    assert all(value.isfinite().all() for value in after.values())
    assert any((after[name] != value).any() for name, value in before.items())
    heads, brains, _ = workflow.parser.get_parsed_content("train#dataset").datasets
    shown = [
        torch.cat([sample["label"] for number in range(3) for sample in dataset[number]]) > -1
        for dataset in (heads, brains)
    ]
    assert 0 < shown[1].sum() < 0.8 * shown[0].sum()


@pytest.mark.slow
def test_two_processes_train_one_epoch_together(simulated, tmp_path):
    overrides = SHORT | {"decay_epochs": 0, "slices_per_volume": 2}
    files = [str(CONFIGS / name) for name in ("train.json", "multi_gpu_train.json")]
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "monai.bundle",
        "run",
        "training",
    ]
    command += [
        "--config_file",
        str(files),
        "--bundle_root",
        str(CONFIGS.parent),
        "--dataset_dir",
        str(simulated),
        "--output_dir",
        str(tmp_path),
    ]
    for name, value in overrides.items():
        command += [f"--{name}", str(value)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    weights = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    assert not any(name.startswith("module.") for name in weights)
    assert torch.load(tmp_path / "models" / "last.pt", weights_only=True)["progress"]["epoch"] == 1
