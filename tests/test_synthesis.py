"""`hmf synthesize` from the command line to the files, in this process, on simulated patients."""

import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from hmf_networks.cli import main
from hmf_networks.data.phantom import simulate_subjects
from hmf_networks.hashing import file_hash
from hmf_networks.nets import HMFMambaINR
from hmf_networks.nifti.read import read_volume
from monai.bundle import ConfigWorkflow

BUNDLE = Path(__file__).parent.parent / "bundle"
FIXED = "tasks/brats_t1_flair_to_t2.json"
RANGE = 1000.0  # of written volumes


@pytest.fixture(scope="module")
def synthesised(simulated, small_weights, tmp_path_factory) -> Path:
    """The output folder of a run over all simulated patients."""
    output = tmp_path_factory.mktemp("synthesised") / "out"
    assert main([*words(simulated, output), "--weights", str(small_weights)]) == 0
    return output


@pytest.fixture
def one(simulated, tmp_path) -> Path:
    """A folder with one patient of the simulated, to be damaged."""
    subject = sorted(path for path in simulated.iterdir() if path.is_dir())[0]
    shutil.copytree(subject, tmp_path / "in" / subject.name)
    return tmp_path / "in"


@pytest.fixture
def synthesize(small_weights, capsys):
    """Runs `hmf synthesize` with small weights; its exit code and what it said on standard error."""

    def run(*arguments: object, weights: Path | None = small_weights, target: str | None = "t2"):
        capsys.readouterr()
        more = ["--weights", str(weights)] if weights is not None else []
        more += ["--target", target] if target is not None else []
        code = main(["synthesize", *map(str, arguments), *more])
        return code, said(capsys.readouterr().err)

    return run


def words(*arguments: object) -> list[str]:
    return ["synthesize", *map(str, arguments), "--target", "t2"]


def said(error: str) -> list[str]:
    """Lines that no progress bar drew."""
    lines = error.replace("\r", "\n").splitlines()
    return [line for line in lines if line.strip() and "%|" not in line and "it/s]" not in line]


def source(folder: Path, contrast: str) -> Path:
    """Of the first patient."""
    ending = {"t1": "t1n", "t1c": "t1c", "flair": "t2f", "t2": "t2w"}[contrast]
    return sorted(folder.rglob(f"*-{ending}.nii.gz"))[0]


def volumes(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*synth*.nii.gz"))


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_hash(path) for path in volumes(folder)}


def first_of(folder: Path) -> np.ndarray:
    return read_volume(volumes(folder)[0])[0]


def errors(folder: Path) -> list[str]:
    return [entry["code"] for entry in json.loads((folder / "errors.json").read_text())]


def test_a_folder_becomes_a_folder_on_the_grids_of_its_sources(synthesised, simulated):
    assert len(volumes(synthesised)) == 4
    for path in volumes(synthesised):
        name = path.parent.name.replace("_", "-")
        given = nibabel.load(simulated / name / f"{name}-t1n.nii.gz")
        made = nibabel.load(path)
        np.testing.assert_array_equal(made.affine, given.affine)
        assert made.shape == given.shape
        values = made.get_fdata()
        assert 0 <= values.min() < values.max() <= RANGE
        np.testing.assert_array_equal(values[given.get_fdata() == 0], 0)  # outside the head
        assert path.with_name(path.name.replace(".nii.gz", ".png")).is_file()
    assert not list(synthesised.rglob(".*"))
    run = json.loads((synthesised / "manifest.json").read_text())["run"]
    assert (run["made"], run["failed"], run["targets"]) == (4, 0, ["t2"])


def test_a_single_file_stands_for_its_subject(synthesize, simulated, synthesised, tmp_path):
    assert synthesize(source(simulated, "flair"), tmp_path / "out") == (0, [])
    (name,) = hashes(tmp_path / "out")
    assert hashes(tmp_path / "out")[name] == hashes(synthesised)[name]


