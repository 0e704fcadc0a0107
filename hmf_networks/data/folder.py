"""A folder in, records out: the layout is recognised by file names, incomplete subjects are named."""

import logging
from collections.abc import Sequence
from pathlib import Path

from hmf_networks.data import bids, brats, ixi
from hmf_networks.data.datalist import read_datalist
from hmf_networks.data.records import check_distinct, files_below, mark_namesakes, nifti_stem, unlisted_folders
from hmf_networks.naming import CONTRASTS, TWICE, Record, check_contrasts, is_named, subject_name, unknown_word

logger = logging.getLogger(__name__)

FOLDER_LAYOUTS = {"bids": bids, "ixi": ixi, "brats": brats}  # in the order that "auto" tries them
NUM_NAMED = 3  # subjects or files that an error message names


def find_subjects(
    root: str | Path, sources: Sequence[str], target: str | None = None, *, layout: str = "auto", strict: bool = True
) -> list[Record]:
    """Subjects that have all `sources`, and `target` when given; sorted by patient and session.

    `root` is a folder, a datalist (.json), or a NIfTI file: then its subject alone, with the files beside it.
    Without sources and target every subject is complete. Each incomplete subject is left out with a warning.
    One that has a contrast twice, or the name of another, is refused, and a datalist that names a file that
    is not there or a patient in two parts; unless `strict`: then all of them stay in, with a record for each
    folder that cannot be looked into, and whoever reads them names them.

    Raises FileNotFoundError when `root` is not there, ValueError when no subject is found, or none that is
    complete.
    """
    root = resolved(root)
    wanted = wanted_contrasts(sources, target)
    records = _all_subjects(root, layout, wanted, strict=strict)
    unlisted = [] if strict or root.is_file() else _unlisted(root, records)
    if not records + unlisted:
        raise ValueError(_nothing_found(root, wanted, layout))
    if not strict:
        mark_namesakes(record for record in records if is_named(record))
        keep_complete(records, wanted, root, warn=False)
        return records + unlisted
    check_distinct(records)
    check_one_of_each(records)
    records = [_without_links_to_nowhere(record) for record in records]
    return keep_complete(records, wanted, root)


def resolved(root: str | Path) -> Path:
    """Where a dataset is, its links followed; not that of a file, which has siblings where the link is."""
    root = Path(str(root)).expanduser()
    return root.parent.resolve() / root.name if nifti_stem(root) else root.resolve()


def check_one_of_each(records: Sequence[Record]) -> None:
    """ValueError for a subject that has a contrast twice."""
    for record in records:
        if TWICE in record:
            raise ValueError(f"subject {subject_name(record)} has {record[TWICE]}; keep one of them")


def keep_complete(records: Sequence[Record], wanted: Sequence[str], origin: Path, *, warn: bool = True) -> list[Record]:
    """Records that have every wanted contrast; a warning for each other, ValueError when none is left."""
    complete = [record for record in records if all(name in record for name in wanted)]
    if records and not complete:
        raise ValueError(_none_complete(records, wanted, origin))
    for record in records:
        missing = [name for name in wanted if name not in record]
        if missing and warn:
            logger.warning("subject %s left out: it has no %s", subject_name(record), ", ".join(missing))
    return complete


def keep_several(records: Sequence[Record], contrasts: Sequence[str], origin: Path) -> list[Record]:
    """Records with two of the contrasts or more: one to learn from the other; a warning for each other."""
    several = [record for record in records if sum(name in record for name in contrasts) > 1]
    for record in records:
        if record not in several:
            logger.warning("subject %s left out: it has but one of %s", subject_name(record), ", ".join(contrasts))
    if records and not several:
        raise ValueError(
            f"no subject in {origin} has two of {', '.join(contrasts)}: there is nothing to learn from them"
        )
    return several


