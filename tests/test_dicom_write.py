"""Derived DICOM series: where and what they show, what they refer to, and what of the patient they keep."""

import shutil
import subprocess
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from dicom_template import (
    BIRTH,
    FRAME,
    MARKER,
    ROOT,
    SERIES,
    SHAPE,
    SPACING_MM,
    STUDY,
    grid,
    plant,
    write_classic,
    write_enhanced,
)
from hmf_networks import __version__
from hmf_networks.preparation import dicom_write, whole_folder
from hmf_networks.preparation.dicom_write import write_series
from hmf_networks.preparation.scan import LPS, Scan, from_itk

pydicom = pytest.importorskip("pydicom")
PLANES = ("axial", "sagittal", "oblique")
TEMPLATES = {"classic": write_classic, "enhanced": write_enhanced}
WEIGHTS = "0123456789abcdef" * 4
LOSSY = {"LossyImageCompression": "01", "LossyImageCompressionRatio": "8", "LossyImageCompressionMethod": "ISO_15444_1"}
AS_SOURCE = "121322"


def scan_on(affine, shape=SHAPE) -> Scan:
    """Every voxel another value, from 0 to 1000."""
    values = np.random.default_rng(5).permutation(np.linspace(0, 1000, np.prod(shape), dtype=np.float32))
    return Scan(values.reshape(shape), affine)


def synthesize(folder: Path, template, *, plane="axial", scan=None, **options):
    """The data sets of a synthetic T2 on the template's grid, as they lie in `folder`."""
    options = {"contrast": "t2", "sources": {"t1": template}, "weights_sha256": WEIGHTS} | options
    paths = write_series(scan_on(grid(plane)) if scan is None else scan, folder, template_files=template, **options)
    assert paths == sorted(folder.iterdir())
    return [pydicom.dcmread(path) for path in paths]


@pytest.fixture
def template(tmp_path):
    return write_classic(tmp_path / "t1", grid("axial"))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out" / "t2"


def affine_of(slices) -> np.ndarray:
    """From voxels to mm, RAS+, of data sets in order."""
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    down_mm, along_mm = first.PixelSpacing
    affine[:3, 0] = np.array(first.ImageOrientationPatient[:3]) * along_mm
    affine[:3, 1] = np.array(first.ImageOrientationPatient[3:]) * down_mm
    affine[:3, 2] = (np.array(last.ImagePositionPatient) - first.ImagePositionPatient) / (len(slices) - 1)
    affine[:3, 3] = first.ImagePositionPatient
    return LPS @ affine


def volume_of(slices) -> np.ndarray:
    return np.stack([image.pixel_array.T.astype(float) for image in slices], axis=-1)


# where and what


@pytest.mark.parametrize("plane", PLANES)
def test_pydicom_reads_the_same_grid_and_values(tmp_path, out, plane):
    scan = scan_on(grid(plane))
    slices = synthesize(out, write_classic(tmp_path / "t1", grid(plane)), scan=scan)
    assert np.abs(affine_of(slices) - scan.affine).max() < 1e-6
    assert np.abs(volume_of(slices) - scan.values).max() <= 1 / 2
    assert [image.InstanceNumber for image in slices] == [1, 2, 3, 4]


@pytest.mark.slow  # ITK takes seconds to load
@pytest.mark.parametrize("plane", PLANES)
def test_itk_reads_the_same_grid_and_values(tmp_path, out, plane):
    itk = pytest.importorskip("itk")
    scan = scan_on(grid(plane))
    synthesize(out, write_classic(tmp_path / "t1", grid(plane)), scan=scan)
    names = itk.GDCMSeriesFileNames.New(Directory=str(out))
    (series,) = names.GetSeriesUIDs()
    reader = itk.ImageSeriesReader[itk.Image[itk.F, 3]].New(
        FileNames=names.GetFileNames(series), ImageIO=itk.GDCMImageIO.New()
    )
    reader.Update()
    read = from_itk(reader.GetOutput())
    assert np.abs(read.affine - scan.affine).max() < 1e-6
    assert np.abs(read.values - scan.values).max() <= 1 / 2