@pytest.mark.parametrize("name", ["t2.nii.gz", "below/a.b.nii", "T2.NII.GZ"])
def test_loose_files_become_the_file_that_is_named(synthesize, simulated, synthesised, tmp_path, name):
    for contrast in ("t1", "flair"):
        shutil.copy(source(simulated, contrast), tmp_path / f"{contrast}.nii.gz")
    loose = ("--t1", tmp_path / "t1.nii.gz", "--flair", tmp_path / "flair.nii.gz")
    assert synthesize(*loose, tmp_path / "out" / name, "--no-preview") == (0, [])
    output = tmp_path / "out" / name
    np.testing.assert_array_equal(read_volume(output)[0], first_of(synthesised))
    assert (output.read_bytes()[:2] == b"\x1f\x8b") == name.lower().endswith(".gz")
    stem = name.rpartition("/")[2].lower().removesuffix(".gz").removesuffix(".nii")
    files = {path.name.lower() for path in output.parent.iterdir() if path.is_file()}
    assert files - {"manifest.json"} == {output.name.lower(), f"{stem}.json"}


def test_loose_files_replace_nothing_that_is_not_theirs(synthesize, simulated, tmp_path):
    for contrast in ("t1", "flair"):
        shutil.copy(source(simulated, contrast), tmp_path / f"{contrast}.nii.gz")
    loose = ("--t1", tmp_path / "t1.nii.gz", "--flair", tmp_path / "flair.nii.gz")
    given = file_hash(tmp_path / "flair.nii.gz")
    code, lines = synthesize(*loose, tmp_path / "flair.nii.gz", "--overwrite")
    assert (code, file_hash(tmp_path / "flair.nii.gz")) == (2, given)
    assert errors(tmp_path) == ["E_SOURCE"]
    (tmp_path / "t2.json").write_text('{"EchoTime": 0.1}')  # as dcm2niix leaves it
    code, lines = synthesize(*loose, tmp_path / "t2.nii.gz")
    assert (code, len(lines)) == (1, 1)
    assert "1 output(s) exist already, e.g." in lines[0]
    assert (tmp_path / "t2.json").read_text() == '{"EchoTime": 0.1}'


def test_paths_may_stand_before_and_after_options(simulated, small_weights, synthesised, tmp_path):
    options = ["--target", "t2", "--weights", str(small_weights), "--no-preview"]
    assert main(["synthesize", str(simulated), *options, str(tmp_path / "out")]) == 0
    assert hashes(tmp_path / "out") == hashes(synthesised)


def test_skipping_notices_other_settings(synthesize, one, tmp_path):
    out = tmp_path / "out"
    assert synthesize(one, out) == (0, [])
    assert synthesize(one, out, "--set", "decode=resample", "--skip-existing") == (0, [])
    run = json.loads((out / "manifest.json").read_text())["run"]
    assert (run["made"], run["skipped"]) == (1, 0)


def test_a_network_that_gives_nan_is_told_and_nothing_written(synthesize, one, small_weights, tmp_path):
    weights = torch.load(small_weights, weights_only=True)
    spoilt = {name: value * torch.nan if value.is_floating_point() else value for name, value in weights.items()}
    torch.save(spoilt, tmp_path / "model.pt")
    about = json.loads(small_weights.with_suffix(".json").read_text())
    about.pop("sha256")
    (tmp_path / "model.json").write_text(json.dumps(about))
    assert synthesize(one, tmp_path / "out", weights=tmp_path / "model.pt")[0] == 2
    assert errors(tmp_path / "out") == ["E_NONFINITE"]
    assert volumes(tmp_path / "out") == []


def test_a_loose_file_that_is_missing_for_a_source_is_asked_for(synthesize, simulated, tmp_path):
    code, lines = synthesize("--t1", source(simulated, "t1"), tmp_path / "t2.nii.gz")
    assert (code, lines) == (1, ["hmf synthesize: the weights work from t1, flair: give --flair too"])
    assert list(tmp_path.iterdir()) == []


