"""IXI names: `IXI002-Guys-0828-T1.nii.gz`, flat or in the folders IXI-T1, IXI-T2, IXI-PD."""

import re
from collections.abc import Iterator
from pathlib import Path

from hmf_networks.data.records import Sighting, files_below, gather, nifti_stem
from hmf_networks.naming import Record

EXAMPLE = "IXI002-Guys-0828-T1.nii.gz"
NAME = re.compile(r"(?P<patient>IXI\d+)-[^-]+-\d+-(?P<contrast>T1|T2|PD)", re.IGNORECASE)


def find(root: Path, *, leave_out: re.Pattern[str] | None = None) -> list[Record]:
    """All subjects below `root`, whatever contrasts they have; `leave_out`: folders of `root`, by name."""
    return gather(_sightings(root, leave_out), "ixi")


def _sightings(root: Path, leave_out: re.Pattern[str] | None) -> Iterator[Sighting]:
    for path in files_below(root, leave_out=leave_out):
        match = NAME.fullmatch(nifti_stem(path) or "")
        if match:
            yield Sighting(match["patient"].upper(), "", match["contrast"].lower(), path)
