from pathlib import Path

import numpy as np
import pytest
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.transforms.load import LoadContrastsd

SHAPE = (6, 7, 8)
AFFINE = np.array([[-0.9, 0.1, 0, 40], [0.1, 0.9, 0.05, -30], [0, 0, 1.2, 5], [0, 0, 0, 1.0]])


@pytest.fixture
def record(write_nifti):
    random = np.random.default_rng(0)
    paths = {name: write_nifti(f"{name}.nii.gz", random.random(SHAPE), AFFINE) for name in ("t1", "t2", "flair")}
    return {"patient": "lg01", "session": "2", "layout": "brats", **paths}


def test_channels_stand_in_the_order_of_the_sources(record):
    one_way = LoadContrastsd(["t1", "flair"])(record)
    other_way = LoadContrastsd(["flair", "t1"])(record)
    np.testing.assert_array_equal(one_way["image"], other_way["image"].flip(0))
    assert not np.array_equal(one_way["image"][0], one_way["image"][1])
    assert other_way["source_paths"] == [record["flair"], record["t1"]]


def test_the_image_knows_its_place_and_its_first_source(record):
    sample = LoadContrastsd(["flair", "t1"], with_label=True)(record | {"target": "t2"})
    np.testing.assert_allclose(sample["image"].affine, AFFINE, atol=1e-6)
    np.testing.assert_allclose(sample["label"].affine, AFFINE, atol=1e-6)
    assert sample["image"].meta["filename_or_obj"] == record["flair"]
    assert {key: sample[key] for key in ("patient", "session", "layout")} == {
        "patient": "lg01",
        "session": "2",
        "layout": "brats",
    }


def test_a_missing_contrast_is_named_with_its_subject(record):
    del record["flair"]
    with pytest.raises(VolumeError, match=r"^E_MISSING subject lg01: it has no flair; add the file"):
        LoadContrastsd(["t1", "flair"], with_label=True)(record | {"target": "t2"})


ALL = ["t1", "t1c", "t2", "flair", "pd"]


def test_from_any_subset_what_is_not_there_is_zero_and_the_others_stand_in_their_channels(record):
    sample = LoadContrastsd(ALL, any_subset=True)(record)
    assert sample["source_names"] == ["t1", "t2", "flair"]
    assert sample["source_paths"] == [record[name] for name in ("t1", "t2", "flair")]
    assert len(sample["source_states"]) == 3
    np.testing.assert_array_equal(sample["image"][[0, 2, 3]], LoadContrastsd(["t1", "t2", "flair"])(record)["image"])
    assert not sample["image"][[1, 4]].any()


@pytest.mark.parametrize(
    ("made", "given"), [({"target": "t2"}, None), ({"targets": ["t2", "pd"]}, None), ({}, ["t1", "flair", "pd"])]
)
def test_what_is_to_be_made_or_not_given_is_as_if_it_were_not_there_and_is_not_read(record, made, given):
    Path(record["t2"]).write_bytes(b"no volume")
    without = {key: value for key, value in record.items() if key != "t2"}
    one, other = (LoadContrastsd(ALL, any_subset=True, given=given)(some) for some in (record | made, without))
    assert one["source_names"] == other["source_names"] == ["t1", "flair"]
    np.testing.assert_array_equal(one["image"], other["image"])


def test_the_first_contrast_that_is_read_gives_the_grid(record, write_nifti):
    place = moved(_03=7.0)
    record["t2"] = write_nifti("t2.nii.gz", np.random.default_rng(0).random(SHAPE), place)
    with pytest.raises(VolumeError, match=r"^E_GRID .*t2\.nii\.gz"):
        LoadContrastsd(ALL, any_subset=True)(record)
    sample = LoadContrastsd(ALL, any_subset=True, given=["t2"])(record)
    np.testing.assert_allclose(sample["image"].affine, place, atol=1e-6)
    assert sample["image"].meta["filename_or_obj"] == record["t2"]


def test_a_subject_without_a_source_that_may_be_used_is_told_which_would_do(record):
    load = LoadContrastsd(ALL, any_subset=True, given=["t2", "pd"])
    with pytest.raises(VolumeError, match=r"^E_MISSING subject lg01: it has no pd; add the file"):
        load(record | {"target": "t2"})
    with pytest.raises(VolumeError, match=r"it has no t1, t1c, t2, flair, pd; add the file"):
        LoadContrastsd(ALL, any_subset=True)({"patient": "lg01"})


def test_what_is_learnt_is_no_source_of_itself(record):
    sample = LoadContrastsd(ALL, with_label=True, any_subset=True)(record | {"target": "t2"})
    assert sample["source_names"] == ["t1", "flair"]
    np.testing.assert_array_equal(sample["label"], LoadContrastsd(["t2"])(record)["image"])