def test_with_loose_files_one_output_file_is_wanted(synthesize, simulated, tmp_path):
    loose = ("--t1", source(simulated, "t1"), "--flair", source(simulated, "flair"))
    code, lines = synthesize(*loose, tmp_path / "out")
    assert code == 1
    assert lines[0].endswith("out: with single files, name the output file too, e.g. t2.nii.gz")
    code, lines = synthesize(*loose, tmp_path / "in", tmp_path / "t2.nii.gz")
    assert code == 1
    assert "2 path(s) given, not one path, the output file" in lines[0]


def test_a_bids_dataset_becomes_a_bids_derivative(synthesize, tmp_path):
    simulate_subjects(tmp_path / "in", num_subjects=1, seed=0, spacing_mm=4.0, layout="bids")
    assert synthesize(tmp_path / "in", tmp_path / "out") == (0, [])
    (path,) = volumes(tmp_path / "out")
    assert path.relative_to(tmp_path / "out").match("sub-*/anat/sub-*_desc-synth_T2w.nii.gz")
    sidecar = json.loads(path.with_name(path.name.replace(".nii.gz", ".json")).read_text())
    assert all((tmp_path / "in" / name).is_file() for name in sidecar["Sources"])
    assert len(sidecar["Sources"]) == 2
    description = json.loads((tmp_path / "out" / "dataset_description.json").read_text())
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "hmf_networks"
    assert "manifest.json" in (tmp_path / "out" / ".bidsignore").read_text().split()


def test_skipping_what_exists_writes_nothing_the_second_time(synthesize, simulated, synthesised, tmp_path):
    shutil.copytree(synthesised, tmp_path / "out")
    known = {path: path.stat().st_mtime_ns for path in volumes(tmp_path / "out")}
    assert synthesize(simulated, tmp_path / "out", "--skip-existing") == (0, [])
    assert {path: path.stat().st_mtime_ns for path in volumes(tmp_path / "out")} == known
    run = json.loads((tmp_path / "out" / "manifest.json").read_text())["run"]
    assert (run["made"], run["skipped"]) == (0, 4)


def test_outputs_that_exist_are_refused_and_replaced_only_when_asked(synthesize, one, synthesised, tmp_path):
    assert synthesize(one, tmp_path / "out")[0] == 0
    volumes(tmp_path / "out")[0].write_bytes(b"my own work")
    code, lines = synthesize(one, tmp_path / "out")
    assert code == 1
    assert len(lines) == 1
    assert "1 output(s) exist already" in lines[0]
    assert volumes(tmp_path / "out")[0].read_bytes() == b"my own work"
    assert synthesize(one, tmp_path / "out", "--overwrite") == (0, [])
    np.testing.assert_array_equal(first_of(tmp_path / "out"), first_of(synthesised))


def test_both_flags_contradict_each_other(synthesize, one, tmp_path):
    code, lines = synthesize(one, tmp_path / "out", "--overwrite", "--skip-existing")
    assert (code, len(lines)) == (1, 1)
    assert "overwrite and skip_existing contradict each other" in lines[0]


def test_one_bad_subject_of_a_folder_is_named_and_the_command_ends_with_2(synthesize, simulated, synthesised, tmp_path):
    shutil.copytree(simulated, tmp_path / "in")
    bad = source(tmp_path / "in", "flair")
    bad.write_bytes(bad.read_bytes()[:-300])
    code, lines = synthesize(tmp_path / "in", tmp_path / "out")
    assert code == 2
    assert lines[-1].startswith("hmf synthesize: 1 volume(s) of 1 subject(s) could not be made")
    assert not any("Traceback" in line for line in lines)
    assert errors(tmp_path / "out") == ["E_TRUNCATED"]
    assert hashes(tmp_path / "out") == dict(list(hashes(synthesised).items())[1:])


def move(path: Path, shift_voxels: int) -> None:
    """Cut slabs off a volume and tell so in its affine: the same head in the same place, on another grid."""
    image = nibabel.load(path)
    nibabel.save(image.slicer[shift_voxels:, :, :], path)


