"""Raw studies: every series is found, told apart, put in order and in place, or refused with a code."""

import os
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.preparation.contrast_tags import contrast_of
from hmf_networks.preparation.dicom_files import dicom_paths, unpacked
from hmf_networks.preparation.dicom_series import Series, by_study, find_series, read
from hmf_networks.preparation.series_choice import choose, named, parse_assignments

pydicom = pytest.importorskip("pydicom", reason="needs pydicom, extra `prepare`")

from dicom_writer import FLAIR, PATIENT, PD, T1, T2, numbers, oblique, rewrite, write_classic, write_enhanced  # noqa: E402

ADC = {"ImageType": ["DERIVED", "PRIMARY", "DIFFUSION", "ADC"], "SeriesDescription": "ep2d_diff_ADC"}
SHORT = (4, 3)  # of planes where the pixels do not matter


def only(folder: Path) -> Series:
    (series,) = find_series(folder).series
    return series


def fault(folder: Path) -> VolumeError:
    with pytest.raises(VolumeError) as caught:
        read(only(folder))
    assert PATIENT not in str(caught.value)
    return caught.value


# Geometry and order


@pytest.mark.parametrize("permutation", [(0, 1, 2), (1, 2, 0), (2, 0, 1)], ids=["axial", "other", "third"])
def test_an_oblique_volume_comes_back_in_its_place_whatever_the_order_of_its_files(tmp_path, permutation):
    affine, values = oblique()[:, [*permutation, 3]], numbers()
    names = [f"{number:03d}.dcm" for number in random.Random(1).sample(range(100), 5)]
    write_classic(tmp_path, values, affine, names=names, InstanceNumber=dict(enumerate((3, 1, 5, 2, 4))))
    scan = read(only(tmp_path))
    assert scan.values.dtype == np.float32
    np.testing.assert_array_equal(scan.values, values)
    np.testing.assert_allclose(scan.affine, affine, rtol=0, atol=1e-3)


def test_slices_written_against_the_normal_come_out_along_it(tmp_path):
    affine, values = oblique(), numbers()
    against = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 4], [0, 0, 0, 1.0]])
    write_classic(tmp_path, values[:, :, ::-1], against)
    scan = read(only(tmp_path))
    np.testing.assert_array_equal(scan.values, values)
    np.testing.assert_allclose(scan.affine, affine, rtol=0, atol=1e-3)


def test_an_enhanced_file_is_read_frame_by_frame_with_the_slope_of_each(tmp_path):
    affine, values = oblique(), numbers()
    write_enhanced(tmp_path / "one", values, affine, order=(3, 0, 4, 1, 2))
    series = only(tmp_path)
    assert (series.contrast, series.aside, series.shape) == ("t1", "", (7, 6, 5))
    scan = read(series)
    np.testing.assert_array_equal(scan.values, 2 * values + np.arange(5))
    np.testing.assert_allclose(scan.affine, affine, rtol=0, atol=1e-3)


def test_an_enhanced_file_without_positions_is_refused(tmp_path):
    path = write_enhanced(tmp_path / "one", numbers(), oblique())
    frames = pydicom.dcmread(path).PerFrameFunctionalGroupsSequence
    for frame in frames:
        del frame.PlanePositionSequence
    rewrite(path, PerFrameFunctionalGroupsSequence=frames)
    assert fault(tmp_path).code == "E_DICOM_TAGS"


def test_frames_without_functional_groups_are_refused(tmp_path):
    write_classic(tmp_path, numbers(), oblique(), NumberOfFrames=2)
    assert fault(tmp_path).code == "E_DICOM_TAGS"


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_slice_that_does_not_say_where_it_lies_is_refused_by_name(tmp_path, keyword):
    write_classic(tmp_path, numbers(), oblique(), **{keyword: {2: None}})
    error = fault(tmp_path)
    assert error.code == "E_DICOM_TAGS"
    assert f"IM0002 has no usable {keyword}" in str(error)


@pytest.mark.parametrize("lost", [[2], [3, 4], [2, 6]])
def test_missing_slices_are_counted_and_named(tmp_path, lost):
    paths = write_classic(tmp_path, numbers((*SHORT, 9)), oblique())
    for index in lost:
        paths[index].unlink()
    error = fault(tmp_path)
    assert error.code == "E_DICOM_GAP"
    assert f"{len(lost)} slices are missing" in str(error)
    assert f"between IM{lost[0] - 1:04d} and" in str(error)


