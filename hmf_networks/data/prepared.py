"""Records of a dataset that `hmf prepare` made, each contrast on the grid that it was acquired on.

A record then names the scans on their own grids; "grid" is the contrast on whose grid all are to be read, and
"transforms" the files that tell how they lie to each other, contrast -> path (`preparation/itk_transform.py`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hmf_networks.naming import CONTRASTS, Record, check_contrasts, space_of, subject_name, usable_sources

SPACES = ("native",)
OWN_GRID = Path("derivatives", "own_grid")


def way_name(contrast: str, reference: str) -> str:
    """How a transform is called behind the name of the subject: from points of the reference to the contrast's."""
    return f"from-{space_of(contrast)}_to-{space_of(reference)}_mode-image_xfm.txt"


def in_native_space(
    records: Sequence[Record], sources: Sequence[str], given: Sequence[str] | None, grid_of: str | None
) -> list[Record]:
    """The records, on the grid of `grid_of` as acquired; None: of the first source that is used.

    Raises:
        ValueError: a scan that was not prepared, or a subject without that source.
    """
    check_contrasts([] if grid_of is None else [grid_of])
    return [_native(record, usable_sources(record, sources, given), grid_of) for record in records]


def _native(record: Record, used: Sequence[str], grid_of: str | None) -> Record:
    subject = subject_name(record)
    if not used or (grid_of is not None and grid_of not in used):
        raise ValueError(f"subject {subject} has no {grid_of or 'source'} to give the grid; it has {', '.join(used)}")
    native: dict[str, Any] = {**record, "grid": grid_of or used[0], "transforms": {}}
    for contrast in [name for name in CONTRASTS if name in record]:
        path = Path(record[contrast])
        root = next((folder.parent for folder in path.parents if folder.name.startswith("sub-")), path.parent)
        own = root / OWN_GRID / path.relative_to(root)
        if not own.is_file():
            raise ValueError(f"{path.name} of subject {subject} is not of hmf prepare: its own grid is not known")
        native[contrast] = str(own)
        ways = [way for other in CONTRASTS for way in path.parent.glob(f"*_{way_name(contrast, other)}")]
        if ways:
            native["transforms"][contrast] = str(ways[0])
    return native