def test_sources_on_different_grids_are_refused_and_done_with_regrid(synthesize, one, synthesised, tmp_path):
    move(source(one, "flair"), 2)
    assert synthesize(one, tmp_path / "refused")[0] == 2
    assert errors(tmp_path / "refused") == ["E_GRID"]
    assert volumes(tmp_path / "refused") == []
    assert synthesize(one, tmp_path / "done", "--regrid") == (0, [])
    np.testing.assert_allclose(first_of(tmp_path / "done"), first_of(synthesised), atol=0.005 * RANGE)


def test_four_axes_are_refused_and_done_with_the_volume_that_is_named(synthesize, one, synthesised, tmp_path):
    path = source(one, "t1")
    image = nibabel.load(path)
    values = np.asarray(image.dataobj)
    nibabel.save(type(image)(np.stack([values[::-1], values], axis=-1), image.affine, image.header), path)
    assert synthesize(one, tmp_path / "refused")[0] == 2
    assert errors(tmp_path / "refused") == ["E_4D"]
    assert synthesize(one, tmp_path / "done", "--volume", 1) == (0, [])
    np.testing.assert_array_equal(first_of(tmp_path / "done"), first_of(synthesised))
    assert synthesize(one, tmp_path / "absent", "--volume", 2)[0] == 2
    assert errors(tmp_path / "absent") == ["E_4D"]


@pytest.mark.parametrize(
    ("setting", "meant"),
    [("plain=axial", "--plane"), ("network_deff#width=4", "--network_def"), ("max_voxel=1", "--max_voxels")],
)
def test_an_unknown_key_is_answered_with_the_nearest_name(synthesize, one, tmp_path, setting, meant):
    code, lines = synthesize(one, tmp_path / "out", "--set", setting)
    assert (code, len(lines)) == (1, 1)
    assert f"did you mean '{meant}'?" in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_setting_without_a_value_is_refused(synthesize, one, tmp_path):
    code, lines = synthesize(one, tmp_path / "out", "--set", "plane")
    assert (code, lines) == (1, ["hmf synthesize: --set plane: write KEY=VALUE, e.g. --set plane=acquisition"])


def test_an_unknown_option_is_answered_with_the_nearest_name(synthesize, one, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        synthesize(one, tmp_path / "out", "--skip-exisiting")
    assert end.value.code == 1
    assert "did you mean '--skip-existing'?" in capsys.readouterr().err


def test_max_voxels_can_be_lowered_and_files_beyond_are_refused(synthesize, one, tmp_path):
    assert synthesize(one, tmp_path / "out", "--set", "max_voxels=1000")[0] == 2
    assert errors(tmp_path / "out") == ["E_TOO_LARGE"]


@pytest.fixture
def weights(small_weights, tmp_path) -> Path:
    """A copy of the weights, to be damaged."""
    (tmp_path / "weights").mkdir()
    for path in (small_weights, small_weights.with_suffix(".json")):
        shutil.copy(path, tmp_path / "weights")
    return tmp_path / "weights" / small_weights.name


def change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove_both(path: Path) -> None:
    path.unlink()
    path.with_suffix(".json").unlink()


def break_json(path: Path) -> None:
    path.with_suffix(".json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (Path.unlink, "no weights there; train first, or point"),
        (remove_both, "no weights there; train first, or point"),
        (change_a_byte, "is not the file that model.json tells of: its SHA-256 differs; fetch both again"),
        (break_json, "model.json cannot be read"),
    ],
)
def test_weights_that_are_not_what_they_should_be_end_it_in_one_line(synthesize, one, tmp_path, weights, damage, line):
    damage(weights)
    code, lines = synthesize(one, tmp_path / "out", weights=weights)
    assert (code, len(lines)) == (1, 1), lines
    assert line in lines[0]
    assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    "about",
    [
        {"plane": "$__import__('os').system('true')"},
        {"pixel_mm": "@ckpt_path"},
        {"network": {"_target_": "os.system", "command": "true"}},
        {"network": {"width": ["%other.json#width"]}},
        {"network": {"network_def#width": 4}},
    ],
)
def test_a_model_json_that_a_config_would_execute_is_refused(synthesize, one, tmp_path, about):
    (tmp_path / "model.json").write_text(json.dumps({"note": "95 % of a@b.org", **about}))
    (tmp_path / "model.pt").touch()
    code, lines = synthesize(one, tmp_path / "out", weights=tmp_path / "model.pt")
    assert (code, len(lines)) == (1, 1)
    assert "which a config would execute; do not use them" in lines[0]


