"""`hmf prepare`: a raw study, each contrast on a grid and in a format of its own, made ready. Needs ITK."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from hmf_networks.cli import main
from hmf_networks.data.folder import find_subjects
from hmf_networks.data.phantom import simulate_subject
from hmf_networks.data.tasks import find_tasks
from hmf_networks.naming import CONTRASTS
from hmf_networks.nifti.read import read_volume
from hmf_networks.transforms.load import LoadContrastsd
from monai.bundle import ConfigParser
from scipy import ndimage
from scipy.spatial.transform import Rotation

itk = pytest.importorskip("itk", reason="needs itk, extra `prepare`")
pydicom = pytest.importorskip("pydicom", reason="needs pydicom, extra `prepare`")
# ruff: noqa: E402
from dicom_writer import FLAIR, T1, T2, write_classic
from hmf_networks.preparation.bias_field import correct_bias
from hmf_networks.preparation.registration import about, distance_mm, inside_head, points_of, register
from hmf_networks.preparation.regrid import regridded
from hmf_networks.preparation.scan import Scan, from_itk, to_itk

pytestmark = pytest.mark.slow  # ITK takes ten seconds to load
SPACING_MM = 4.0
SECRET = "Xanthippe"
CONFIGS = Path(__file__).parent.parent / "bundle" / "configs"


@pytest.fixture(scope="module")
def patient() -> dict[str, Scan]:
    """T1, T2 and FLAIR on one grid, T1 oblique as scanners are."""
    subject = simulate_subject(3, 1, spacing_mm=SPACING_MM, contrasts=["t1", "t2", "flair"])
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [6, -3, 4], degrees=True).as_matrix() * SPACING_MM
    affine[:3, 3] = -affine[:3, :3] @ (np.array(subject.images["t1"].shape) / 2)
    return {name: Scan(image.astype(np.float32), affine) for name, image in subject.images.items()}


@pytest.fixture(scope="module")
def way(patient) -> np.ndarray:
    """How the head moved before the T2 was taken: from where a point was to where it is now."""
    matrix = about(middle(patient["t1"]), Rotation.from_rotvec(np.radians([4, -3, 5])).as_matrix())
    matrix[:3, 3] += [4.0, -3.0, 5.0]
    return matrix


@pytest.fixture(scope="module")
def study(tmp_path_factory, patient, way) -> Path:
    """T1 as NRRD, FLAIR as MGZ, T2 after the head moved as compressed MetaImage."""
    folder = tmp_path_factory.mktemp("raw") / SECRET
    folder.mkdir()
    itk.imwrite(to_itk(patient["t1"]), str(folder / "T1W.nrrd"))
    itk.imwrite(to_itk(as_acquired(patient["t2"], way)), str(folder / "ax_T2_tse.mha"), compression=True)
    nibabel.save(nibabel.MGHImage(patient["flair"].values, patient["flair"].affine), folder / "FLAIR.mgz")
    nibabel.save(nibabel.Nifti1Image((patient["t1"].values > 0).astype(np.uint8), np.eye(4)), folder / "T1_mask.nii")
    return folder.parent


@pytest.fixture(scope="module")
def prepared(study, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("prepared") / "bids"
    assert main(["prepare", str(study), str(output), "--reference", "t1"]) == 0
    return output


def as_acquired(scan: Scan, way: np.ndarray) -> Scan:
    """Of the head that moved, with fewer slices, and the first axis the other way round."""
    values = np.ascontiguousarray(scan.values[::-1, :, 2:])
    turned = np.diag([-1.0, 1.0, 1.0, 1.0])
    turned[:3, 3] = [len(values) - 1, 0, 2]
    return Scan(values, way @ scan.affine @ turned)


def middle(scan: Scan) -> np.ndarray:
    return points_of(scan, inside_head(scan)).mean(axis=0)


# the parts


def test_a_scan_is_the_same_after_itk(patient):
    scan = patient["t1"]
    back = from_itk(to_itk(scan))
    np.testing.assert_array_equal(back.values, scan.values)
    np.testing.assert_allclose(back.affine, scan.affine, atol=1e-9)


def test_a_moved_head_is_found_from_far_away(patient):
    away = about(middle(patient["t1"]), Rotation.from_rotvec(np.radians([9, 8, -9])).as_matrix())
    away[:3, 3] += [-9, 8, 9]
    found = register(patient["t1"], Scan(patient["t2"].values, away @ patient["t2"].affine))
    points = points_of(patient["t1"], inside_head(patient["t1"]))
    assert distance_mm(np.eye(4), away, points) > 14
    assert distance_mm(found.matrix, away, points) < 0.5
    assert found.is_trusted


def test_what_is_no_head_of_the_same_person_is_not_trusted(patient):
    noise = ndimage.gaussian_filter(np.random.default_rng(0).random((40, 40, 40)), 2).astype(np.float32)
    found = register(patient["t1"], Scan(noise, np.diag([SPACING_MM] * 3 + [1.0])))
    assert not found.is_trusted


def test_a_planted_bias_field_is_divided_out(patient):
    scan = patient["t1"]
    ramp = np.linspace(-1, 1, scan.values.shape[1], dtype=np.float32)[None, :, None]
    planted = np.exp(0.4 * ramp) * np.ones_like(scan.values)
    plain, _ = correct_bias(scan)
    corrected, field = correct_bias(Scan(plain.values * planted, scan.affine))
    head = scan.values > 0
    assert np.log(planted[head]).std() > 0.15
    assert np.log(field / planted)[head].std() < 0.04
    np.testing.assert_allclose(corrected.values, plain.values * planted / field, rtol=1e-5)
    assert field[head].mean() == pytest.approx(1, abs=1e-3)


def test_regridding_onto_its_own_grid_changes_nothing(patient):
    scan = patient["t2"]
    again = regridded(scan, scan)
    np.testing.assert_allclose(again.values, scan.values, atol=1e-3 * scan.values.max())


# the command


def test_training_and_synthesis_find_the_study(prepared):
    (record,) = find_subjects(prepared, ["t1", "flair"], "t2")
    assert (record["patient"], record["layout"]) == ("001", "bids")


def test_contrasts_share_a_grid_and_lie_on_each_other(prepared, patient):
    for name, suffix in (("t2", "T2w"), ("flair", "FLAIR")):
        values, affine = read_volume(prepared / "sub-001" / "anat" / f"sub-001_{suffix}.nii.gz")
        assert values.shape == patient["t1"].values.shape
        np.testing.assert_allclose(affine, patient["t1"].affine, atol=1e-4)
        inside = ndimage.binary_erosion(patient[name].values > 0, iterations=2)
        assert np.corrcoef(values[inside], patient[name].values[inside])[0, 1] > 0.95


def test_the_transform_leads_from_the_reference_to_the_scan_as_acquired(prepared, patient, way):
    (path,) = (prepared / "sub-001" / "anat").glob("*from-T2w_to-T1w*.txt")
    transform = itk.transformread(str(path))[0]
    for point in points_of(patient["t1"], inside_head(patient["t1"]))[::500]:
        lps = transform.TransformPoint([-point[0], -point[1], point[2]])
        found = np.array([-lps[0], -lps[1], lps[2]])
        assert np.linalg.norm(found - (way @ [*point, 1])[:3]) < 0.7


def test_scans_as_acquired_are_kept_on_their_own_grids(prepared, patient, way):
    values, affine = read_volume(prepared / "derivatives" / "own_grid" / "sub-001" / "anat" / "sub-001_T2w.nii.gz")
    expected = as_acquired(patient["t2"], way)
    head = expected.values > 0
    assert np.corrcoef(values[head], expected.values[head])[0, 1] > 0.98  # without its bias field
    np.testing.assert_allclose(affine, expected.affine, atol=1e-4)


def test_sidecar_and_manifest_tell_every_step(prepared):
    sidecar = json.loads((prepared / "sub-001" / "anat" / "sub-001_T2w.json").read_text())
    assert sidecar["Preparation"].keys() == {"bias_field", "registration", "grid"}
    assert sidecar["Preparation"]["registration"]["quality_mm"] < 1
    (entry,) = {
        json.dumps(entry["steps"]) for entry in json.loads((prepared / "manifest.json").read_text())["outputs"].values()
    }
    assert json.loads(entry) == {"bias": True, "register": True, "regrid": True, "brain": "", "reference": "t1"}


def test_a_contrast_that_did_not_move_is_not_interpolated(prepared):
    sidecar = json.loads((prepared / "sub-001" / "anat" / "sub-001_FLAIR.json").read_text())
    assert sidecar["Preparation"]["registration"]["left_as_it_was"]
    assert "grid" not in sidecar["Preparation"]


def test_the_folders_name_is_in_the_table_and_nowhere_else(prepared):
    table = prepared.with_name("bids_pseudonyms.csv")
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert (row["pseudonym"], row["patient"]) == ("001", SECRET)
    assert table.stat().st_mode & 0o077 == 0
    for path in prepared.rglob("*"):
        assert SECRET.lower() not in str(path.relative_to(prepared)).lower()
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()


def test_prepared_again_it_is_refused_kept_or_replaced_as_asked(prepared, study):
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("*.nii.gz")}
    assert main(["prepare", str(study), str(prepared), "--reference", "t1"]) == 2
    assert json.loads((prepared / "errors.json").read_text())[0]["code"] == "E_EXISTS"
    assert main(["prepare", str(study), str(prepared), "--reference", "t1", "--skip-existing"]) == 0
    assert not (prepared / "errors.json").exists()
    assert before == {path: path.stat().st_mtime_ns for path in prepared.rglob("*.nii.gz")}


# back to native space


def test_the_others_are_laid_onto_a_scan_as_it_was_acquired(prepared, patient, way):
    (record,) = find_tasks(prepared, CONTRASTS, CONTRASTS, "pd", space="native", grid_of="t2")
    image = LoadContrastsd(CONTRASTS, any_subset=True)(record)["image"]
    for name in ("t1", "t2", "flair"):
        expected = as_acquired(patient[name], way)
        np.testing.assert_allclose(image.affine, expected.affine, atol=1e-4)
        inside = ndimage.binary_erosion(expected.values > 0, iterations=2)
        channel = image[CONTRASTS.index(name)].numpy()
        assert np.corrcoef(channel[inside], expected.values[inside])[0, 1] > 0.95


def test_what_is_synthesised_lies_on_the_grid_as_acquired(prepared, patient, way, any_weights, tmp_path):
    words = ["--target", "pd", "--weights", str(any_weights), "--space", "native", "--grid-of", "t2"]
    assert main(["synthesize", str(prepared), str(tmp_path / "out"), *words]) == 0
    values, affine = read_volume(tmp_path / "out" / "sub-001" / "anat" / "sub-001_space-T2w_desc-synth_PDw.nii.gz")
    expected = as_acquired(patient["t2"], way)
    assert values.shape == expected.values.shape
    np.testing.assert_allclose(affine, expected.affine, atol=1e-4)


def test_monai_synthesises_a_raw_study_in_one_go(patient, way, any_weights, tmp_path, write_nifti):
    (tmp_path / "raw").mkdir()
    write_nifti("raw/P_t1.nii.gz", patient["t1"].values, patient["t1"].affine)
    moved = as_acquired(patient["t2"], way)
    write_nifti("raw/P_t2.nii.gz", moved.values, moved.affine)
    words = ["--target", "flair", "--weights", str(any_weights), "--config", str(CONFIGS / "prepare.json")]
    assert main(["synthesize", str(tmp_path / "raw"), str(tmp_path / "out"), *words]) == 0
    values, affine = read_volume(tmp_path / "out" / "P" / "P_flair_synth.nii.gz")
    assert values.shape == patient["t1"].values.shape
    np.testing.assert_allclose(affine, patient["t1"].affine, atol=1e-4)


def test_the_overlay_lays_raw_contrasts_onto_the_first(patient, way, write_nifti):
    moved = as_acquired(patient["t2"], way)
    record = {"patient": "P", "t1": write_nifti("t1.nii", patient["t1"].values, patient["t1"].affine)}
    record |= {"t2": write_nifti("t2.nii", moved.values, moved.affine)}
    parser = ConfigParser({"sources": ["t1", "t2"]} | ConfigParser.load_config_file(CONFIGS / "prepare.json"))
    image = LoadContrastsd(["t1", "t2"], prepare=parser.get_parsed_content("prepare"))(record)["image"]
    inside = ndimage.binary_erosion(patient["t2"].values > 0, iterations=2)
    assert np.corrcoef(image[1].numpy()[inside], patient["t2"].values[inside])[0, 1] > 0.95


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--space", "nativ"], "did you mean 'native'"),
        (["--space", "native", "--grid-of", "t1c"], "subject 001 has no t1c to give the grid"),
        (["--grid-of", "t2"], "set space to native"),
    ],
)
def test_a_space_that_is_not_there_is_one_clear_line(prepared, any_weights, tmp_path, capsys, words, said):
    start = ["synthesize", str(prepared), str(tmp_path / "out"), "--target", "pd", "--weights", str(any_weights)]
    assert main([*start, *words]) == 1
    assert said in capsys.readouterr().err


def test_scans_that_nobody_prepared_have_no_native_space(simulated, any_weights, tmp_path, capsys):
    words = ["--target", "pd", "--weights", str(any_weights), "--space", "native"]
    assert main(["synthesize", str(simulated), str(tmp_path / "out"), *words]) == 1
    assert "is not of hmf prepare" in capsys.readouterr().err


# DICOM


@pytest.fixture
def dicom(tmp_path, patient) -> Path:
    for number, (name, tags) in enumerate((("t1", T1), ("t2", T2), ("flair", FLAIR)), 1):
        scan = patient[name]
        values = np.round(scan.values / scan.values.max() * 4000).astype(np.uint16)
        write_classic(tmp_path / "study" / name, values, scan.affine, series=number, PatientName=SECRET, **tags)
    return tmp_path / "study"


def test_a_dicom_study_becomes_the_same_volumes(dicom, tmp_path, patient):
    output = tmp_path / "bids"
    assert main(["prepare", str(dicom), str(output), "--no-bias", "--no-register"]) == 0
    for name, suffix in (("t1", "T1w"), ("t2", "T2w"), ("flair", "FLAIR")):
        path = output / "sub-001" / "anat" / f"sub-001_{suffix}.nii.gz"
        values, affine = read_volume(path)
        np.testing.assert_allclose(affine, patient[name].affine, atol=1e-3)
        np.testing.assert_allclose(values / 4000, patient[name].values / patient[name].values.max(), atol=2e-4)
    assert json.loads(path.with_name("sub-001_FLAIR.json").read_text())["InversionTime"] == pytest.approx(2.5)
    hits = [path for path in output.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert not hits


def test_the_answer_goes_back_as_a_series_beside_the_scanners_own(dicom, tmp_path, patient, any_weights):
    prepared, output, series = tmp_path / "bids", tmp_path / "out", tmp_path / "dicom"
    assert main(["prepare", str(dicom), str(prepared), "--no-bias", "--no-register"]) == 0
    words = ["--target", "pd", "--weights", str(any_weights), "--space", "native", "--grid-of", "t2"]
    start = ["synthesize", str(prepared), str(output), *words, "--dicom", str(series)]
    assert main(start) == 1  # of which study?
    assert main([*start, "--study", str(dicom)]) == 0
    slices = [pydicom.dcmread(path) for path in sorted(series.glob("sub-001/pd_in_t2/*.dcm"))]
    assert len(slices) == patient["t2"].values.shape[2]
    assert {str(image.PatientName) for image in slices} == {SECRET}
    values, _ = read_volume(output / "sub-001" / "anat" / "sub-001_space-T2w_desc-synth_PDw.nii.gz")
    middle = len(slices) // 2
    np.testing.assert_allclose(slices[middle].pixel_array.T, values[:, :, middle], atol=0.5)


def test_a_study_that_fails_leaves_nothing_and_the_others_go_on(dicom, tmp_path, patient):
    sorted(dicom.glob("t1/*"))[4].unlink()
    values = np.round(patient["t1"].values).astype(np.uint16)
    write_classic(dicom / "other", values, patient["t1"].affine, PatientID="2", StudyInstanceUID="1.9", **T1)
    output = tmp_path / "bids"
    assert main(["prepare", str(dicom), str(output), "--no-bias", "--no-register"]) == 2
    (error,) = json.loads((output / "errors.json").read_text())
    assert (error["code"], error["subject"]) == ("E_DICOM_GAP", "sub-002")
    assert {path.name for path in output.rglob("*.nii.gz")} == {"sub-001_T1w.nii.gz"}
    assert not list(output.glob(".preparing*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--brain", "scissors"], "unknown brain tool 'scissors'"),
        (["--series", "T3=4"], "unknown contrast 't3'"),
        (["--series", "T1=nothing"], "fits no series"),
        (["--overwrite", "--skip-existing"], "contradict"),
        (["--brain", "morphological", "--no-regrid"], "one grid"),
    ],
)
def test_a_wrong_option_is_one_clear_line(dicom, tmp_path, capsys, words, said):
    assert main(["prepare", str(dicom), str(tmp_path / "bids"), *words]) == 1
    assert said in capsys.readouterr().err