def test_a_volume_with_axes_exchanged_and_turned_is_cut_like_the_template(tmp_path, out):
    template = write_classic(tmp_path / "t1", grid("oblique"))
    scan = scan_on(grid("oblique"))
    turn = np.array([[0, 0, -1, SHAPE[0] - 1], [1, 0, 0, 0], [0, -1, 0, SHAPE[2] - 1], [0, 0, 0, 1.0]])  # to old voxels
    turned = Scan(scan.values[::-1, :, ::-1].transpose(1, 2, 0), scan.affine @ turn)
    slices = synthesize(out, template, scan=turned)
    assert np.abs(affine_of(slices) - scan.affine).max() < 1e-6
    assert np.abs(volume_of(slices) - scan.values).max() <= 1 / 2


def test_slices_keep_the_thickness_of_the_sources_and_touch_on_another_grid(template, tmp_path):
    same = synthesize(tmp_path / "same", template)
    other = synthesize(tmp_path / "other", template, plane="sagittal")
    assert (same[0].SliceThickness, same[0].SpacingBetweenSlices) == (2.5, 3.0)
    assert other[0].SliceThickness == other[0].SpacingBetweenSlices == pytest.approx(SPACING_MM[1])


def test_values_beyond_12_bits_take_16(template, out):
    values = np.zeros(SHAPE, np.float32)
    values[2, 3, 1] = 65535
    slices = synthesize(out, template, scan=Scan(values, grid("axial")))
    assert (slices[0].BitsStored, slices[0].HighBit) == (16, 15)
    assert volume_of(slices)[2, 3, 1] == 65535


def test_the_window_shows_what_is_there(template, out):
    image = synthesize(out, template)[0]
    black, white = image.WindowCenter - image.WindowWidth / 2, image.WindowCenter + image.WindowWidth / 2
    assert black == 0
    assert 0.97 * 1000 < white <= 1000


# what it is


def test_it_says_that_it_is_synthetic_and_by_what(template, out):
    image = synthesize(out, template, sources={"t1": template, "flair": template})[0]
    (equipment,) = image.ContributingEquipmentSequence
    assert image.SOPClassUID == pydicom.uid.MRImageStorage
    assert list(image.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
    assert image.SeriesDescription == "synthetic T2, not for diagnosis"
    assert image.DerivationDescription.startswith("T2 computed from T1, FLAIR by hmf_networks")
    assert list(equipment.SoftwareVersions) == [WEIGHTS, f"hmf_networks {__version__}"]
    assert (equipment.Manufacturer, image.Manufacturer) == ("hmf_networks", "hmf_networks")
    assert (image.BurnedInAnnotation, image.LossyImageCompression) == ("NO", "00")
    assert "RescaleSlope" not in image  # the MR Image IOD has none


def test_file_meta_is_that_of_the_data_set(template, out):
    for image in synthesize(out, template):
        pydicom.dataset.validate_file_meta(image.file_meta, enforce_standard=True)
        assert image.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
        assert image.file_meta.MediaStorageSOPInstanceUID == image.SOPInstanceUID
        assert image.file_meta.MediaStorageSOPClassUID == image.SOPClassUID


def test_what_a_lossy_or_written_on_source_was_is_said(tmp_path, out):
    image = synthesize(out, write_classic(tmp_path / "t1", grid("axial"), BurnedInAnnotation="YES", **LOSSY))[0]
    assert {keyword: image.get(keyword) for keyword in LOSSY} == LOSSY
    assert image.BurnedInAnnotation == "YES"


needs_validator = pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy, Debian's dicom3tools")
UNKNOWN = {"StudyID", "Laterality"}  # empty: these templates have no study ID, and no part of the body
REMOVED = {"StudyDate", "StudyTime", "PatientName"}  # empty, and a pseudonym has no family and given name


@needs_validator
@pytest.mark.parametrize(
    ("options", "warned_of"),
    [({}, UNKNOWN), ({"plane": "oblique"}, UNKNOWN), ({"anonymous": True}, UNKNOWN | REMOVED)],
    ids=["same grid", "other grid", "anonymous"],
)
@pytest.mark.parametrize("kind", TEMPLATES)
def test_the_validator_finds_no_error_and_warns_only_of_what_is_not_told(tmp_path, out, kind, options, warned_of):
    synthesize(out, TEMPLATES[kind](tmp_path / "t1", grid("axial")), **options)
    assert validator_says(out) == warned_of


@needs_validator
@pytest.mark.parametrize("changed", [{}, LOSSY, {"PatientIdentityRemoved": "YES"}], ids=["plain", "lossy", "removed"])
def test_of_sources_that_tell_all_the_validator_has_nothing_to_say(tmp_path, out, changed):
    synthesize(out, write_classic(tmp_path / "t1", grid("axial"), StudyID="1", BodyPartExamined="BRAIN", **changed))
    assert validator_says(out) == set()


def validator_says(folder: Path) -> set[str]:
    """Tags that dciodvfy warns of; it has no errors."""
    told = [
        line
        for path in sorted(folder.iterdir())[::3]  # the first and the last
        for line in subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True).stderr.splitlines()
    ]
    assert "MRImage" in told
    assert [line for line in told if line.startswith("Error")] == []
    return {line.split("</")[1].split("(")[0] for line in told if line.startswith("Warning")}