def test_a_model_json_that_cannot_be_read_is_one_line(synthesize, one, tmp_path):
    (tmp_path / "model.pt").touch()
    for content in ("{", "[" * 100_000):
        (tmp_path / "model.json").write_text(content)
        code, lines = synthesize(one, tmp_path / "out", weights=tmp_path / "model.pt")
        assert (code, len(lines)) == (1, 1)
        assert "model.json cannot be read" in lines[0]


def test_weights_for_another_target_are_refused_with_what_they_make(synthesize, one, tmp_path, weights):
    code, lines = synthesize(one, tmp_path / "out", weights=weights, target="t1c")
    assert (code, lines) == (1, [f"hmf synthesize: {weights} makes t2 from t1, flair, not t1c; see --weights"])


def test_weights_for_a_fixed_task_need_no_target(synthesize, one, synthesised, tmp_path):
    assert synthesize(one, tmp_path / "out", target=None) == (0, [])
    (name,) = hashes(tmp_path / "out")
    assert hashes(tmp_path / "out")[name] == hashes(synthesised)[name]
    loose = ("--t1", source(one, "t1"), "--flair", source(one, "flair"))
    assert synthesize(*loose, tmp_path / "t2.nii.gz", target=None) == (0, [])
    np.testing.assert_array_equal(read_volume(tmp_path / "t2.nii.gz")[0], first_of(synthesised))


def test_and_no_source_of_theirs_can_be_left_out(synthesize, one, tmp_path):
    code, lines = synthesize(one, tmp_path / "out", "--sources", "t1")
    assert (code, lines) == (1, ["hmf synthesize: the network needs t1, flair: give flair too"])


def test_weights_of_the_version_before_are_those_of_a_fixed_task(synthesize, one, synthesised, tmp_path, weights):
    about = json.loads(weights.with_suffix(".json").read_text())
    del about["any_subset"]
    about["target"] = about.pop("targets")[0]
    weights.with_suffix(".json").write_text(json.dumps(about))
    assert synthesize(one, tmp_path / "out", weights=weights) == (0, [])
    np.testing.assert_array_equal(first_of(tmp_path / "out"), first_of(synthesised))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["absent", "out"], "does not exist; give the folder of your subjects"),
        (["in", "out", "--device", "tpu0"], "device 'tpu0' is not known"),
        (["in", "out", "--bundle", "absent"], "is not there; name the folder of the bundle"),
        (["in", "out", "--config", "absent.json"], "config file absent.json is not there"),
        (["in"], "1 path(s) given, not two paths, IN and OUT"),
        (["empty", "out"], "no subject in dataset_dir"),
        (["in", "out.nii.gz"], "OUT out.nii.gz is the name of a file; name a folder"),
        (["scan.nrrd", "out"], "scan.nrrd is neither NIfTI (.nii, .nii.gz, .hdr) nor a datalist"),
        (["--t1", "absent.nii", "o.nii"], "--t1 absent.nii: no such file"),
        (["--t1", "scan.nrrd", "--flair", "scan.nrrd", "o.nii"], "--t1 and --flair are one file"),
        (["--t2", "scan.nrrd", "o.nii"], "--t2 is what is to be made; leave it out"),
    ],
    ids=" ".join,
)
@pytest.mark.usefixtures("one")
def test_what_cannot_run_is_one_line_and_exit_1(synthesize, tmp_path, monkeypatch, arguments, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "scan.nrrd").write_text("NRRD0004")
    code, lines = synthesize(*arguments)
    assert (code, len(lines)) == (1, 1), lines
    assert line in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_misspelt_target_is_answered_with_the_nearest_name(synthesize, one, tmp_path):
    code, lines = synthesize(one, tmp_path / "out", target="t2w")
    assert (code, len(lines)) == (1, 1)
    assert "did you mean 't2'?" in lines[0]


