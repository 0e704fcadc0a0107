"""The split: whole patients into training, validation and testing, the same on every machine."""

import hashlib
import logging
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from hmf_networks.data.datalist import PART_NAMES, Parts, read_datalist, write_datalist
from hmf_networks.data.folder import find_subjects, keep_complete, keep_several, wanted_contrasts
from hmf_networks.naming import Record, unknown_word

__all__ = ["load_or_split", "read_datalist", "read_part", "split_by_patient", "write_datalist"]

logger = logging.getLogger(__name__)

FRACTIONS = (0.7, 0.1, 0.2)  # training, validation, testing as the paper has them, section 4.1


def split_by_patient(records: Iterable[Record], *, fractions: Sequence[float] = FRACTIONS, seed: int = 0) -> Parts:
    """Parts by patient: all sessions of a patient stay together; the order of `records` does not matter.

    A part with a fraction above zero gets at least one patient; ValueError when there are too few.
    """
    sessions: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        sessions[record["patient"]].append(record)
    patients = sorted(sessions, key=lambda patient: _lot(patient, seed))
    parts: Parts = {}
    for part, count in zip(PART_NAMES, _counts(len(patients), fractions), strict=True):
        drawn, patients = sorted(patients[:count]), patients[count:]
        parts[part] = [
            record
            for patient in drawn
            for record in sorted(sessions[patient], key=lambda record: record.get("session", ""))
        ]
    return parts


def read_part(path: str | Path, part: str, root: str | Path | None = None) -> list[Record]:
    """The records of one part of a datalist; see `read_datalist`."""
    if part not in PART_NAMES:
        raise ValueError(unknown_word("part", part, PART_NAMES))
    return read_datalist(path, root)[part]


def part_of(parts: Parts, part: str) -> list[Record]:
    """The records of a part, to be evaluated; ValueError for an unknown name and for an empty part."""
    if part not in PART_NAMES:
        raise ValueError(unknown_word("part", part, PART_NAMES))
    if not parts[part]:
        filled = ", ".join(name for name in PART_NAMES if parts[name]) or "none"
        raise ValueError(f"no subject in part {part!r} to evaluate on; set evaluated_part to one of: {filled}")
    return parts[part]


def load_or_split(
    dataset_dir: str | Path,
    sources: Sequence[str],
    target: str | None,
    datalist_path: str | Path,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    *,
    any_subset: bool = False,
) -> Parts:
    """The parts in the file `datalist_path`; when it is not there, split `dataset_dir` and write it.

    A `dataset_dir` that is itself a datalist (.json) is taken as it is, nothing is split.
    With `any_subset` a subject needs two of the sources, not all of them and the target.
    Safe for processes that start together: each writes the same bytes, atomically, and reads them back.
    """
    dataset_dir, datalist_path = Path(str(dataset_dir)).expanduser().resolve(), Path(datalist_path)
    wanted = wanted_contrasts(sources, target)
    keep = keep_several if any_subset else keep_complete
    if dataset_dir.is_file():
        parts = read_datalist(dataset_dir)
        return {part: keep(records, wanted, dataset_dir) for part, records in parts.items()}
    if datalist_path.exists():
        logger.info("split read from %s; delete it to split again", datalist_path)
    else:
        records = keep(find_subjects(dataset_dir, [] if any_subset else wanted), wanted, dataset_dir)
        write_datalist(datalist_path, split_by_patient(records, fractions=fractions, seed=seed), dataset_dir)
    parts = read_datalist(datalist_path, dataset_dir)
    return {part: keep(records, wanted, datalist_path) for part, records in parts.items()}


def named_patients(dataset_dir: str | Path, training: Sequence[str], validation: Sequence[str] = ()) -> Parts:
    """Parts by the names of patients; all others of the folder are testing.

    Raises:
        ValueError: a patient is not there, or in two parts.
    """
    records = find_subjects(dataset_dir, [])
    known = {record["patient"] for record in records}
    for patient in (*training, *validation):
        if patient not in known:
            raise ValueError(unknown_word("patient", patient, sorted(known)))
    both = set(training) & set(validation)
    if both:
        raise ValueError(f"patient {sorted(both)[0]} is in training and validation; choose one")
    part = dict.fromkeys(training, "training") | dict.fromkeys(validation, "validation")
    return {
        name: [record for record in records if part.get(record["patient"], "testing") == name] for name in PART_NAMES
    }


def _lot(patient: str, seed: int) -> str:
    """A patient's lot in the draw; by hash, so that no library version can change a split."""
    return hashlib.sha256(f"{seed}/{patient}".encode()).hexdigest()


def _counts(num_patients: int, fractions: Sequence[float]) -> list[int]:
    """Patients for each part: one where the fraction is above zero, the others to who lacks most."""
    three = isinstance(fractions, Sequence) and len(fractions) == len(PART_NAMES)
    if not three or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f"split {fractions} must be three fractions for {', '.join(PART_NAMES)}, none below 0, "
            "that sum to 1, e.g. [0.7, 0.1, 0.2]"
        )
    counts = [int(fraction > 0) for fraction in fractions]
    if num_patients < sum(counts):
        names = ", ".join(name for name, count in zip(PART_NAMES, counts, strict=True) if count)
        raise ValueError(
            f"{num_patients} patient(s) are too few for {names}: at least {sum(counts)} are needed; "
            "add patients or set a fraction to 0"
        )
    for _ in range(num_patients - sum(counts)):
        lacks = [round(num_patients * f - count, 6) for f, count in zip(fractions, counts, strict=True)]
        counts[lacks.index(max(lacks))] += 1
    return counts