# what it refers to


def test_series_and_instances_are_new_and_study_and_frame_are_not(template, tmp_path):
    first, second = (synthesize(tmp_path / name, template) for name in "ab")
    images = first + second
    assert len({image.SOPInstanceUID for image in images}) == len(images)
    assert len({image.SeriesInstanceUID for image in images}) == 2
    assert all(
        image[tag].value.startswith("2.25.") for image in images for tag in ("SOPInstanceUID", "SeriesInstanceUID")
    )
    assert {(image.StudyInstanceUID, image.FrameOfReferenceUID) for image in images} == {(STUDY, FRAME)}


def test_each_slice_refers_to_the_source_slice_at_its_place(template, tmp_path, out):
    flair = write_classic(tmp_path / "flair", grid("axial"), SeriesInstanceUID=f"{ROOT}.1.2")
    for index, image in enumerate(synthesize(out, template, sources={"t1": template, "flair": flair})):
        names = [item.ReferencedSOPInstanceUID for item in image.SourceImageSequence]
        purposes = {item.PurposeOfReferenceCodeSequence[0].CodeValue for item in image.SourceImageSequence}
        listed = {
            series.SeriesInstanceUID: [item.ReferencedSOPInstanceUID for item in series.ReferencedInstanceSequence]
            for series in image.ReferencedSeriesSequence
        }
        assert names == [f"{SERIES}.{index + 1}", f"{ROOT}.1.2.{index + 1}"]
        assert purposes == {AS_SOURCE}
        assert listed == {SERIES: names[:1], f"{ROOT}.1.2": names[1:]}


def test_of_an_enhanced_source_a_slice_refers_to_its_frame(tmp_path, out):
    slices = synthesize(out, write_enhanced(tmp_path / "t1", grid("oblique")), plane="oblique")
    items = [item for image in slices for item in image.SourceImageSequence]
    assert [item.ReferencedFrameNumber for item in items] == [4, 3, 2, 1]
    assert {item.ReferencedSOPInstanceUID for item in items} == {f"{SERIES}.1"}
    assert {image.SOPClassUID for image in slices} == {pydicom.uid.MRImageStorage}
    assert np.abs(affine_of(slices) - grid("oblique")).max() < 1e-6


def test_on_another_grid_a_slice_refers_to_whole_series_only(template, out):
    for image in synthesize(out, template, plane="oblique"):
        (series,) = image.ReferencedSeriesSequence
        assert "SourceImageSequence" not in image
        assert len(series.ReferencedInstanceSequence) == len(image.ReferencedImageSequence) == SHAPE[2]
        assert image.FrameOfReferenceUID == FRAME


def test_places_in_another_frame_of_reference_are_not_compared(template, tmp_path, out):
    moved = write_classic(
        tmp_path / "flair", grid("axial"), SeriesInstanceUID=f"{ROOT}.1.2", FrameOfReferenceUID=f"{ROOT}.8"
    )
    for image in synthesize(out, template, sources={"t1": template, "flair": moved}):
        assert len(image.SourceImageSequence) == 1
        assert len(image.ReferencedImageSequence) == SHAPE[2]


def test_a_source_of_another_study_is_listed_under_it(template, tmp_path, out):
    prior = write_classic(
        tmp_path / "prior", grid("axial"), SeriesInstanceUID=f"{ROOT}.2.1", StudyInstanceUID=f"{ROOT}.2"
    )
    image = synthesize(out, template, sources={"t1": template, "flair": prior})[0]
    (other,) = image.StudiesContainingOtherReferencedInstancesSequence
    assert [series.SeriesInstanceUID for series in image.ReferencedSeriesSequence] == [SERIES]
    assert other.StudyInstanceUID == f"{ROOT}.2"
    assert [series.SeriesInstanceUID for series in other.ReferencedSeriesSequence] == [f"{ROOT}.2.1"]


# what it keeps of the patient


TEXTS_THAT_MAY_COME_ALONG = {
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientSex", "PatientAge", "PatientIdentityRemoved"),
    *("AccessionNumber", "StudyID", "StudyDescription", "PositionReferenceIndicator"),
}