def test_every_other_slice_missing_is_told_by_the_tags(tmp_path):
    paths = write_classic(tmp_path, numbers((*SHORT, 9)), oblique(), SpacingBetweenSlices=3.0)
    for path in paths[1::2]:
        path.unlink()
    assert fault(tmp_path).code == "E_DICOM_GAP"


def test_a_gap_given_for_the_spacing_is_no_missing_slice(tmp_path):
    write_classic(tmp_path, numbers(), oblique(), SpacingBetweenSlices=1.5, SliceThickness=2.0)  # they lie 3 mm apart
    assert read(only(tmp_path)).values.shape == (7, 6, 5)


@pytest.mark.parametrize(("share", "refused"), [(0.3, True), (0.01, False)])
def test_uneven_distances_are_refused_and_rounding_is_not(tmp_path, share, refused):
    affine = oblique()
    paths = write_classic(tmp_path, numbers(), affine)
    moved = affine.copy()
    moved[:3, 3] += share * affine[:3, 2]
    rewrite(paths[2], ImagePositionPatient=((moved @ [0, 0, 2, 1])[:3] * [-1, -1, 1]).tolist())
    if refused:
        assert fault(tmp_path).code == "E_DICOM_GAP"
    else:
        read(only(tmp_path))


@pytest.mark.parametrize(("degrees", "refused"), [(5.0, True), (0.02, False)])
def test_slices_sheared_against_their_stack_are_refused(tmp_path, degrees, refused):
    affine = oblique()
    sheared = affine.copy()
    row = affine[:3, 0] / np.linalg.norm(affine[:3, 0])
    sheared[:3, 2] += row * np.linalg.norm(affine[:3, 2]) * np.tan(np.radians(degrees))
    write_classic(tmp_path, numbers(), sheared)
    if refused:
        error = fault(tmp_path)
        assert error.code == "E_DICOM_TILT"
        assert f"{degrees:.1f} degrees" in str(error)
    else:
        read(only(tmp_path))


def test_one_slice_shifted_along_its_plane_is_refused(tmp_path):
    affine = oblique()
    paths = write_classic(tmp_path, numbers(), affine)
    rewrite(paths[2], ImagePositionPatient=((affine @ [1, 0, 2, 1])[:3] * [-1, -1, 1]).tolist())
    error = fault(tmp_path)
    assert error.code == "E_DICOM_TILT"
    assert "IM0002" in str(error)


def test_a_slice_turned_by_half_a_degree_is_refused(tmp_path):
    angle = np.radians(0.5)
    turned = [np.cos(angle), np.sin(angle), 0, -np.sin(angle), np.cos(angle), 0]
    tags = {"ImageOrientationPatient": {0: turned} | {index: [1, 0, 0, 0, 1, 0] for index in range(1, 5)}}
    write_classic(tmp_path, numbers(), np.diag([1.0, 1, 3, 1]), **tags)
    assert fault(tmp_path).code == "E_DICOM_PARALLEL"


def test_one_slice_is_no_volume(tmp_path):
    write_classic(tmp_path, numbers((*SHORT, 1)), oblique())
    assert fault(tmp_path).code == "E_DICOM_SINGLE"


# Twice


@pytest.mark.parametrize("is_renamed", [False, True], ids=["the same name", "another name"])
def test_an_image_that_is_there_twice_is_used_once_and_told(tmp_path, is_renamed):
    values = numbers()
    paths = write_classic(tmp_path, values, oblique())
    copy = tmp_path / "copy"
    copy.write_bytes(paths[2].read_bytes())
    if is_renamed:
        rewrite(copy, SOPInstanceUID="1.9")
    series = only(tmp_path)
    assert [warned.code for warned in series.warnings] == ["W_DICOM_TWICE"]
    np.testing.assert_array_equal(read(series).values, values)


def test_two_different_images_at_one_place_are_refused(tmp_path):
    write_classic(tmp_path / "a", numbers(), oblique())
    write_classic(
        tmp_path / "b", numbers(seed=1), oblique(), SOPInstanceUID={index: f"1.9.{index}" for index in range(5)}
    )
    error = fault(tmp_path)
    assert error.code == "E_DICOM_TWICE"
    assert "a/IM0000 and b/IM0000" in str(error)


