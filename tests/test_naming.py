"""Names: the vocabulary of contrasts, and where an output goes."""

from pathlib import Path

import pytest
from hmf_networks.naming import CONTRASTS, check_contrasts, output_path, printable, subject_name


def test_every_contrast_of_the_vocabulary_is_known():
    check_contrasts(CONTRASTS)


@pytest.mark.parametrize(("typed", "meant"), [("flare", "flair"), ("T1", "t1"), ("t1ce", "t1c"), ("T2w", "t2")])
def test_a_misspelt_contrast_is_answered_with_the_one_that_was_meant(typed, meant):
    with pytest.raises(ValueError, match=rf"^unknown contrast '{typed}'; known: .*; did you mean '{meant}'\?$"):
        check_contrasts(["t1", typed])


def test_a_contrast_like_no_other_gets_no_suggestion():
    with pytest.raises(ValueError, match=r"unknown contrast 'bold'; known: t1, t1c, t2, flair, pd$"):
        check_contrasts(["bold"])


def test_text_in_place_of_a_list_is_refused_before_it_is_spelt_out_letter_by_letter():
    with pytest.raises(ValueError, match=r"write \['t1'\]"):
        check_contrasts("t1")


@pytest.mark.parametrize(
    ("record", "target", "path"),
    [
        ({"patient": "001", "session": ""}, "t2", "001/001_t2_synth.nii.gz"),
        ({"patient": "001"}, "pd", "001/001_pd_synth.nii.gz"),
        (
            {"patient": "BraTS-GLI-00001", "session": "000", "layout": "brats"},
            "flair",
            "BraTS-GLI-00001_000/BraTS-GLI-00001_000_flair_synth.nii.gz",
        ),
        ({"patient": "01", "session": "", "layout": "bids"}, "t2", "sub-01/anat/sub-01_desc-synth_T2w.nii.gz"),
        (
            {"patient": "01", "session": "1", "layout": "bids"},
            "t1c",
            "sub-01/ses-1/anat/sub-01_ses-1_ce-gadolinium_desc-synth_T1w.nii.gz",
        ),
    ],
)
def test_an_output_is_named_after_subject_and_target(record, target, path):
    assert output_path(record, target) == Path(path)


def test_sessions_and_targets_never_share_an_output():
    records = [
        {"patient": "01", "session": session, "layout": layout}
        for session in ("", "1", "2")
        for layout in ("bids", "brats")
    ]
    paths = {output_path(record, target) for record in records for target in CONTRASTS}
    assert len(paths) == len(records) * len(CONTRASTS)


@pytest.mark.parametrize("patient", ["../x", "a/b", "a\\b", "", "."])
def test_a_patient_name_cannot_lead_out_of_the_output_folder(patient):
    with pytest.raises(ValueError, match="is no file name"):
        subject_name({"patient": patient, "session": ""})


def test_an_unknown_target_has_no_output():
    with pytest.raises(ValueError, match="did you mean 't2'"):
        output_path({"patient": "001"}, "t2w")


def test_a_name_on_the_screen_keeps_its_letters_and_stays_in_one_line():
    assert printable("Ünï 脑-1.nii") == "Ünï 脑-1.nii"
    assert printable("a\nb\x1b[31m\udce9") == "a\\nb\\x1b[31m\\udce9"
