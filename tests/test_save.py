import errno
import hashlib
import io
import json
import os
import signal
import threading
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hmf_networks.atomic import FileChangedError, write_whole
from hmf_networks.hashing import file_hash
from hmf_networks.outputs.failure import told
from hmf_networks.transforms.load import LoadContrastsd
from hmf_networks.transforms.save import NoRoomError, SaveSynthesisd
from hmf_networks.transforms.sidecar import bids_name
from hmf_networks.transforms.targets import PickTargetsd
from monai.data import MetaTensor
from PIL import Image

AFFINE = np.array([[-0.9, 0.1, 0, 40], [0.1, 0.9, 0.05, -30], [0, 0, 1.2, 5], [0, 0, 0, 1.0]])
SHAPE = (20, 22, 18)
SOURCES = ["t1", "flair"]


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
        "target": "t2",
        "source_names": ["t1", "flair"],
        "source_paths": paths,
        "pred": pred,
        "image": image,
    }


def save(sample: dict, output_dir: Path, **options) -> Path:
    transform = SaveSynthesisd("pred", output_dir=str(output_dir), sources=SOURCES, **options)
    (path,) = transform(sample)["output_paths"]
    return Path(path)


def test_the_volume_holds_the_prediction_on_the_grid_of_the_first_source(sample, tmp_path):
    path = save(sample, tmp_path / "out")
    assert path == tmp_path / "out" / "lg01" / "lg01_t2_synth.nii.gz"
    written, source = nibabel.load(path), nibabel.load(sample["source_paths"][0])
    np.testing.assert_array_equal(np.asarray(written.dataobj), sample["pred"][0].numpy())
    np.testing.assert_array_equal(written.affine, source.affine)


def test_the_sidecar_tells_where_the_volume_comes_from(sample, tmp_path):
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"weights")
    sidecar = json.loads((save(sample, tmp_path, weights_path=str(weights)).parent / "lg01_t2_synth.json").read_text())
    assert sidecar["Sources"] == {"t1": "secret_t1.nii.gz", "flair": "secret_flair.nii.gz"}
    assert sidecar["WeightsSha256"] == hashlib.sha256(b"weights").hexdigest()
    assert sidecar["Target"] == "t2"
    assert "not acquired" in sidecar["Description"]
    assert "Not for diagnosis" in sidecar["Description"]
    assert str(tmp_path) not in json.dumps(sidecar)  # no folder of the hospital leaves it


def test_the_picture_has_a_column_for_each_source_and_the_synthesis(sample, tmp_path):
    path = save(sample, tmp_path)
    picture = Image.open(io.BytesIO((path.parent / "lg01_t2_synth.png").read_bytes()))
    alone = sample | {"source_names": ["t1"], "source_paths": sample["source_paths"][:1]}
    fewer = Image.open(save(alone, tmp_path / "x").parent / "lg01_t2_synth.png")
    assert (picture.width - 6) * 2 == (fewer.width - 6) * 3


def test_a_contrast_that_was_missing_is_neither_in_the_sidecar_nor_in_the_picture(sample, tmp_path):
    missing = torch.full((1, *SHAPE), -1.0)
    with_it = sample | {"image": torch.cat([sample["image"][:1], missing, sample["image"][1:]])}
    paths = []
    for some, sources in ((sample, SOURCES), (with_it, ["t1", "t1c", "flair"])):
        transform = SaveSynthesisd(output_dir=str(tmp_path / str(len(sources))), sources=sources)
        paths.append(Path(transform(some)["output_paths"][0]))
    for ending in (".nii.gz", ".json", ".png"):
        one, other = (path.with_name(f"lg01_t2_synth{ending}").read_bytes() for path in paths)
        assert one == other


def test_every_contrast_that_was_asked_for_is_a_file_of_its_own(sample, tmp_path):
    channels = torch.stack([torch.full(SHAPE, 100.0), torch.full(SHAPE, 200.0)])
    sample |= {"pred": MetaTensor(channels, affine=torch.from_numpy(AFFINE)), "targets": ["t2", "pd"]}
    transform = SaveSynthesisd(output_dir=str(tmp_path), sources=SOURCES)
    paths = [Path(path) for path in transform(sample)["output_paths"]]
    assert [path.name for path in paths] == ["lg01_t2_synth.nii.gz", "lg01_pd_synth.nii.gz"]
    assert [nibabel.load(path).get_fdata().mean() for path in paths] == [100, 200]
    sidecar = json.loads((tmp_path / "lg01" / "lg01_pd_synth.json").read_text())
    assert sidecar["Target"] == "pd"
    assert "Warning" not in sidecar