@pytest.fixture(scope="module", params=TEMPLATES)
def planted_template(request, tmp_path_factory):
    """Markers in all tags that hold text, and what text is in which."""
    paths = TEMPLATES[request.param](tmp_path_factory.mktemp("planted") / "t1", grid("axial"))
    texts = [plant(path) for path in paths]
    return paths, texts[0]


def test_of_planted_texts_only_those_on_the_list_are_copied(planted_template, out):
    paths, texts = planted_template
    assert len(texts) > 500
    for image in synthesize(out, paths):
        planted = {element.keyword for element in image.iterall() if str(element.value) in texts.values()}
        assert planted == TEXTS_THAT_MAY_COME_ALONG
        assert all(str(image[keyword].value) == texts[keyword] for keyword in planted)
        assert {element.keyword for element in image.iterall() if MARKER in str(element.value)} <= planted
        assert not any(element.tag.is_private for element in image.iterall())


@pytest.mark.parametrize("options", [{"anonymous": True}, {"pseudonym": "P-07"}], ids=["anonymous", "pseudonym"])
def test_nothing_of_the_patient_is_in_an_anonymous_file(planted_template, out, options):
    paths, texts = planted_template
    secrets = [MARKER, ROOT, BIRTH, texts["PatientAge"]]
    assert all(secret.encode() in path.read_bytes() for secret in secrets for path in paths)
    synthesize(out, paths, **options)
    for path in out.iterdir():
        content = path.read_bytes()
        assert [secret for secret in secrets if secret.encode() in content] == []


def test_no_date_is_in_an_anonymous_file(template, out):
    for image in synthesize(out, template, anonymous=True):
        assert [element for element in image.iterall() if element.VR in ("DA", "TM", "DT") and element.value] == []


def test_series_of_a_study_stay_together_under_one_pseudonym_and_part_under_two(template, tmp_path):
    flair = write_classic(tmp_path / "flair", grid("axial"), SeriesInstanceUID=f"{ROOT}.1.2")
    one = synthesize(tmp_path / "one", template, pseudonym="P-07")[0]
    same = synthesize(tmp_path / "same", flair, pseudonym="P-07")[0]
    other = synthesize(tmp_path / "other", template, pseudonym="P-08")[0]
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID"):
        assert one[keyword].value == same[keyword].value != other[keyword].value
    assert one.StudyInstanceUID != one.FrameOfReferenceUID
    assert one.PatientID == one.PatientName == "P-07"
    assert one.PatientIdentityRemoved == "YES"


def test_without_a_pseudonym_each_study_is_a_patient(template, tmp_path):
    later = write_classic(tmp_path / "later", grid("axial"), StudyInstanceUID=f"{ROOT}.2")
    one, again, other = (
        synthesize(tmp_path / name, files, anonymous=True)[0]
        for name, files in {"one": template, "again": template, "other": later}.items()
    )
    assert one.PatientID == again.PatientID != other.PatientID


def test_a_name_is_copied_whatever_its_alphabet(template, tmp_path, out):
    greek = write_classic(tmp_path / "greek", grid("axial"), SpecificCharacterSet="ISO_IR 126", PatientName="Διονυσιος")
    assert synthesize(out, template)[0].PatientName == "Müller^Änne"
    assert synthesize(tmp_path / "b", greek)[0].PatientName == "Διονυσιος"


# all or nothing


def interrupted(path, content, *, write_whole=dicom_write.write_whole):
    if "0003" in path.name:
        raise KeyboardInterrupt
    write_whole(path, content)