def test_of_two_images_of_one_name_the_first_is_used(tmp_path):
    values = numbers()
    write_classic(tmp_path / "a", values, oblique())
    write_classic(tmp_path / "b", numbers(seed=1), oblique())  # the same SOPInstanceUIDs
    np.testing.assert_array_equal(read(only(tmp_path)).values, values)


def test_nothing_is_warned_of_in_a_plain_series(tmp_path):
    write_classic(tmp_path, numbers(), oblique())
    assert only(tmp_path).warnings == ()


# Pixels


def test_slope_and_intercept_are_those_of_each_slice(tmp_path):
    values = numbers()
    slopes = (1.0, 2.0, 0.5, 3.0, 1.5)
    tags = {"RescaleSlope": dict(enumerate(slopes)), "RescaleIntercept": -20}
    write_classic(tmp_path, values, oblique(), **tags)
    np.testing.assert_allclose(read(only(tmp_path)).values, values * slopes - 20.0, rtol=1e-6)


@pytest.mark.parametrize("slope", ["0", "1e300"])
def test_a_slope_that_makes_no_numbers_is_refused(tmp_path, slope):
    write_classic(tmp_path, numbers(), oblique(), RescaleSlope={1: slope})
    assert fault(tmp_path).code == "E_SCALE"


def test_monochrome1_is_turned_over(tmp_path):
    values = numbers()
    write_classic(
        tmp_path, values, oblique(), PhotometricInterpretation="MONOCHROME1", RescaleSlope=2, RescaleIntercept=0
    )
    np.testing.assert_array_equal(read(only(tmp_path)).values, 2 * (values.max() + values.min() - values))


def test_signed_pixels_keep_their_sign(tmp_path):
    write_classic(tmp_path, numbers() - 450, oblique(), PixelRepresentation=1, BitsStored=16, HighBit=15)
    np.testing.assert_array_equal(read(only(tmp_path)).values, numbers() - 450)


def test_run_lengths_are_read_as_what_they_stand_for(tmp_path):
    values = numbers()
    for path in write_classic(tmp_path, values, oblique(), RescaleSlope=3, RescaleIntercept=-7):
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    np.testing.assert_array_equal(read(only(tmp_path)).values, 3 * values - 7)


@pytest.mark.parametrize("kind", ["jpeg_ls_lossless", "jp2klossless"])
def test_jpeg_is_decoded_and_scaled_once(tmp_path, kind):
    pytest.importorskip("itk", reason="needs itk, extra `prepare`")
    files = Path(pydicom.__file__).parent / "data" / "test_files"
    stored = pydicom.dcmread(files / "MR_small.dcm").pixel_array
    for index in range(2):
        path = tmp_path / str(index)
        path.write_bytes((files / f"MR_small_{kind}.dcm").read_bytes())
        place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "ImagePositionPatient": [0, 0, index]}
        rewrite(path, SOPInstanceUID=f"1.{index}", RescaleSlope=3 + index, RescaleIntercept=-7, **place)
    values = read(only(tmp_path)).values
    np.testing.assert_array_equal(values, np.stack([3 * stored.T - 7, 4 * stored.T - 7], axis=2))


def test_a_truncated_file_is_refused_by_name(tmp_path):
    paths = write_classic(tmp_path, numbers(), oblique())
    paths[3].write_bytes(paths[3].read_bytes()[:-20])
    error = fault(tmp_path)
    assert (error.code, error.path) == ("E_TRUNCATED", "IM0003")


def test_colours_are_refused(tmp_path):
    write_classic(tmp_path, numbers(), oblique(), SamplesPerPixel=3, PhotometricInterpretation="RGB")
    assert fault(tmp_path).code == "E_DTYPE"


def test_a_volume_without_signal_is_refused(tmp_path):
    write_classic(tmp_path, np.zeros((7, 6, 5), int), oblique())
    assert fault(tmp_path).code == "E_NO_SIGNAL"


# Files


def test_files_that_are_no_images_are_not_seen(tmp_path):
    write_classic(tmp_path / "a" / "b", numbers(), oblique())
    (tmp_path / "readme.txt").write_text("DICM")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "noise.dcm").write_bytes(bytes(200))
    for hidden in (".hidden", "__MACOSX", "a/.cache"):
        write_classic(tmp_path / hidden, numbers(seed=1), oblique(), series=2)
    (tmp_path / "DICOMDIR").write_bytes((tmp_path / "a/b/IM0000").read_bytes())
    (tmp_path / "._IM0000").write_bytes((tmp_path / "a/b/IM0001").read_bytes())
    assert [path.name for path in dicom_paths(tmp_path)] == [f"IM{index:04d}" for index in range(5)]
    assert only(tmp_path).warnings == ()