def wanted_contrasts(sources: Sequence[str], target: str | None) -> list[str]:
    """What a subject must have; ValueError for a name that is no contrast."""
    check_contrasts(sources)
    if target is not None and not sources:
        raise ValueError("sources is empty; name the contrasts to synthesise from, e.g. ['t1', 'flair']")
    wanted = [*sources, *([target] if target is not None else [])]
    check_contrasts(wanted)
    return list(dict.fromkeys(wanted))


def _all_subjects(root: Path, layout: str, wanted: Sequence[str], *, strict: bool = True) -> list[Record]:
    if not root.exists():
        raise FileNotFoundError(f"dataset_dir {root} does not exist; give the folder of your subjects")
    if layout not in ("auto", "datalist", *FOLDER_LAYOUTS):
        raise ValueError(unknown_word("layout", layout, ["auto", "datalist", *FOLDER_LAYOUTS]))
    if root.is_file() and nifti_stem(root) is not None:
        return _subject_of(root, layout)
    if root.is_file():
        if root.suffix.lower() != ".json":
            raise ValueError(f"{root} is neither NIfTI (.nii, .nii.gz, .hdr) nor a datalist (.json); convert it")
        records = [record for part in read_datalist(root, strict=strict).values() for record in part]
        return sorted(records, key=lambda record: (record["patient"], record["session"]))
    if layout == "datalist":
        raise ValueError(f"dataset_dir {root} is a folder; layout 'datalist' needs a .json file")
    names = list(FOLDER_LAYOUTS) if layout == "auto" else [layout]
    return _of_the_best_layout(root, names, wanted) or _part_of_bids(root, names)


def _of_the_best_layout(root: Path, names: Sequence[str], wanted: Sequence[str]) -> list[Record]:
    """BIDS where it names a complete subject, else what names most; a warning where others are left out."""

    def num_complete(records: Sequence[Record]) -> int:
        return sum(all(contrast in record for contrast in wanted) for record in records)

    found = {"bids": bids.find(root)} if "bids" in names else {}
    is_bids = num_complete(found.get("bids", [])) > 0
    for name in names:
        if name != "bids":
            found[name] = FOLDER_LAYOUTS[name].find(root, leave_out=bids.FOLDERS if is_bids else None)
    ranks = {name: (is_bids and name == "bids", num_complete(r), len(r)) for name, r in found.items()}
    best = max(found, key=lambda name: ranks[name])
    taken = {path for record in found[best] for path in _files(record)}
    for name, records in found.items():
        others = [record for record in records if taken.isdisjoint(_files(record))]
        if others and name != best:
            logger.warning(
                "%d subject(s) named as %s left out, e.g. %s: the others are named as %s; give them a folder "
                "of their own",
                *(len(others), name, others[0]["patient"], best),
            )
    return found[best]


def _unlisted(root: Path, records: Sequence[Record]) -> list[Record]:
    is_bids = any(record["layout"] == "bids" for record in records)
    return unlisted_folders(root, only=bids.SUBJECT_FOLDER if is_bids else None)


def _without_links_to_nowhere(record: Record) -> Record:
    """Of a dataset that was fetched in part, what is there."""
    return {name: value for name, value in record.items() if name not in CONTRASTS or Path(value).is_file()}


def _part_of_bids(root: Path, names: Sequence[str]) -> list[Record]:
    """The scans of a folder inside a BIDS dataset, which is looked at from its root."""
    subject = next((folder for folder in (root, *root.parents) if folder.name.startswith("sub-")), None)
    if subject is None or "bids" not in names:
        return []
    records = bids.find(subject.parent)
    return [record for record in records if all(Path(path).is_relative_to(root) for path in _files(record))]


def _files(record: Record) -> list[str]:
    return [record[name] for name in CONTRASTS if name in record]


def _subject_of(file: Path, layout: str) -> list[Record]:
    """The subject that a file belongs to, from the folder it lies in."""
    return [record for record in _all_subjects(file.parent, layout, []) if str(file) in record.values()]


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
    return f"no subject in {origin} has all of {', '.join(wanted)}: {missing}; add the files or choose other contrasts"
