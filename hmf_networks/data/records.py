"""What the layouts share: the NIfTI files below a folder, and single files gathered into records."""

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from hmf_networks.naming import CONTRASTS, TWICE, UNLISTED, Record, subject_name

logger = logging.getLogger(__name__)

COPIES_OF_MACOS = "__MACOSX"  # in what was zipped there: a folder of stubs with the names of the files
FOLDERS_OF_THE_SYSTEM = ("lost+found", "System Volume Information")
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


def files_below(root: Path, *, leave_out: re.Pattern[str] | None = None) -> Iterator[Path]:
    """Every file at any depth, hidden folders left out; linked folders are entered, each once.

    `leave_out`: folders directly below `root` that are not entered, by their whole name.
    """
    entered = set()
    for folder, subfolders, names in os.walk(root, onerror=_warn, followlinks=True):
        real_folder = os.path.realpath(folder)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", COPIES_OF_MACOS)))
        if leave_out is not None and Path(folder) == root:
            subfolders[:] = [name for name in subfolders if not leave_out.fullmatch(name)]
        if real_folder in entered:
            subfolders.clear()
            continue
        entered.add(real_folder)
        yield from (path for name in sorted(names) if is_listed(path := Path(folder, name)))


def is_listed(path: Path) -> bool:
    """A file, or what should be one: links to nowhere and files that may not be looked at are named later."""
    try:
        return path.is_file() or not path.exists()
    except OSError:
        return True


def unlisted_folders(root: Path, *, only: re.Pattern[str] | None = None) -> list[Record]:
    """A record, without contrasts, in the place of each folder that may not be looked into.

    `only`: folders directly below `root` where scans are expected, by their whole name.
    """
    errors: list[OSError] = []
    for folder, subfolders, _ in os.walk(root, onerror=errors.append):
        subfolders[:] = sorted(name for name in subfolders if not name.startswith((".", "$")))
        if Path(folder) == root:
            subfolders[:] = [
                name
                for name in subfolders
                if name not in FOLDERS_OF_THE_SYSTEM and (only is None or only.fullmatch(name))
            ]
    folders = [(Path(error.filename), error.strerror) for error in errors if isinstance(error, PermissionError)]
    return [
        {
            "patient": "_".join(folder.relative_to(root).parts) or folder.name,
            "session": "",
            UNLISTED: f"folder {folder.name} cannot be looked into ({reason})",
        }
        for folder, reason in folders
    ]


def _warn(error: OSError) -> None:
    logger.warning("folder %s left out: %s", error.filename, error.strerror)


def gather(sightings: Iterable[Sighting], layout: str) -> list[Record]:
    """One record for each patient and session, sorted; "twice" tells of a contrast that was found twice."""
    records: dict[tuple[str, str], Record] = {}
    for patient, session, contrast, path in sorted(sightings):
        start = {"patient": patient, "session": session, "layout": layout}
        record = records.setdefault((patient, session), start)
        if contrast in record:
            record[TWICE] = f"{contrast} twice: {_told_apart(Path(record[contrast]), path)}"
        record[contrast] = str(path)
    return [record for _, record in sorted(records.items()) if any(name in record for name in CONTRASTS)]


def _told_apart(one: Path, other: Path) -> str:
    """Two files, without the folders that they share: messages go into reports."""
    above = os.path.commonpath([one.parent, other.parent])
    return f"{one.relative_to(above)} and {other.relative_to(above)}"


def mark_namesakes(records: Iterable[Record]) -> None:
    """What `check_distinct` raises for, written into the records: they are refused one by one."""
    by_name: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_name[subject_name(record)].append(record)
    for namesakes in by_name.values():
        for record in namesakes if len(namesakes) > 1 else ():
            record.setdefault(TWICE, "the name of another subject; give each scan a session")


def check_distinct(records: Iterable[Record]) -> None:
    """Raise ValueError when two records would share a name, and so write to the same output."""
    names = set()
    for record in records:
        name = subject_name(record)
        if name in names:
            raise ValueError(f"subject {name} is there twice; give each scan of a patient its own session")
        names.add(name)
