"""Folders of label maps, one file a head, and how they are shared out."""

from collections.abc import Sequence
from pathlib import Path

from hmf_networks.data.datalist import PART_NAMES, Parts
from hmf_networks.data.records import nifti_stem
from hmf_networks.naming import Record


def find_label_maps(root: str | Path) -> list[Record]:
    """{"patient", "labels"} of every NIfTI file in the folder, sorted by name.

    Raises:
        FileNotFoundError, ValueError: no such folder, or none in it.
    """
    root = Path(str(root)).expanduser()
    if not root.is_dir():
        raise FileNotFoundError(f"labels_dir {root} is no folder; give that of the label maps (docs/data.md)")
    paths = sorted(path for path in root.iterdir() if nifti_stem(path) and path.is_file())
    if not paths:
        raise ValueError(f"labels_dir {root} holds no NIfTI file; give the folder of the label maps")
    return [{"patient": str(nifti_stem(path)), "session": "", "labels": str(path)} for path in paths]


def split_label_maps(root: str | Path, counts: Sequence[int]) -> Parts:
    """The first for training, then those for validation and testing, in the order of their names.

    Raises:
        ValueError: there are fewer than the sum of `counts`.
    """
    records = find_label_maps(root)
    if len(counts) != len(PART_NAMES) or len(records) < sum(counts):
        raise ValueError(
            f"labels_dir {root} holds {len(records)} label maps; {list(counts)} of them are wanted for "
            f"{', '.join(PART_NAMES)}"
        )
    parts: Parts = {}
    for part, count in zip(PART_NAMES, counts, strict=True):
        parts[part], records = records[:count], records[count:]
    return parts