def test_an_interrupted_series_leaves_nothing(template, out, monkeypatch):
    monkeypatch.setattr(dicom_write, "write_whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synthesize(out, template)
    assert list(out.parent.iterdir()) == []


def test_an_interrupted_series_leaves_the_older_one(template, out, monkeypatch):
    synthesize(out, template)
    before = {path: path.read_bytes() for path in out.iterdir()}
    monkeypatch.setattr(dicom_write, "write_whole", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synthesize(out, template, overwrite=True)
    assert {path: path.read_bytes() for path in out.parent.rglob("*") if path.is_file()} == before


def test_the_older_series_returns_if_the_new_one_cannot_take_its_place(template, out, monkeypatch):
    synthesize(out, template)
    before = sorted(out.parent.rglob("*"))
    rename = Path.rename

    def stubborn(path, target):
        if path.suffix == ".part":
            raise OSError("no")
        return rename(path, target)

    monkeypatch.setattr(whole_folder.Path, "rename", stubborn)
    with pytest.raises(OSError, match="no"):
        synthesize(out, template, overwrite=True)
    assert sorted(out.parent.rglob("*")) == before


def test_a_series_is_overwritten_only_when_told_to_and_then_whole(template, out):
    old = synthesize(out, template)[0].SeriesInstanceUID
    with pytest.raises(ValueError, match=r"there already.*overwrite=True"):
        synthesize(out, template)
    assert {pydicom.dcmread(path).SeriesInstanceUID for path in out.iterdir()} == {old}
    fewer = scan_on(grid("axial"), (*SHAPE[:2], 2))
    new = {image.SeriesInstanceUID for image in synthesize(out, template, scan=fewer, overwrite=True)}
    assert len(new) == 1
    assert old not in new
    assert list(out.parent.iterdir()) == [out]


def test_a_folder_with_anything_else_in_it_is_not_overwritten(template, out):
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"thesis\.txt"):
        synthesize(out, template, overwrite=True)
    assert (out / "thesis.txt").exists()


# refused, and why


def sheared():
    affine = grid("axial")
    affine[0, 1] += 0.05
    return scan_on(affine)


def with_value(value):
    scan = scan_on(grid("axial"))
    scan.values[1, 2, 3] = value
    return scan


@pytest.mark.parametrize(
    ("scan", "message"),
    [
        (sheared, "sheared"),
        (partial(with_value, np.nan), "not finite"),
        (partial(with_value, np.inf), "not finite"),
        (partial(with_value, -3), "from -3 to 1000; scale"),
        (partial(with_value, 70000), "scale"),
        (lambda: scan_on(grid("axial") * 0), "no directions"),
        (lambda: Scan(np.zeros((3, 4), np.float32), np.eye(4)), "three axes"),
    ],
    ids=["sheared", "nan", "inf", "negative", "high", "no affine", "flat"],
)
def test_a_volume_that_no_series_can_hold_is_refused(template, out, scan, message):
    with pytest.raises(ValueError, match=message):
        synthesize(out, template, scan=scan())
    assert not out.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"Modality": "CT"}, "no MR image"),
        ({"StudyInstanceUID": ""}, "has no StudyInstanceUID"),
        ({"FrameOfReferenceUID": ""}, "has no FrameOfReferenceUID"),
        ({"ImageOrientationPatient": None}, "no position or orientation"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_template_that_cannot_serve_is_refused_by_name(tmp_path, out, changed, message):
    template = write_classic(tmp_path / "bad", grid("axial"), **changed)
    with pytest.raises(ValueError, match=rf"0\.dcm .*{message}"):
        synthesize(out, template)


def test_an_image_of_another_kind_is_refused(template, out):
    image = pydicom.dcmread(template[2])
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    image.save_as(template[2])
    with pytest.raises(ValueError, match=r"2\.dcm is CT Image Storage, no MR image"):
        synthesize(out, template)


def test_files_that_do_not_belong_together_are_refused(template, tmp_path, out):
    second = write_classic(tmp_path / "second", grid("axial"), SeriesInstanceUID=f"{ROOT}.1.2")
    stranger = write_classic(tmp_path / "stranger", grid("axial"), SeriesInstanceUID=f"{ROOT}.3.1", PatientID="4712")
    with pytest.raises(ValueError, match="another series"):
        synthesize(out, [*template, *second])
    with pytest.raises(ValueError, match=r"stranger.* of another patient"):
        synthesize(out, template, sources={"t1": template, "flair": stranger})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"contrast": "t3"}, "unknown contrast 't3'"),
        ({"sources": {}}, "sources is empty"),
        ({"sources": {"t1": []}}, "no files"),
        ({"weights_sha256": "unknown"}, "no SHA-256"),
        ({"description": "x" * 65}, "at most 64"),
        ({"description": "two\\values"}, "no backslash"),
        ({"pseudonym": "Doe^John"}, "no plain word"),
        ({"pseudonym": ""}, "no plain word"),
    ],
    ids=str,
)
def test_an_option_that_makes_no_sense_is_refused(template, out, options, message):
    with pytest.raises(ValueError, match=message):
        synthesize(out, template, **options)
    assert not out.exists()


def test_a_file_that_is_no_dicom_is_named(tmp_path, out):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"notes\.txt is no DICOM file"):
        synthesize(out, [tmp_path / "notes.txt"])
