"""Folders of label maps, one file a head, and how they are shared out."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from hmf_networks.data.datalist import PART_NAMES, Parts
from hmf_networks.data.records import nifti_stem
from hmf_networks.naming import Record


def find_label_maps(root: str | Path) -> list[Record]:
    """{"patient", "session", "labels"} of every NIfTI file in the folder, sorted by name; or of one file.

    Raises:
        FileNotFoundError, ValueError: there is nothing, or no NIfTI file in it.
    """
    root = Path(str(root)).expanduser()
    if not root.exists():
        raise FileNotFoundError(f"label maps {root}: no such folder or file (docs/data.md tells where to get some)")
    paths = sorted(root.iterdir()) if root.is_dir() else [root]
    paths = [path for path in paths if nifti_stem(path) and path.is_file()]
    if not paths:
        raise ValueError(f"label maps {root}: no NIfTI file there; give the folder of the label maps")
    return [{"patient": str(nifti_stem(path)), "session": "", "labels": str(path)} for path in paths]


def label_maps_of(roots: Iterable[str | Path]) -> list[Record]:
    """Those of several folders and files, in the order they are given."""
    return [record for root in roots for record in find_label_maps(root)]


def split_label_maps(root: str | Path, counts: Sequence[int]) -> Parts:
    """The first for training, then those for validation and testing, in the order of their names.

    Raises:
        ValueError: there are fewer than the sum of `counts`.
    """
    records = find_label_maps(root)
    if len(counts) != len(PART_NAMES) or len(records) < sum(counts):
        raise ValueError(
            f"labels_dir {root} holds {len(records)} label maps, maps#counts wants {list(counts)} for "
            f"{', '.join(PART_NAMES)}; give more maps, or smaller counts"
        )
    parts: Parts = {}
    for part, count in zip(PART_NAMES, counts, strict=True):
        parts[part], records = records[:count], records[count:]
    return parts