def test_a_synthetic_t1c_says_in_its_sidecar_and_its_picture_that_its_enhancement_is_unknown(
    sample, tmp_path, monkeypatch
):
    captions = []
    monkeypatch.setattr(
        "hmf_networks.transforms.save.three_planes_png", lambda volumes, _: captions.extend(volumes) or b""
    )
    path = save(sample | {"target": "t1c"}, tmp_path)
    sidecar = json.loads(path.with_name("lg01_t1c_synth.json").read_text())
    assert sidecar["Warning"].startswith("Enhancement cannot be computed from other contrasts")
    assert captions == ["t1", "flair", "t1c (synthetic, enhancement unknown)"]


def test_a_prediction_of_more_than_was_asked_for_is_refused(sample, tmp_path):
    with pytest.raises(ValueError, match=r"pred has 1 channel\(s\), not one for each of \['t1', 't2'\]"):
        save(sample | {"targets": ["t1", "t2"]}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("targets", "kept"), [(["t2"], [2]), (["flair", "t1"], [3, 0]), ([], [0, 1, 2, 3, 4])])
def test_of_all_that_a_network_makes_what_was_asked_for_is_picked_and_knows_its_place(targets, kept):
    pred = MetaTensor(torch.rand(5, *SHAPE), affine=torch.from_numpy(AFFINE))
    picked = PickTargetsd(targets=["t1", "t1c", "t2", "flair", "pd"])({"pred": pred, "targets": targets})["pred"]
    assert torch.equal(picked, pred[kept])
    assert torch.equal(picked.affine, pred.affine)


def test_targets_that_are_not_those_of_the_network_are_refused():
    with pytest.raises(ValueError, match=r"pred has 5 channel\(s\), targets are t2: correct targets"):
        PickTargetsd(targets=["t2"])({"pred": torch.rand(5, *SHAPE), "target": "t2"})


def test_without_preview_there_is_no_picture(sample, tmp_path):
    path = save(sample, tmp_path / "out", preview=False)
    assert sorted(file.name for file in path.parent.iterdir()) == ["lg01_t2_synth.json", "lg01_t2_synth.nii.gz"]


def test_a_bids_subject_becomes_a_bids_derivative(sample, tmp_path):
    path = save(sample | {"patient": "01", "session": "2", "layout": "bids"}, tmp_path)
    assert path == tmp_path / "sub-01" / "ses-2" / "anat" / "sub-01_ses-2_desc-synth_T2w.nii.gz"
    sidecar = json.loads(path.with_name("sub-01_ses-2_desc-synth_T2w.json").read_text())
    assert sidecar["Sources"] == ["secret_t1.nii.gz", "secret_flair.nii.gz"]  # of a datalist: no dataset


def test_a_bids_source_is_named_from_the_folder_of_its_subject_on():
    assert bids_name(Path("/data/sub-study/sub-01/anat/sub-01_T1w.nii.gz")) == "sub-01/anat/sub-01_T1w.nii.gz"
    assert bids_name(Path("/data/sub-01/ses-2/anat/sub-01_ses-2_T1w.nii")) == "sub-01/ses-2/anat/sub-01_ses-2_T1w.nii"


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


class Told:
    """A ledger that keeps what it is told."""

    weights_hash = "of the weights"

    def settings_hash(self) -> str:
        return "of the settings"

    def __init__(self) -> None:
        self.of_written: list[tuple] = []
        self.of_failed: list[tuple] = []
        self.targets: list[str] = []

    def written(self, sample, content_hash, source_hashes) -> None:
        self.of_written.append((sample["patient"], content_hash, source_hashes))
        self.targets.append(sample["target"])

    def failed(self, record, error) -> None:
        self.of_failed.append((record["patient"], error))
        self.targets.append(record["target"])


@pytest.fixture
def saver(tmp_path) -> SaveSynthesisd:
    """With a ledger, writing behind."""
    transform = SaveSynthesisd(output_dir=str(tmp_path / "out"), sources=SOURCES)
    transform.ledger, transform.behind = Told(), True
    return transform


def test_the_ledger_is_told_the_hash_of_the_volume_and_of_its_sources(sample, saver):
    path = Path(saver(sample)["output_paths"][0])
    saver.finish()
    sources = {name: file_hash(source) for name, source in zip(("t1", "flair"), sample["source_paths"], strict=True)}
    assert saver.ledger.of_written == [("lg01", file_hash(path), sources)]
    sidecar = json.loads(path.with_name("lg01_t2_synth.json").read_text())
    assert (sidecar["Sha256"], sidecar["SourcesSha256"]) == (file_hash(path), sources)
    assert sidecar["WeightsSha256"] == "of the weights"  # of what was loaded, whatever lies there now
    assert sidecar["SettingsSha256"] == "of the settings"


def test_each_file_is_there_before_the_next_is_begun_and_the_last_after_finish(sample, saver):
    paths = []
    for patient in ("a", "b", "c"):
        path = Path(saver(sample | {"patient": patient})["output_paths"][0])
        assert all(earlier.exists() for earlier in paths)
        paths.append(path)
    saver.finish()
    assert paths[-1].exists()
    assert not saver.behind  # from now on each call waits for its own
    assert Path(saver(sample | {"patient": "d"})["output_paths"][0]).exists()


