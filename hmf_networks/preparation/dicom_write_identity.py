"""Whose a derived series is: patient, study and frame of reference, as they are or under a pseudonym."""

import hashlib
import re
import uuid
from typing import Any

from hmf_networks.preparation.dicom_write_source import PATIENT, PLACE, STUDY, SourceSeries

CHARACTERS = {"SpecificCharacterSet": "ISO_IR 192"}  # UTF-8, whatever the sources are in
POSITIONS = ("HFP", "HFS", "HFDR", "HFDL", "FFDR", "FFDL", "FFP", "FFS")
BODY_PARTS = ("BRAIN", "HEAD", "SKULL", "HEADNECK", "NECK")
MUST_BE_THERE = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("AccessionNumber", "StudyID", "ReferringPhysicianName", "PositionReferenceIndicator"),
)


def copied_identity(source: SourceSeries) -> dict[str, Any]:
    """All that is known, in Unicode; tags of DICOM's type 2 are empty where it is not."""
    known = {key: source.copied[key] for key in (*PATIENT, *STUDY, *PLACE) if key in source.copied}
    if known.get("PatientIdentityRemoved") == "YES":
        known["DeidentificationMethod"] = "that of the source series"  # theirs is free text
    return CHARACTERS | dict.fromkeys(MUST_BE_THERE, "") | known | _body(source)


def pseudonymous_identity(source: SourceSeries, pseudonym: str | None) -> dict[str, Any]:
    """Nothing of the source, but that it is of a head, and which way up the patient lay.

    UIDs of study and frame of reference are hashed with the pseudonym, so that series of a study stay together
    under it. Who knows the study's UID can hash it too, and find that this is it. Without a pseudonym one is made
    of the study: then each study is a patient of its own.
    """
    study, place = str(source.copied["StudyInstanceUID"]), str(source.copied["FrameOfReferenceUID"])
    name = f"anonymous-{hashlib.sha256(study.encode()).hexdigest()[:12]}" if pseudonym is None else pseudonym
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
        raise ValueError(f"pseudonym {name!r} is no plain word; use up to 64 letters, digits, '-', '_' and '.'")
    told = {
        "PatientName": name,
        "PatientID": name,
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "hmf_networks: nothing copied, no dates, UIDs new or hashed",
        "StudyInstanceUID": _hashed_uid(name, study),
        "FrameOfReferenceUID": _hashed_uid(name, place),
    }
    return CHARACTERS | dict.fromkeys(MUST_BE_THERE, "") | told | _body(source)


def _body(source: SourceSeries) -> dict[str, Any]:
    """Words of DICOM's lists, or nothing: anything else may be a note."""
    position, part = source.copied.get("PatientPosition"), source.copied.get("BodyPartExamined")
    side = {"BodyPartExamined": part} if part in BODY_PARTS else {"Laterality": ""}  # may not be both, nor neither
    return {"PatientPosition": position if position in POSITIONS else ""} | side


def _hashed_uid(key: str, uid: str) -> str:
    digest = hashlib.sha256(f"{key}\n{uid}".encode()).digest()
    return f"2.25.{uuid.UUID(bytes=digest[:16], version=5).int}"
