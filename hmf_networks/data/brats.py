"""BraTS names, old and new, and our own: `<subject>_t1.nii.gz`, in a folder for each subject, flat or deeper.

The new names end in the time point: BraTS-GLI-00001-000 is session 000 of patient BraTS-GLI-00001.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from hmf_networks.data.records import Sighting, files_below, gather, nifti_stem
from hmf_networks.naming import Record

EXAMPLE = "001/001_t1.nii.gz or BraTS-GLI-00001-000-t1n.nii.gz"
# A table of whole endings, separator included: '-t1' belongs to IXI and '_t2w' to BIDS.
ENDINGS = {
    "_t1": "t1",
    "_t1ce": "t1c",
    "_t1c": "t1c",
    "_t1gd": "t1c",
    "_t2": "t2",
    "_flair": "flair",
    "_pd": "pd",
    "_seg": "label",
    "-t1n": "t1",
    "-t1c": "t1c",
    "-t2w": "t2",
    "-t2f": "flair",
    "-seg": "label",
}
ENDING = re.compile(rf"(?P<subject>.+)(?P<ending>{'|'.join(ENDINGS)})", re.IGNORECASE | re.DOTALL)
TIME_POINT = re.compile(r"(?P<patient>BraTS-.+-\d+)-(?P<session>\d+)", re.IGNORECASE)


def find(root: Path, *, leave_out: re.Pattern[str] | None = None) -> list[Record]:
    """All subjects below `root`, whatever contrasts they have; `leave_out`: folders of `root`, by name."""
    return gather(_sightings(root, leave_out), "brats")


def _sightings(root: Path, leave_out: re.Pattern[str] | None) -> Iterator[Sighting]:
    for path in files_below(root, leave_out=leave_out):
        match = ENDING.fullmatch(nifti_stem(path) or "")
        if match and not match["subject"].startswith("sub-"):  # BIDS, given at another level than its root
            time_point = TIME_POINT.fullmatch(match["subject"])
            patient, session = time_point.group("patient", "session") if time_point else (match["subject"], "")
            yield Sighting(patient, session, ENDINGS[match["ending"].lower()], path)
