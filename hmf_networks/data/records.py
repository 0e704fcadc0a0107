"""What the layouts share: the NIfTI files below a folder, and single files gathered into records."""

import logging
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from hmf_networks.naming import CONTRASTS, TWICE, Record, subject_name

logger = logging.getLogger(__name__)

NIFTI = re.compile(r"(?P<stem>.+)\.(nii|hdr)(\.gz)?", re.IGNORECASE | re.DOTALL)  # .img belongs to its .hdr


class Sighting(NamedTuple):
    """One file that a layout recognised; `contrast` may also be "label"."""

    patient: str
    session: str
    contrast: str
    path: Path


def nifti_stem(path: Path) -> str | None:
    """The name without .nii, .hdr, .gz; None for other files and hidden ones: macOS leaves '._x.nii.gz'."""
    match = NIFTI.fullmatch(path.name)
    return match["stem"] if match and not path.name.startswith(".") else None


def files_below(root: Path) -> Iterator[Path]:
    """Every file at any depth, hidden folders left out; linked folders are entered, each once."""
    entered = set()
    for folder, subfolders, names in os.walk(root, onerror=_warn, followlinks=True):
        real_folder = os.path.realpath(folder)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        if real_folder in entered:
            subfolders.clear()
            continue
        entered.add(real_folder)
        yield from (path for name in sorted(names) if (path := Path(folder, name)).is_file())


def _warn(error: OSError) -> None:
    logger.warning("folder %s left out: %s", error.filename, error.strerror)


def gather(sightings: Iterable[Sighting], layout: str) -> list[Record]:
    """One record for each patient and session, sorted; "twice" tells of a contrast that was found twice."""
    records: dict[tuple[str, str], Record] = {}
    for patient, session, contrast, path in sorted(sightings):
        start = {"patient": patient, "session": session, "layout": layout}
        record = records.setdefault((patient, session), start)
        if contrast in record:
            record[TWICE] = f"{contrast} twice: {record[contrast]} and {path}"
        record[contrast] = str(path)
    return [record for _, record in sorted(records.items()) if any(name in record for name in CONTRASTS)]


def check_distinct(records: Iterable[Record]) -> None:
    """Raise ValueError when two records would share a name, and so write to the same output."""
    names = set()
    for record in records:
        name = subject_name(record)
        if name in names:
            raise ValueError(f"subject {name} is there twice; give each scan of a patient its own session")
        names.add(name)