def test_plain_monai_gives_the_same_bytes(simulated, synthesised, small_weights, tmp_path):
    network = json.loads(small_weights.with_suffix(".json").read_text())["network"]
    workflow = ConfigWorkflow(
        config_file=[str(BUNDLE / "configs" / name) for name in ("inference.json", FIXED)],
        meta_file=str(BUNDLE / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="inference",
        run_id="inference",
        bundle_root=str(BUNDLE),
        dataset_dir=str(simulated),
        output_dir=str(tmp_path / "out"),
        ckpt_path=str(small_weights),
        pixel_mm=4.0,
        foreground_box=False,
        plane_size=[48, 64],
        **{f"network_def#{key}": value for key, value in network.items()},
    )
    workflow.initialize()
    workflow.run()
    assert hashes(tmp_path / "out") == hashes(synthesised)
    assert len(hashes(synthesised)) == 4


# From any contrasts to any


@pytest.fixture
def any_to_any(synthesize, any_weights):
    """Runs `hmf synthesize` with small weights of an any-to-any network, and without a target."""

    def run(*arguments: object, target: str | None = None):
        return synthesize(*arguments, "--no-preview", weights=any_weights, target=target)

    return run


def contents(folder: Path) -> dict[str, np.ndarray]:
    """Target -> values, of one subject."""
    return {path.name.rsplit("_", 2)[1]: read_volume(path)[0] for path in volumes(folder)}


def without(folder: Path, *contrasts: str) -> Path:
    """A copy of a folder of one subject that lacks these contrasts."""
    copy = folder.with_name(f"{folder.name} without {' '.join(contrasts)}")
    shutil.copytree(folder, copy)
    for contrast in contrasts:
        source(copy, contrast).unlink()
    return copy


def test_what_is_missing_is_made_by_one_run_of_the_network_and_never_t1c(any_to_any, one, tmp_path, monkeypatch):
    asked = []
    features = HMFMambaINR.features

    def counted(network, image):
        asked.append(image)
        return features(network, image)

    monkeypatch.setattr(HMFMambaINR, "features", counted)
    folder = without(one, "t1c", "t2", "flair")
    assert any_to_any(folder, tmp_path / "three", "--batch-size", 4) == (0, [])
    num_runs = len(asked)
    assert any_to_any(folder, tmp_path / "one", "--batch-size", 4, target="t2") == (0, [])
    assert len(asked) == 2 * num_runs > 0
    made = contents(tmp_path / "three")
    assert made.keys() == {"t2", "flair", "pd"}
    np.testing.assert_array_equal(made["t2"], contents(tmp_path / "one")["t2"])
    assert not np.array_equal(made["t2"], made["flair"])
    there = torch.cat(asked)[:, 5:].amax(dim=(0, 2, 3))
    assert there.tolist() == [1, 0, 0, 0, 0]


def test_a_subject_that_lacks_nothing_is_left_out_and_nothing_at_all_to_make_is_one_line(any_to_any, one, tmp_path):
    shutil.copy(source(one, "t2"), str(source(one, "t2")).replace("-t2w", "_pd"))
    code, lines = any_to_any(one, tmp_path / "out")
    assert (code, len(lines)) == (1, 1), lines
    assert "nothing is to be made: all 1 subject(s) in" in lines[0]
    assert "--target" in lines[0]
    assert not (tmp_path / "out").exists()
    assert any_to_any(one, tmp_path / "out", target="pd") == (0, [])


def test_what_is_to_be_made_is_made_as_if_it_were_not_there(any_to_any, one, tmp_path):
    assert any_to_any(one, tmp_path / "there", target="t2") == (0, [])
    assert any_to_any(without(one, "t2"), tmp_path / "absent", target="t2") == (0, [])
    assert hashes(tmp_path / "there") == hashes(tmp_path / "absent") != {}
    (sidecar,) = (tmp_path / "there").glob("*/*.json")
    assert sidecar.read_bytes() == next((tmp_path / "absent").glob("*/*.json")).read_bytes()
    assert json.loads(sidecar.read_text())["Sources"].keys() == {"t1", "t1c", "flair"}


def test_scans_that_are_not_given_are_as_if_they_were_not_there(any_to_any, one, tmp_path):
    assert any_to_any(one, tmp_path / "given", "--sources", "t1", "flair") == (0, [])
    assert any_to_any(without(one, "t1c", "t2"), tmp_path / "absent") == (0, [])
    assert hashes(tmp_path / "given") == hashes(tmp_path / "absent")
    assert contents(tmp_path / "given").keys() == {"t2", "pd"}
    for path in (tmp_path / "given").glob("*/*.json"):
        assert path.read_bytes() == (tmp_path / "absent" / path.parent.name / path.name).read_bytes()


def test_a_bad_scan_that_is_not_given_harms_nobody(any_to_any, one, tmp_path):
    source(one, "t1c").write_bytes(b"no volume")
    assert any_to_any(one, tmp_path / "all")[0] == 2
    assert errors(tmp_path / "all") == ["E_NOT_NIFTI"]  # pd alone is missing
    assert any_to_any(one, tmp_path / "some", "--sources", "t1", "t2", "flair") == (0, [])


def test_a_scan_that_arrives_later_makes_what_was_made_without_it_anew(any_to_any, one, tmp_path):
    folder = without(one, "t2")
    assert any_to_any(folder, tmp_path / "out") == (0, [])
    shutil.copy(source(one, "t2"), source(folder, "t1").parent)
    before = contents(tmp_path / "out")
    assert any_to_any(folder, tmp_path / "out", "--skip-existing") == (0, [])
    after = contents(tmp_path / "out")
    np.testing.assert_array_equal(before["t2"], after["t2"])  # nobody asked for it again
    assert not np.array_equal(before["pd"], after["pd"])


def test_loose_files_of_any_contrast_become_the_one_that_is_named(any_to_any, one, tmp_path):
    loose = ("--t1", source(one, "t1"), "--flair", source(one, "flair"))
    code, lines = any_to_any(*loose, tmp_path / "made.nii.gz")
    assert (code, lines) == (1, ["hmf synthesize: made.nii.gz is one file: say what it is to hold, e.g. --target t2"])
    assert any_to_any(*loose, tmp_path / "made.nii.gz", target="t1c") == (0, [])
    assert any_to_any(without(one, "t1c", "t2"), tmp_path / "out", target="t1c") == (0, [])
    np.testing.assert_array_equal(read_volume(tmp_path / "made.nii.gz")[0], contents(tmp_path / "out")["t1c"])
    assert "Enhancement cannot be computed" in json.loads((tmp_path / "made.json").read_text())["Warning"]


def test_a_source_that_is_no_contrast_is_answered_with_the_nearest_name(any_to_any, one, tmp_path):
    code, lines = any_to_any(one, tmp_path / "out", "--sources", "t1", "flare")
    assert (code, len(lines)) == (1, 1)
    assert "did you mean 'flair'?" in lines[0]


def test_plain_monai_makes_what_is_missing_with_the_same_bytes(any_to_any, any_weights, one, tmp_path):
    folder = without(one, "t2", "flair")
    assert any_to_any(folder, tmp_path / "hmf") == (0, [])
    network = json.loads(any_weights.with_suffix(".json").read_text())["network"]
    workflow = ConfigWorkflow(
        config_file=str(BUNDLE / "configs" / "inference.json"),
        meta_file=str(BUNDLE / "configs" / "metadata.json"),
        logging_file=False,
        workflow_type="inference",
        run_id="inference",
        bundle_root=str(BUNDLE),
        dataset_dir=str(folder),
        output_dir=str(tmp_path / "monai"),
        ckpt_path=str(any_weights),
        pixel_mm=4.0,
        foreground_box=False,
        plane_size=[48, 64],
        **{f"network_def#{key}": value for key, value in network.items()},
    )
    workflow.initialize()
    workflow.run()
    assert hashes(tmp_path / "monai") == hashes(tmp_path / "hmf")
    assert len(volumes(tmp_path / "monai")) == 3
