"""The simulator: the same person for the same seed, plausible images, files that the layouts promise."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

pytest.importorskip("nilearn")

from hmf_networks.data.phantom import simulate_subject, simulate_subjects
from hmf_networks.naming import CONTRASTS

COARSE = {"spacing_mm": 4.0}


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def subject():
    return simulate_subject(0, 1, lesion_share=0.0, **COARSE)


def test_the_same_seed_writes_the_same_bytes(tmp_path):
    for name in ("once", "again"):
        simulate_subjects(tmp_path / name, num_subjects=1, seed=7, **COARSE)
    assert digests(tmp_path / "once") == digests(tmp_path / "again")


def test_a_subject_is_the_same_however_many_are_asked_for(tmp_path):
    for count in (2, 3):
        simulate_subjects(tmp_path / str(count), num_subjects=count, seed=7, **COARSE)
    two, three = digests(tmp_path / "2"), digests(tmp_path / "3")
    assert two.items() < three.items()


def test_a_contrast_is_the_same_whichever_others_are_asked_for(subject):
    alone = simulate_subject(0, 1, lesion_share=0.0, contrasts=["flair"], **COARSE)
    assert list(alone.images) == ["flair"]
    np.testing.assert_array_equal(alone.images["flair"], subject.images["flair"])


def test_two_subjects_and_two_seeds_differ_in_anatomy(subject):
    for seed, number in ((0, 2), (1, 1)):
        other = simulate_subject(seed, number, contrasts=[], **COARSE)
        assert np.mean(other.tissue_labels != subject.tissue_labels) > 0.05


def test_one_person_keeps_the_volume_at_another_voxel_size(subject):
    finer = simulate_subject(0, 1, lesion_share=0.0, contrasts=[], spacing_mm=3.0)
    for label in (1, 2, 3):
        volumes = [np.sum(s.tissue_labels == label) * size**3 for s, size in ((subject, 4), (finer, 3))]
        assert volumes[0] == pytest.approx(volumes[1], rel=0.1)


def test_brain_and_tissues_have_the_size_of_a_person(subject):
    millilitres = [np.sum(subject.tissue_labels == label) * 0.064 for label in (1, 2, 3)]
    assert 1100 < sum(millilitres) < 2000
    assert all(share > 0.05 for share in np.divide(millilitres, sum(millilitres)))


def test_outside_the_brain_every_image_is_exactly_zero_and_inside_none_is(subject):
    brain = subject.tissue_labels > 0
    assert set(subject.images) == set(CONTRASTS)
    for image in subject.images.values():
        assert image.dtype == np.int16
        np.testing.assert_array_equal(image > 0, brain)


def test_tissues_come_in_the_order_of_each_contrast_and_overlap(subject):
    level = {
        name: [image[subject.tissue_labels == label].mean() for label in (1, 2, 3)]
        for name, image in subject.images.items()
    }
    assert level["t1"][2] > level["t1"][1] > level["t1"][0]
    assert level["t2"][0] > level["t2"][1] > level["t2"][2]
    assert level["flair"][0] < 0.6 * min(level["flair"][1:])
    white, grey = (subject.images["t2"][subject.tissue_labels == label] for label in (3, 2))
    assert np.percentile(white, 95) > np.percentile(grey, 5)


def test_lesions_exist_in_about_the_share_asked():
    kinds = [simulate_subject(3, number, contrasts=[], spacing_mm=8.0).kind for number in range(1, 17)]
    assert 4 <= sum(kind != "healthy" for kind in kinds) <= 12
    assert {"plaques", "tumour"} <= set(kinds)


def test_healthy_subjects_have_no_lesion_and_ill_ones_have_bright_ones_on_flair(subject):
    assert subject.kind == "healthy"
    assert not subject.lesion_labels.any()
    for number in range(1, 4):
        ill = simulate_subject(0, number, lesion_share=1.0, contrasts=["flair"], spacing_mm=2.0)
        lesion = ill.lesion_labels > 0
        assert lesion.any()
        assert (ill.tissue_labels[lesion] == 4).all()
        bright, white = (ill.images["flair"][ill.tissue_labels == label].mean() for label in (4, 3))
        assert bright > white


def test_brats_files_have_their_names_and_no_proton_density(tmp_path):
    (summary,) = simulate_subjects(tmp_path, num_subjects=1, seed=0, **COARSE)
    name = "BraTS-SIM-00001-000"
    assert summary["subject"] == name
    assert {path.name for path in (tmp_path / name).iterdir()} == {
        f"{name}-{ending}.nii.gz" for ending in ("t1n", "t1c", "t2w", "t2f", "seg")
    }


def test_ixi_files_lie_flat(tmp_path):
    (summary,) = simulate_subjects(tmp_path, num_subjects=1, seed=0, layout="ixi", **COARSE)
    assert summary["subject"] == "IXI001-SIM-0001"
    assert {path.name for path in tmp_path.iterdir()} == {
        f"IXI001-SIM-0001-{ending}.nii.gz" for ending in ("T1", "T2", "PD")
    }


def test_bids_files_have_their_names_and_labels_beside(tmp_path):
    simulate_subjects(tmp_path, num_subjects=1, seed=0, layout="bids", lesion_share=1.0, **COARSE)
    suffixes = ("T1w", "ce-gadolinium_T1w", "T2w", "FLAIR", "PDw")
    scans = {f"sub-sim001/anat/sub-sim001_{suffix}.nii.gz" for suffix in suffixes}
    stem = "derivatives/labels/sub-sim001/anat/sub-sim001"
    labels = {f"{stem}_dseg.nii.gz", f"{stem}_label-lesion_mask.nii.gz"}
    texts = {"dataset_description.json", "derivatives/labels/dataset_description.json"}
    assert set(digests(tmp_path)) == scans | labels | texts
    assert json.loads((tmp_path / "dataset_description.json").read_text())["BIDSVersion"]
    mask = np.asarray(nibabel.load(tmp_path / f"{stem}_label-lesion_mask.nii.gz").dataobj)
    assert set(np.unique(mask)) <= {0, 1}


def test_the_header_says_millimetres_lps_and_scanner_space_twice(tmp_path):
    (summary,) = simulate_subjects(tmp_path, num_subjects=1, seed=0, contrasts=["t1"], **COARSE)
    image = nibabel.load(summary["files"]["t1"])
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
    np.testing.assert_allclose(np.diag(image.affine), (-4, -4, 4, 1))
    assert np.any(image.affine[:3, 3])
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert image.get_data_dtype() == np.int16


@pytest.mark.parametrize(
    ("layout", "taken"),
    [("brats", "BraTS-SIM-00002-000"), ("ixi", "IXI002-SIM-0002-T1.nii.gz"), ("bids", "sub-sim002/anat")],
)
def test_nothing_is_written_when_one_subject_is_there_already(tmp_path, layout, taken):
    path = tmp_path / taken
    occupied = path if layout == "ixi" else path / "notes.txt"
    occupied.parent.mkdir(parents=True, exist_ok=True)
    occupied.write_text("mine")
    with pytest.raises(ValueError, match=Path(taken).name):
        simulate_subjects(tmp_path, num_subjects=2, seed=0, layout=layout, **COARSE)
    assert list(digests(tmp_path)) == [str(occupied.relative_to(tmp_path))]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layout": "brat"}, "did you mean 'brats'"),
        ({"num_subjects": 0}, "num_subjects is 0"),
        ({"spacing_mm": 40.0}, r"spacing_mm is 40\.0"),
        ({"lesion_share": 50}, "lesion_share is 50"),
        ({"contrasts": ["flare"]}, "did you mean 'flair'"),
        ({"layout": "brats", "contrasts": ["pd"]}, "holds none of pd"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_wrong_request_is_refused_with_what_was_wanted(tmp_path, wrong, message):
    request = {"num_subjects": 1, "seed": 0} | COARSE | wrong
    with pytest.raises(ValueError, match=message):
        simulate_subjects(tmp_path, **request)
    assert not digests(tmp_path)


def test_importing_the_simulator_loads_no_heavy_package():
    heavy = "{'torch', 'monai', 'nilearn', 'nibabel', 'scipy'} & set(sys.modules)"
    code = f"import sys, hmf_networks.data.phantom; print({heavy})"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def test_a_missing_nilearn_names_the_cure(monkeypatch):
    from hmf_networks.data.anatomy import load_template

    load_template.cache_clear()
    monkeypatch.setitem(sys.modules, "nilearn", None)
    with pytest.raises(RuntimeError, match=r"pip install 'hmf-networks\[demo\]'"):
        load_template()