@pytest.mark.parametrize("culprit", ["flair", "t2"])
def test_another_shape_is_refused_by_the_name_of_the_file(record, write_nifti, culprit):
    write_nifti(f"{culprit}.nii.gz", np.random.default_rng(1).random((6, 8, 7)), AFFINE)
    with pytest.raises(VolumeError, match=rf"^E_GRID .*{culprit}\.nii\.gz: grid \(6, 8, 7\) is not"):
        LoadContrastsd(["t1", "flair"], with_label=True)(record | {"target": "t2"})


def moved(**changes: float) -> np.ndarray:
    affine = AFFINE.copy()
    for place, change in changes.items():
        affine[int(place[1]), int(place[2])] += change
    return affine


@pytest.mark.parametrize("affine", [moved(_03=1.0), moved(_00=0.05), AFFINE @ np.diag([1, 1, -1, 1])])
def test_another_place_or_direction_is_refused_by_the_name_of_the_file(record, write_nifti, affine):
    write_nifti("flair.nii.gz", np.random.default_rng(1).random(SHAPE), affine)
    with pytest.raises(VolumeError, match=r"^E_GRID .*flair\.nii\.gz: its corners lie up to"):
        LoadContrastsd(["t1", "flair"])(record)


def test_rounding_of_a_hundredth_of_a_millimetre_is_accepted(record, write_nifti):
    values = np.random.default_rng(1).random(SHAPE).astype(np.float32)
    write_nifti("flair.nii.gz", values, moved(_03=0.01, _13=-0.01, _22=0.001))
    sample = LoadContrastsd(["t1", "flair"])(record)
    np.testing.assert_array_equal(sample["image"][1], values)
    np.testing.assert_allclose(sample["image"].affine, AFFINE, atol=1e-6)  # that of the first source


def test_a_segmentation_becomes_a_mask_and_is_empty_when_there_is_none(record, write_nifti):
    labels = np.zeros(SHAPE)
    labels[2, 3, 4], labels[3, 3, 4] = 1, 4
    load = LoadContrastsd(["t1"], with_label=True, with_region=True)
    assert load(record)["region"].sum() == 0
    record["label"] = write_nifti("seg.nii.gz", labels, AFFINE)
    np.testing.assert_array_equal(load(record)["region"][0], labels > 0)
    record["label"] = write_nifti("seg.nii.gz", np.zeros(SHAPE), AFFINE)  # a healthy subject
    assert load(record)["region"].sum() == 0


def test_a_segmentation_on_another_grid_is_refused(record, write_nifti):
    record["label"] = write_nifti("seg.nii.gz", np.random.default_rng(1).random(SHAPE), moved(_13=2.0))
    with pytest.raises(VolumeError, match=r"^E_GRID .*seg\.nii\.gz"):
        LoadContrastsd(["t1"], with_label=True, with_region=True)(record | {"target": "t2"})


def head_and_part_of_it(write_nifti, record, shift) -> np.ndarray:
    """A ball on background 7; `flair` holds the same without its first planes, moved by a part of a voxel."""
    centre = np.array([6, 7, 8])
    place = np.moveaxis(np.indices((14, 15, 16)), 0, -1)
    ball = np.where(np.linalg.norm(place - centre, axis=-1) < 5, 100 + place.sum(-1), 7).astype(np.float32)
    record["t1"] = write_nifti("t1.nii.gz", ball, AFFINE)
    affine = AFFINE.copy()
    affine[:3, 3] += AFFINE[:3, :3] @ np.add([2, 0, 0], shift)
    record["flair"] = write_nifti("flair.nii.gz", ball[2:], affine)
    return ball


def test_regridding_onto_a_grid_that_coincides_changes_nothing_and_background_stays_exactly_that(record, write_nifti):
    ball = head_and_part_of_it(write_nifti, record, [0, 0, 0])
    regridded = LoadContrastsd(["t1", "flair"], regrid=True)(record)["image"][1].numpy()
    np.testing.assert_allclose(regridded[2:], ball[2:], atol=1e-3)
    np.testing.assert_array_equal(regridded == 7, ball == 7)
    np.testing.assert_array_equal(regridded[:2], 7)  # where it does not reach


def test_regridding_interpolates_linearly_in_world_space(record, write_nifti):
    head_and_part_of_it(write_nifti, record, [0, 0, 0.25])
    regridded = LoadContrastsd(["t1", "flair"], regrid=True)(record)["image"][1].numpy()
    inside = (slice(4, 8), slice(5, 9), slice(6, 10))
    expected = 100 + np.indices(regridded.shape).sum(0) - 0.25
    np.testing.assert_allclose(regridded[inside], expected[inside], atol=1e-3)


def test_files_on_one_grid_are_not_touched_by_regrid(record):
    for one, other in zip(
        LoadContrastsd(["t1", "flair"])(record)["image"],
        LoadContrastsd(["t1", "flair"], regrid=True)(record)["image"],
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
