import hashlib
import io
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from hmf_networks.naming import refuse_existing
from hmf_networks.transforms.save import SaveSynthesisd

AFFINE = np.array([[-0.9, 0.1, 0, 40], [0.1, 0.9, 0.05, -30], [0, 0, 1.2, 5], [0, 0, 0, 1.0]])
SHAPE = (20, 22, 18)


@pytest.fixture
def sample(write_nifti):
    """A subject as it leaves Invertd: prediction on the grid of the source, image still upright."""
    random = np.random.default_rng(0)
    paths = [write_nifti(f"secret_{name}.nii.gz", random.random(SHAPE), AFFINE) for name in ("t1", "flair")]
    pred = MetaTensor(torch.rand(1, *SHAPE) * 1000, affine=torch.from_numpy(AFFINE))
    image = torch.rand(2, *SHAPE) * 2 - 1
    return {
        "patient": "lg01",
        "session": "",
        "layout": "brats",
        "source_paths": paths,
        "pred": pred,
        "image": image,
    }


def save(sample: dict, output_dir: Path, **options) -> Path:
    transform = SaveSynthesisd(
        "pred", output_dir=str(output_dir), target="t2", sources=["t1", "flair"], **options
    )
    return Path(transform(sample)["output_path"])


def test_the_volume_holds_the_prediction_on_the_grid_of_the_first_source(sample, tmp_path):
    path = save(sample, tmp_path / "out")
    assert path == tmp_path / "out" / "lg01" / "lg01_t2_synth.nii.gz"
    written, source = nibabel.load(path), nibabel.load(sample["source_paths"][0])
    np.testing.assert_array_equal(np.asarray(written.dataobj), sample["pred"][0].numpy())
    np.testing.assert_array_equal(written.affine, source.affine)


def test_the_sidecar_tells_where_the_volume_comes_from(sample, tmp_path):
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    sidecar = json.loads(
        (save(sample, tmp_path, weights_path=str(weights)).parent / "lg01_t2_synth.json").read_text()
    )
    assert sidecar["Sources"] == {"t1": "secret_t1.nii.gz", "flair": "secret_flair.nii.gz"}
    assert sidecar["WeightsSha256"] == hashlib.sha256(b"weights").hexdigest()
    assert sidecar["Target"] == "t2"
    assert "not acquired" in sidecar["Description"]
    assert "Not for diagnosis" in sidecar["Description"]
    assert str(tmp_path) not in json.dumps(sidecar)  # no folder of the hospital leaves it


def test_the_picture_has_a_column_for_each_source_and_the_synthesis(sample, tmp_path):
    path = save(sample, tmp_path)
    picture = Image.open(io.BytesIO((path.parent / "lg01_t2_synth.png").read_bytes()))
    alone = dict(sample, image=sample["image"][:1])
    transform = SaveSynthesisd(output_dir=str(tmp_path / "x"), target="t2", sources=["t1"])
    fewer = Image.open(
        Path(
            transform(dict(alone, source_paths=alone["source_paths"][:1]))["output_path"].replace(
                ".nii.gz", ".png"
            )
        )
    )
    assert (picture.width - 6) * 2 == (fewer.width - 6) * 3


def test_without_preview_there_is_no_picture(sample, tmp_path):
    path = save(sample, tmp_path / "out", preview=False)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "lg01_t2_synth.json",
        "lg01_t2_synth.nii.gz",
    ]


def test_a_bids_subject_becomes_a_bids_derivative(sample, tmp_path):
    path = save(sample | {"patient": "01", "session": "2", "layout": "bids"}, tmp_path)
    assert path == tmp_path / "sub-01" / "ses-2" / "anat" / "sub-01_ses-2_desc-synth_T2w.nii.gz"
    assert path.with_name("sub-01_ses-2_desc-synth_T2w.json").is_file()


@pytest.mark.parametrize("turned", [np.diag([-1.0, 1, 1, 1]) @ AFFINE, np.eye(4)])
def test_a_prediction_that_was_not_brought_back_is_refused(sample, tmp_path, turned):
    sample["pred"] = MetaTensor(sample["pred"].as_subclass(torch.Tensor), affine=torch.from_numpy(turned))
    with pytest.raises(ValueError, match="put Invertd before SaveSynthesisd"):
        save(sample, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_prediction_that_does_not_know_its_place_is_refused(sample, tmp_path):
    sample["pred"] = sample["pred"].as_subclass(torch.Tensor)
    with pytest.raises(ValueError, match="put Invertd before SaveSynthesisd"):
        save(sample, tmp_path / "out")


def test_existing_outputs_stop_the_run_before_it_begins_unless_told_otherwise(sample, tmp_path):
    records = [{"patient": name, "session": "", "layout": "brats"} for name in ("lg00", "lg01")]
    assert refuse_existing(records, "t2", tmp_path) == records
    path = save(sample, tmp_path, preview=False)
    with pytest.raises(FileExistsError, match=rf"1 output\(s\) exist already, e\.g\. {path}"):
        refuse_existing(records, "t2", tmp_path)
    assert refuse_existing(records, "t1", tmp_path) == records
    assert refuse_existing(records, "t2", tmp_path, overwrite=True) == records