def test_a_directory_of_dicom_under_another_name_is_not_seen(tmp_path):
    write_classic(tmp_path, numbers(), oblique())
    (tmp_path / "index").write_bytes((tmp_path / "IM0000").read_bytes())
    rewrite(tmp_path / "index", SOPClassUID="1.2.840.10008.1.3.10")
    assert len(only(tmp_path).images) == 5


def test_files_from_before_the_preamble_are_read(tmp_path):
    values = numbers()
    for path in write_classic(tmp_path, values, oblique()):
        dataset = pydicom.dcmread(path)
        del dataset.file_meta
        dataset.preamble = None
        dataset.save_as(path, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(read(only(tmp_path)).values, values)


@pytest.mark.parametrize("damage", [lambda content: content[:200], lambda content: content.replace(b"DA", b"Q?")])
def test_a_file_whose_tags_are_damaged_is_told_and_not_in_the_way(tmp_path, damage):
    paths = write_classic(tmp_path, numbers(), oblique())
    (tmp_path / "damaged").write_bytes(damage(paths[0].read_bytes()))
    found = find_series(tmp_path)
    assert [(error.code, error.path) for error in found.unreadable] == [("E_CORRUPT", "damaged")]
    assert len(found.series[0].images) == 5


def test_a_folder_without_dicom_and_one_without_mr_are_refused(tmp_path):
    with pytest.raises(VolumeError, match="E_DICOM_EMPTY"):
        find_series(tmp_path)
    write_classic(tmp_path, numbers(), oblique(), Modality="CT", SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    with pytest.raises(VolumeError, match=r"E_DICOM_MODALITY.*CT"):
        find_series(tmp_path)


def test_a_zip_is_read_as_its_folder_and_nothing_stays(tmp_path):
    values = numbers()
    paths = write_classic(tmp_path / "study", values, oblique())
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        for path in paths:
            archive.write(path, f"export/{path.name}")
        archive.writestr("__MACOSX/export/._IM0000", b"x" * 200)
    with unpacked(tmp_path / "study.zip") as folder:
        np.testing.assert_array_equal(read(only(folder)).values, values)
        assert [path.name for path in folder.iterdir()] == ["export"]
    assert not folder.exists()


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil", "..\\evil", "C:\\evil"])
def test_a_zip_that_would_write_elsewhere_is_refused_whole(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "study.zip", "w") as archive:
        archive.writestr("fine", b"fine")
        archive.writestr(name, b"evil")
    with pytest.raises(VolumeError, match="E_DICOM_ZIP"), unpacked(tmp_path / "study.zip"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["study.zip"]


def test_a_zip_is_not_believed_in_its_sizes(tmp_path):
    path = tmp_path / "study.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(3_000_000))
    with pytest.raises(VolumeError, match=r"E_DICOM_ZIP.*of 3000000 bytes"), unpacked(path, most_bytes=2_999_999):
        pass
    with unpacked(path, most_bytes=3_000_000) as folder:
        assert (folder / "zeros").stat().st_size == 3_000_000
    path.write_bytes(path.read_bytes().replace((3_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(VolumeError, match="E_DICOM_ZIP"), unpacked(path):
        pass


def test_what_is_no_zip_is_refused(tmp_path):
    (tmp_path / "study.zip").write_bytes(b"nothing")
    with pytest.raises(VolumeError, match="E_DICOM_ZIP"), unpacked(tmp_path / "study.zip"):
        pass
    with pytest.raises(VolumeError, match="E_MISSING"), unpacked(tmp_path / "none"):
        pass


# A whole study


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> list[Series]:
    """A study as it comes; what it holds stands in `write_study`."""
    folder = tmp_path_factory.mktemp("study")
    write_study(folder)
    return find_series(folder).series


def write_study(folder: Path) -> None:
    affine, values = oblique(), numbers()
    planes = ([1, 0, 0, 0, 1, 0], [1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1])
    localiser = {"ImageOrientationPatient": dict(enumerate(planes)), "SeriesDescription": "three directions"}
    write_classic(folder / "1", numbers((*SHORT, 3)), affine, series=1, **localiser)
    write_classic(folder / "2", values, affine, series=2, **ADC)
    write_classic(folder / "3", values, affine, series=3, **T1)
    write_classic(folder / "4", values, affine, series=4, **{**T1, "ContrastBolusAgent": "Dotarem"})
    write_classic(folder / "5", values, affine, series=5, **T2)
    write_classic(folder / "6", values, affine, series=6, **FLAIR)
    for echo, (time, name) in enumerate([(15, "PD"), (95, "T2")], 1):
        tags = {**PD, "EchoTime": time, "EchoNumbers": echo}
        tags["SOPInstanceUID"] = {index: f"1.7.{echo}.{index}" for index in range(5)}
        write_classic(folder / "7" / name, numbers(seed=echo), affine, series=7, **tags)
    report = {"Modality": "SR", "SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}
    write_classic(folder / "8", numbers((*SHORT, 1)), affine, series=8, **report)


def test_a_mixed_study_is_told_apart(study):
    choice = choose(study)
    labels = {contrast: series.label for contrast, series in choice.taken.items()}
    assert labels == {"t1": "3", "t1c": "4", "t2": "5", "flair": "6", "pd": "7.1"}
    assert {item.label.partition(".")[0] for item in choice.aside} == {"1", "2", "7", "8"}
    reasons = {item.label: item.reason for item in choice.aside}
    assert "slice only" in reasons["1.1"]
    assert reasons["2"] == "diffusion"
    assert reasons["7.2"].startswith("another t2: series 5")
    assert "SR" in reasons["8"]


def test_both_echoes_of_a_double_echo_have_their_own_pixels(study):
    by_label = {series.label: series for series in study}
    assert [by_label[label].contrast for label in ("7.1", "7.2")] == ["pd", "t2"]
    for echo in (1, 2):
        np.testing.assert_array_equal(read(by_label[f"7.{echo}"]).values, numbers(seed=echo))


@pytest.mark.parametrize("tag", ["EchoNumbers", "EchoTime"])
def test_either_tag_alone_tells_echoes_apart(tmp_path, tag):
    for echo in (1, 2):
        tags = {tag: echo, "SOPInstanceUID": {index: f"1.7.{echo}.{index}" for index in range(5)}}
        write_classic(tmp_path / str(echo), numbers(seed=echo), oblique(), **tags)
    assert [series.label for series in find_series(tmp_path).series] == ["1.1", "1.2"]


def test_several_directions_of_few_slices_are_a_localiser(tmp_path):
    orientation = {k: [1, 0, 0, 0, 1, 0] for k in range(5)}
    write_classic(tmp_path / "a", numbers(), np.diag([1.0, 1, 3, 1]), ImageOrientationPatient=orientation)
    tags = {"SOPInstanceUID": {index: f"1.7.{index}" for index in range(5)}}
    write_classic(tmp_path / "b", numbers(), oblique()[:, [1, 2, 0, 3]], **tags)
    assert [series.aside for series in find_series(tmp_path).series] == ["a localiser: 2 directions of few slices"] * 2


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "a localiser"),
        ({"SeriesDescription": "survey"}, "a localiser"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "a reformat or projection of another series"),
        ({"ImageType": ["DERIVED", "SECONDARY"]}, "secondary: made from other images"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE"]}, "phase, not magnitude"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "SWI", "NORM"]}, "susceptibility weighting"),
        ({"SeriesDescription": "TOF_3D_multi-slab"}, "angiography"),
        ({"AngioFlag": "Y"}, "angiography"),
        ({"DiffusionBValue": {3: 1000.0}}, "diffusion"),
        ({"SeriesDescription": "ep2d_perf_p2"}, "perfusion"),
        ({"ScanningSequence": "EP"}, "echo planar imaging"),
        ({"NumberOfTemporalPositions": 40}, "several points in time"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "a picture of a screen"),
        ({"ImageType": ["DERIVED", "PRIMARY", "M", "FILTERED"]}, ""),
        ({"SeriesDescription": "t1_mpr_ns_sag_p2_iso"}, ""),
    ],
)
def test_what_is_no_plain_scan_is_left_aside_with_its_reason(tmp_path, tags, reason):
    write_classic(tmp_path / "plain", numbers(), oblique(), series=9)
    write_classic(tmp_path / "other", numbers(), oblique(), series=1, **tags)
    other, _ = find_series(tmp_path).series
    assert other.aside == reason
    assert (other.contrast is None) == bool(reason)


# Contrasts


def mprage(**tags):
    times = {"RepetitionTime": 2300, "EchoTime": 2.98, "InversionTime": 900}
    return {**times, "ScanningSequence": ["GR", "IR"], "SequenceVariant": ["SK", "SP", "MP"], **tags}


@pytest.mark.parametrize(
    ("values", "contrast"),
    [
        (T1, "t1"),
        (T2, "t2"),
        (PD, "pd"),
        (FLAIR, "flair"),
        (mprage(), "t1"),
        (mprage(ContrastBolusAgent="Gadovist"), "t1c"),
        (mprage(ContrastBolusAgent="NONE"), "t1"),
        (mprage(SeriesDescription="T1 MPRAGE +C"), "t1c"),
        (mprage(SeriesDescription="t1_mpr KM"), "t1c"),
        (mprage(SeriesDescription="T1 post GD"), "t1c"),
        (mprage(SeriesDescription="T1 post-op"), "t1"),
        (mprage(SeriesDescription="T1 nativ"), "t1"),
        (mprage(SeriesDescription="T1 nativ", ContrastBolusAgent="Gadovist"), None),
        ({**T2, "ContrastBolusAgent": "Gadovist", "SeriesDescription": "T2 post"}, "t2"),
        # T1 FLAIR is a T1, and one that is called FLAIR alone is not believed to be one
        ({"RepetitionTime": 2500, "EchoTime": 12, "InversionTime": 900, "SeriesDescription": "T1 FLAIR"}, "t1"),
        ({"RepetitionTime": 2500, "EchoTime": 12, "InversionTime": 900, "SeriesDescription": "FLAIR"}, None),
        ({**FLAIR, "InversionTime": None, "SeriesDescription": "Ax T2 FLAIR"}, "flair"),
        ({**T2, "SeriesDescription": "dark fluid"}, "flair"),
        ({**FLAIR, "EchoTime": 388, "InversionTime": 1800, "SeriesDescription": "t2_space"}, None),
        ({**FLAIR, "EchoTime": 388, "InversionTime": 1800, "SeriesDescription": "t2_space_dark-fluid"}, "flair"),
        ({"RepetitionTime": 700, "EchoTime": 12, "ScanningSequence": "SE", "SeriesDescription": "t1_space"}, "t1"),
        ({**FLAIR, "InversionTime": 160, "SeriesDescription": "flair"}, None),  # a STIR by its time
        ({**T2, "SeriesDescription": "STIR"}, None),
        ({**T2, "SeriesDescription": "T2*"}, None),
        ({"RepetitionTime": 600, "EchoTime": 20, "ScanningSequence": "GR", "SeriesDescription": "T2 fl2d"}, None),
        ({"RepetitionTime": 600, "EchoTime": 20, "ScanningSequence": "GR", "SeriesDescription": "T1"}, None),
        ({"RepetitionTime": 25, "EchoTime": 4, "ScanningSequence": "GR", "SeriesDescription": "head"}, None),
        ({"RepetitionTime": 8, "EchoTime": 3.7, "ScanningSequence": "GR", "SeriesDescription": "sT1W_3D_TFE"}, "t1"),
        ({**T2, "SeriesDescription": "Ax T1"}, None),  # its name contradicts its times
        ({"SeriesDescription": "AxT2"}, "t2"),
        ({"SeriesDescription": "head"}, None),
        ({"SeriesDescription": "PD+T2"}, None),
        ({"AcquisitionContrast": "PROTON_DENSITY"}, "pd"),
    ],
)
def test_times_tell_the_contrast_and_the_name_may_not_contradict(values, contrast):
    guess = contrast_of(values)
    assert guess.contrast == contrast
    assert guess.reason


# The choice


def test_the_plainest_of_two_is_taken_and_the_other_told(tmp_path):
    thick, thin = oblique((0.9, 0.9, 6.0)), oblique((1.0, 1.0, 1.0))
    write_classic(tmp_path / "1", numbers(), thick, series=1)
    write_classic(tmp_path / "2", numbers(), thin, series=2)
    write_classic(tmp_path / "3", numbers(), oblique((0.5, 0.5, 0.5)), series=3, ImageType=["DERIVED", "PRIMARY"])
    write_classic(tmp_path / "4", numbers(), oblique((0.7, 0.7, 0.7)), series=4, SeriesDescription="T1 fs")
    write_classic(tmp_path / "5", numbers(), oblique((0.6, 0.6, 0.6)), series=5)[2].unlink()
    choice = choose(find_series(tmp_path).series)
    assert choice.taken["t1"].label == "2"
    reasons = {item.label: item.reason for item in choice.aside}
    assert reasons["1"].endswith("series 2 is finer")
    assert reasons["3"].endswith("series 2 is original")
    assert reasons["4"].endswith("series 2 is without fat suppression")
    assert "E_DICOM_GAP" in reasons["5"]


def test_a_derived_series_that_is_whole_goes_before_an_original_that_is_not(tmp_path):
    write_classic(tmp_path / "1", numbers(), oblique(), series=1)[2].unlink()
    write_classic(tmp_path / "2", numbers(), oblique(), series=2, ImageType=["DERIVED", "PRIMARY"])
    assert choose(find_series(tmp_path).series).taken["t1"].label == "2"


def test_a_faulty_series_is_taken_where_there_is_no_other_so_that_its_fault_is_heard(tmp_path):
    write_classic(tmp_path, numbers(), oblique())[2].unlink()
    with pytest.raises(VolumeError, match="E_DICOM_GAP"):
        read(choose(find_series(tmp_path).series).taken["t1"])


@pytest.mark.parametrize("name", ["2", "EP2D_diff_adc", "1.2.3.4.2"], ids=["number", "description", "UID"])
def test_a_series_is_named_by_number_description_or_uid_even_if_left_aside(study, name):
    choice = choose(named(study, parse_assignments([f"T1={name}"])))
    assert choice.taken["t1"].label == "2"
    assert ("3", "looks like a t1; the user named another") in choice.aside


def test_an_echo_is_named_by_its_label(study):
    assert choose(named(study, {"t2": "7.2"})).taken["t2"].label == "7.2"


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["T1=none"], "fits no series; there are 1.1,"),
        (["T2=7"], "fits series 7.1, 7.2"),
        (["T1=5", "T2=5"], "gives series 5 to t1 and t2"),
        (["T1=5", "t1=3"], "names t1 twice"),
        (["T1"], "write T1="),
        (["T3=5"], "unknown contrast 't3'"),
    ],
)
def test_a_name_that_does_not_fit_one_series_is_one_clear_error(study, texts, message):
    with pytest.raises(ValueError, match=message):
        named(study, parse_assignments(texts))


def test_patients_and_studies_are_kept_apart(tmp_path):
    studies = [
        ("4711", "1.1", "20210101"),
        ("4711", "1.2", "20200101"),
        ("0815", "1.3", "20200101"),
        ("", "1.4", ""),
        ("", "1.5", ""),
    ]
    for patient, study, date in studies:
        tags = {"PatientID": patient, "StudyInstanceUID": study, "StudyDate": date}
        write_classic(tmp_path / study, numbers(), oblique(), **tags)
    grouped = by_study(find_series(tmp_path).series)
    assert all(len(group) == 1 for group in grouped.values())
    keys = {group[0].identity["StudyInstanceUID"]: key for key, group in grouped.items()}
    assert len({keys[study][0] for _, study, _ in studies}) == 4
    assert keys["1.1"][0] == keys["1.2"][0]
    assert (keys["1.2"][1], keys["1.1"][1]) == ("study-1", "study-2")  # by date
    with pytest.raises(ValueError, match="several studies"):
        choose(find_series(tmp_path).series)


# Privacy


def test_nothing_but_identity_and_description_tells_who_it_is(tmp_path):
    folder = tmp_path / PATIENT / "1"
    secret = {"SeriesDescription": f"T1 {PATIENT} ax", "ProtocolName": PATIENT, "ContrastBolusAgent": PATIENT}
    secret |= {"ManufacturerModelName": f"{PATIENT} äöü", "Manufacturer": PATIENT, "SequenceVariant": ["SK", "DOE"]}
    write_classic(folder, numbers(), oblique(), **secret)[2].unlink()
    (series,) = find_series(tmp_path).series
    assert series.identity["PatientName"] == PATIENT
    assert series.tags["words"] == ["t1", "ax"]
    assert series.tags["sequence_variant"] == ["SK"]
    assert (series.tags["echo_time_ms"], series.tags["contrast_agent"]) == (10.0, True)
    for text in (repr(series), str(series.tags), str(series.fault), series.guess_reason, str(choose([series]).aside)):
        for secret_text in ("Doe", "DOE", "Jane", "4711", "2020", os.fspath(tmp_path)):
            assert secret_text not in text
