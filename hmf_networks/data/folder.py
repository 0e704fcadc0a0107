"""A folder in, records out: the layout is recognised by file names, incomplete subjects are named."""

import logging
from collections.abc import Sequence
from pathlib import Path

from hmf_networks.data import bids, brats, ixi
from hmf_networks.data.datalist import read_datalist
from hmf_networks.data.records import check_distinct, files_below, nifti_stem
from hmf_networks.naming import (
    CONTRASTS,
    TWICE,
    Record,
    check_contrasts,
    is_named,
    subject_name,
    unknown_word,
)

logger = logging.getLogger(__name__)

FOLDER_LAYOUTS = {"bids": bids, "ixi": ixi, "brats": brats}  # in the order that "auto" tries them
NUM_NAMED = 3  # subjects or files that an error message names


def find_subjects(
    root: str | Path,
    sources: Sequence[str],
    target: str | None = None,
    *,
    layout: str = "auto",
    strict: bool = True,
) -> list[Record]:
    """Subjects that have all `sources`, and `target` when given; sorted by patient and session.

    `root` is a folder, a datalist (.json), or a NIfTI file: then its subject alone, with the files beside it.
    Without sources and target every subject is complete. Each incomplete subject is left out with a warning.
    One that has a contrast twice is refused, and a datalist that names a file that is not there or a patient
    in two parts; unless `strict`: then all of them stay in, and whoever reads them names them.

    Raises FileNotFoundError when `root` is not there, ValueError when no subject is found, or none that is
    complete.
    """
    root = Path(str(root)).expanduser()
    root = root.parent.resolve() / root.name if nifti_stem(root) else root.resolve()  # a link has siblings
    wanted = wanted_contrasts(sources, target)
    records = _all_subjects(root, layout, strict=strict)
    if not records:
        raise ValueError(_nothing_found(root, wanted, layout))
    if not strict:
        check_distinct(record for record in records if is_named(record))
        keep_complete(records, wanted, root, warn=False)
        return records
    check_distinct(records)
    check_one_of_each(records)
    return keep_complete(records, wanted, root)


def check_one_of_each(records: Sequence[Record]) -> None:
    """ValueError for a subject that has a contrast twice."""
    for record in records:
        if TWICE in record:
            raise ValueError(f"subject {subject_name(record)} has {record[TWICE]}; keep one of them")


def keep_complete(
    records: Sequence[Record], wanted: Sequence[str], origin: Path, *, warn: bool = True
) -> list[Record]:
    """Records that have every wanted contrast; a warning for each other, ValueError when none is left."""
    complete = [record for record in records if all(name in record for name in wanted)]
    if records and not complete:
        raise ValueError(_none_complete(records, wanted, origin))
    for record in records:
        missing = [name for name in wanted if name not in record]
        if missing and warn:
            logger.warning("subject %s left out: it has no %s", subject_name(record), ", ".join(missing))
    return complete


def wanted_contrasts(sources: Sequence[str], target: str | None) -> list[str]:
    """What a subject must have; ValueError for a name that is no contrast."""
    check_contrasts(sources)
    if target is not None and not sources:
        raise ValueError("sources is empty; name the contrasts to synthesise from, e.g. ['t1', 'flair']")
    wanted = [*sources, *([target] if target is not None else [])]
    check_contrasts(wanted)
    return list(dict.fromkeys(wanted))


def _all_subjects(root: Path, layout: str, *, strict: bool = True) -> list[Record]:
    if not root.exists():
        cure = "give the folder of your subjects as --dataset_dir"
        raise FileNotFoundError(f"dataset_dir {root} does not exist; {cure}")
    if layout not in ("auto", "datalist", *FOLDER_LAYOUTS):
        raise ValueError(unknown_word("layout", layout, ["auto", "datalist", *FOLDER_LAYOUTS]))
    if root.is_file() and nifti_stem(root) is not None:
        return _subject_of(root, layout)
    if root.is_file():
        records = [record for part in read_datalist(root, strict=strict).values() for record in part]
        return sorted(records, key=lambda record: (record["patient"], record["session"]))
    if layout == "datalist":
        raise ValueError(f"dataset_dir {root} is a folder; layout 'datalist' needs a .json file")
    tried = FOLDER_LAYOUTS.values() if layout == "auto" else [FOLDER_LAYOUTS[layout]]
    return next((records for module in tried if (records := module.find(root))), [])


def _subject_of(file: Path, layout: str) -> list[Record]:
    """The subject that a file belongs to, from the folder it lies in; BIDS is looked at from its root."""
    subject = next((folder for folder in file.parents if folder.name.startswith("sub-")), None)
    roots = [file.parent, *([subject.parent] if subject else [])]
    for root in roots:
        for record in _all_subjects(root, layout):
            if str(file) in record.values():
                return [record]
    return []


def _nothing_found(root: Path, wanted: Sequence[str], layout: str) -> str:
    names = list(FOLDER_LAYOUTS) if layout in ("auto", "datalist") else [layout]
    layouts = ", ".join(f"{name} ({FOLDER_LAYOUTS[name].EXAMPLE})" for name in names)
    files = [root] if root.is_file() else list(files_below(root))
    volumes = [path for path in files if nifti_stem(path)]
    kind, seen = (".nii/.nii.gz", volumes) if volumes else ("other", files)
    found = f"{len(seen)} {kind} file(s), e.g. {seen[0].name}" if seen else "no file at all"
    return (
        f"no subject in dataset_dir {root}: looked for {', '.join(wanted or CONTRASTS)} named as {layouts}; "
        f"found {found}; rename the files or write a datalist, see docs/data.md"
    )


def _none_complete(records: Sequence[Record], wanted: Sequence[str], origin: Path) -> str:
    lacking = {
        name: [subject_name(record) if is_named(record) else "?" for record in records if name not in record]
        for name in wanted
    }
    missing = "; ".join(
        f"{name} is missing in {len(subjects)} of {len(records)} ({', '.join(subjects[:NUM_NAMED])}"
        + (", ...)" if len(subjects) > NUM_NAMED else ")")
        for name, subjects in lacking.items()
        if subjects
    )
    return (
        f"no subject in {origin} has all of {', '.join(wanted)}: {missing}; "
        "add the files or choose other contrasts"
    )
