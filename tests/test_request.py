"""What a MONAI Label client asks for becomes a record, or one sentence; it gets what inference writes."""

import sys
import types
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hmf_networks.bundles.find import bundle_root
from hmf_networks.cli import main
from hmf_networks.engines.request import LoadStudyd
from hmf_networks.engines.weights import load_weights
from hmf_networks.naming import CONTRASTS
from hmf_networks.nifti.codes import VolumeError
from monai.bundle import ConfigParser
from monai.transforms import SaveImaged


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """T1 and FLAIR of one simulated patient, in one folder."""
    folder = tmp_path_factory.mktemp("request")
    main(["simulate", str(folder / "all"), "--subjects", "1", "--spacing", "4"])
    (folder / "study").mkdir()
    for path in (folder / "all").rglob("*.nii.gz"):
        if path.name.endswith(("t1n.nii.gz", "t2f.nii.gz")):
            path.rename(folder / "study" / path.name)
    return folder / "study"


@pytest.fixture
def scans(study) -> dict[str, Path]:
    t1, flair = (next(study.glob(f"*-{name}.nii.gz")) for name in ("t1n", "t2f"))
    return {"t1": t1, "flair": flair}


def recorded(**request) -> dict:
    return LoadStudyd("image", load=dict, targets=CONTRASTS)(request)


@pytest.fixture
def four_dimensional(scans, tmp_path) -> Path:
    images = [nibabel.load(path) for path in scans.values()]
    values = np.stack([image.get_fdata(dtype=np.float32) for image in images], axis=3)
    path = tmp_path / "study.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, images[0].affine), path)
    return path


def test_a_file_brings_its_siblings(scans):
    record = recorded(image=str(scans["flair"]), device="cpu")
    assert {name: record[name] for name in CONTRASTS if name in record} == {
        name: str(path) for name, path in scans.items()
    }
    assert record["target"] == "t2"
    assert record["device"] == "cpu"
    assert "image" not in record


def test_files_that_the_request_names_come_first(scans, tmp_path):
    record = recorded(image=str(tmp_path / "any.nii.gz"), t1=str(scans["t1"]), target="flair")
    assert record["t1"] == str(scans["t1"])
    assert "flair" not in record
    assert (record["target"], record["patient"]) == ("flair", "any")


def test_volumes_of_a_file_are_called_by_the_request_or_its_name_or_as_usual(four_dimensional, caplog):
    for renamed, request in (("study", {"contrasts": "t2, pd"}), ("x_t2_pd", {}), ("y", {"contrasts": ["t2", "pd"]})):
        path = four_dimensional.rename(four_dimensional.with_name(f"{renamed}.nii.gz"))
        record = recorded(image=str(path), **request)
        assert record["volumes"] == {"t2": 0, "pd": 1}
        assert record["target"] == "flair"
        four_dimensional = path
    assert not caplog.records
    path = four_dimensional.rename(four_dimensional.with_name("z.nii.gz"))
    assert recorded(image=str(path))["volumes"] == {"t1": 0, "flair": 1}
    assert "taken for t1, flair" in caplog.text
    for names in ("t1", "t1,t1", ["t1", "t2", "pd"]):
        with pytest.raises(ValueError, match=r"2 volumes and \d names"):
            recorded(image=str(path), contrasts=names)
    with pytest.raises(ValueError, match="contrasts are 3"):
        recorded(image=str(path), contrasts=3)


def test_all_targets_that_could_be_chosen_are_no_choice(scans):
    assert recorded(image=str(scans["t1"]), target=["what is missing", "t1"])["target"] == "t2"
    assert recorded(image=str(scans["t1"]), target="what is missing")["target"] == "t2"
    with pytest.raises(ValueError, match="unknown target 'swi'"):
        recorded(image=str(scans["t1"]), target="swi")
    with pytest.raises(ValueError, match="unknown target 'pd'"):
        LoadStudyd("image", load=dict, targets=["t2"])({"image": str(scans["t1"]), "target": "pd"})


def test_a_request_cannot_set_what_belongs_to_records(scans):
    record = recorded(image=str(scans["t1"]), targets=["pd"], volumes="x", layout="bids", label="x")
    assert not {"targets", "volumes", "label"} & record.keys()
    assert record["layout"] != "bids"


def test_what_cannot_be_told_is_said_in_a_sentence(scans, tmp_path):
    unknown = tmp_path / "scan.nii.gz"
    unknown.write_bytes(scans["t1"].read_bytes())
    with pytest.raises(ValueError, match="say so in the request"):
        recorded(image=str(unknown))
    with pytest.raises(VolumeError):
        recorded(image=str(tmp_path / "nothing.nii.gz"))
    everything = {name: str(scans["t1"]) for name in CONTRASTS}
    with pytest.raises(ValueError, match="name a target"):
        recorded(image="x.nii.gz", **everything)


def test_a_server_answers_with_that_sentence(monkeypatch):
    class HTTPError(Exception):
        pass

    monkeypatch.setitem(sys.modules, "starlette.exceptions", types.SimpleNamespace(HTTPException=HTTPError))
    with pytest.raises(HTTPError, match="nothing"):
        recorded(image="/nothing.nii.gz")


def test_a_record_stays_as_it_is():
    record = {"patient": "1", "t1": "x", "target": "t2"}
    assert recorded(**record) == record


def answer_of_a_client(request: dict) -> torch.Tensor:
    """What MONAI Label does with a bundle: it runs the parts of inference.json itself, all but what saves."""
    root = bundle_root()
    parser = ConfigParser()
    parser.read_config(root / "configs" / "inference.json")
    parser["bundle_root"] = str(root)
    network = parser.get_parsed_content("network_def").eval()
    load_weights(network, str(root / "models" / "model.pt"))
    data = {**parser["displayable_configs"], "device": "cpu", **request}
    for transform in parser.get_parsed_content("preprocessing").transforms:
        data = transform(data)
    with torch.no_grad():
        data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], network)[0]
    for transform in parser.get_parsed_content("postprocessing").transforms:
        if not isinstance(transform, SaveImaged):
            data = transform(data)
    return data["pred"]


def test_the_answer_is_what_the_command_writes(study, scans, four_dimensional, tmp_path):
    assert main(["synthesize", str(study), str(tmp_path / "out"), "--target", "t2", "--no-preview"]) == 0
    (written,) = (tmp_path / "out").rglob("*_t2_synth.nii.gz")
    wanted = torch.from_numpy(nibabel.load(written).get_fdata(dtype=np.float32))
    assert wanted.std() > 10
    for request in ({"image": str(scans["t1"])}, {"image": str(four_dimensional)}):
        answer = answer_of_a_client(request)
        assert answer.shape == (1, *wanted.shape)
        torch.testing.assert_close(answer[0].as_subclass(torch.Tensor), wanted, rtol=0, atol=0.01)