def refuse_writing(monkeypatch, number: int, *, name: str) -> None:
    """Of the volume, its sidecar or its picture."""

    def write(path, content):
        if str(path).endswith(name):
            raise OSError(number, os.strerror(number))
        write_whole(path, content)

    monkeypatch.setattr("hmf_networks.transforms.save.write_whole", write)


def test_an_output_that_cannot_be_written_is_told_to_the_ledger_and_the_next_goes_on(sample, saver, monkeypatch):
    refuse_writing(monkeypatch, errno.EACCES, name="a_t2_synth.nii.gz")
    for patient in ("a", "b"):
        saver(sample | {"patient": patient})
    saver.finish()
    ((patient, error),) = saver.ledger.of_failed
    assert (patient, error.errno) == ("a", errno.EACCES)
    assert [patient for patient, *_ in saver.ledger.of_written] == ["b"]
    assert not list(saver.output_dir.glob("a/*"))  # no sidecar of a volume that is not there


def test_of_the_outputs_of_a_subject_one_that_cannot_be_written_keeps_no_other_back(sample, saver, monkeypatch):
    refuse_writing(monkeypatch, errno.EACCES, name="a_t2_synth.nii.gz")
    pred = MetaTensor(sample["pred"].repeat(3, 1, 1, 1), affine=torch.from_numpy(AFFINE))
    saver(sample | {"patient": "a", "pred": pred, "targets": ["t1c", "t2", "pd"]})
    saver.finish()
    assert saver.ledger.targets == ["t1c", "t2", "pd"]
    assert [patient for patient, _ in saver.ledger.of_failed] == ["a"]
    names = sorted(path.name for path in saver.output_dir.glob("a/*.nii.gz"))
    assert names == ["a_pd_synth.nii.gz", "a_t1c_synth.nii.gz"]


def test_a_failure_takes_nothing_away_that_was_there_before(sample, saver, monkeypatch):
    theirs = saver.output_dir / "a" / "a_t2_synth.json"
    write_whole(theirs, "of somebody else")
    monkeypatch.setattr("hmf_networks.transforms.save.encode_like", lambda *_: 1 / 0)
    saver(sample | {"patient": "a"})
    saver.finish()
    assert len(saver.ledger.of_failed) == 1
    assert theirs.read_text() == "of somebody else"


@pytest.mark.parametrize("change", ["replace", "remove"])
def test_a_source_that_changes_between_reading_and_writing_is_told(sample, saver, change):
    record = {"patient": "a", "session": "", "layout": "brats", "target": "t2"}
    record |= dict(zip(("t1", "flair"), sample["source_paths"], strict=True))
    read = LoadContrastsd(["t1", "flair"])(record)
    flair = Path(record["flair"])
    flair.unlink()
    if change == "replace":
        flair.write_bytes(Path(record["t1"]).read_bytes())
    saver(sample | {"source_states": read["source_states"]})
    saver.finish()
    ((_, error),) = saver.ledger.of_failed
    assert isinstance(error, FileChangedError)
    assert told(error)[0] == "E_CHANGED"
    assert not list(saver.output_dir.glob("*/*"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EFBIG])
def test_without_room_the_call_after_it_ends_with_one_clear_error(sample, saver, monkeypatch, number):
    refuse_writing(monkeypatch, number, name="a_t2_synth.nii.gz")
    saver(sample | {"patient": "a"})
    with pytest.raises(NoRoomError, match=r"a_t2_synth\.nii\.gz cannot be written: .*go on with --skip-existing"):
        saver(sample | {"patient": "b"})
    saver.finish()
    assert [patient for patient, _ in saver.ledger.of_failed] == ["a"]
    assert not [path for path in saver.output_dir.rglob("*") if path.is_file()]


def test_without_a_ledger_an_output_that_cannot_be_written_raises_what_was_raised(sample, tmp_path, monkeypatch):
    refuse_writing(monkeypatch, errno.EACCES, name=".nii.gz")
    with pytest.raises(PermissionError):
        save(sample, tmp_path / "out")


def test_an_interrupted_wait_is_no_lost_file(sample, saver, monkeypatch):
    """A signal arrives while the file before is awaited; who cleans up can wait for it again."""
    may_write = threading.Event()

    def write(path, content):
        assert may_write.wait(10)
        write_whole(path, content)

    def leave(*_):
        raise SystemExit(143)

    monkeypatch.setattr("hmf_networks.transforms.save.write_whole", write)
    path = Path(saver(sample | {"patient": "a"})["output_paths"][0])
    before = signal.signal(signal.SIGALRM, leave)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(SystemExit):
            saver(sample | {"patient": "b"})
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not path.exists()
    may_write.set()
    saver.finish()
    assert path.exists()
