"""Datalists: a JSON file with the records of `training`, `validation` and `testing`.

Paths in it may be relative: to the dataset folder, or to the folder of the datalist. Its key `dataset_dir`
remembers the former, itself relative to the datalist, so that no home directory is written down.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hmf_networks.atomic import write_whole
from hmf_networks.data.records import check_distinct
from hmf_networks.naming import CONTRASTS, LAYOUTS, RECORD_KEYS, Record, unknown_word

Parts = dict[str, list[Record]]

PART_NAMES = ("training", "validation", "testing")
FILE_KEYS = (*CONTRASTS, "label")


def write_datalist(path: str | Path, parts: Mapping[str, Sequence[Record]], root: str | Path) -> None:
    """Write atomically; files below `root` relative to it. The same parts give the same bytes."""
    path, root = Path(path).resolve(), Path(root).resolve()
    content: dict[str, Any] = {"dataset_dir": Path(os.path.relpath(root, path.parent)).as_posix()}
    for part in PART_NAMES:
        content[part] = [_relative_to(root, record) for record in parts.get(part, [])]
    write_whole(path, json.dumps(content, indent=1) + "\n")


def read_datalist(path: str | Path, root: str | Path | None = None, *, strict: bool = True) -> Parts:
    """All three parts with absolute paths; a part the file does not name is empty.

    Relative paths are sought in `root` (by default the `dataset_dir` of the file), then beside the file.
    Raises ValueError that names the culprit: an unknown key, and, if `strict`, a missing file, or a patient
    or file in two parts.
    """
    path = Path(path).resolve()
    content = _load(path)
    folders = [Path(root).resolve() if root else (path.parent / content.get("dataset_dir", ".")).resolve()]
    folders.append(path.parent)
    parts = {
        part: [
            _record(entry, folders, f"{path}: {part}[{index}]", strict=strict)
            for index, entry in enumerate(content.get(part, []))
        ]
        for part in PART_NAMES
    }
    if strict:
        _check_no_leak(parts, path)
    return parts


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or not even text
        raise ValueError(f"{path} is not a datalist (.json): {error}") from error
    if not isinstance(content, dict) or not any(part in content for part in PART_NAMES):
        raise ValueError(f"{path} is not a datalist: it needs at least one of the keys {', '.join(PART_NAMES)}")
    if not isinstance(content.get("dataset_dir", "."), str):
        raise ValueError(f"{path}: 'dataset_dir' must be the text of a path")
    for key, value in content.items():  # lists are parts; name, modality and the like of Decathlon are not
        if isinstance(value, list) and key not in PART_NAMES:
            raise ValueError(f"{path}: {unknown_word('part', key, PART_NAMES)}")
        if key in PART_NAMES and not isinstance(value, list):
            raise ValueError(f"{path}: {key!r} must be a list of records, not {type(value).__name__}")
    return content


def _record(entry: Any, folders: Sequence[Path], place: str, *, strict: bool) -> Record:
    if not isinstance(entry, dict):
        raise ValueError(f'{place} must look like {{"patient": "001", "t1": "001_t1.nii.gz", ...}}')
    for key, value in entry.items():
        if key not in RECORD_KEYS:
            raise ValueError(f"{place}: {unknown_word('key', key, RECORD_KEYS)}")
        if not isinstance(value, str):
            raise ValueError(f"{place}: {key!r} must be text in quotes, not {value!r}")
    if not entry.get("patient"):
        raise ValueError(f"{place} has no 'patient'; add it: only so can no patient get into two parts")
    record = {"patient": entry["patient"], "session": "", "layout": "datalist"} | entry
    if record["layout"] not in LAYOUTS:
        raise ValueError(f"{place}: {unknown_word('layout', record['layout'], LAYOUTS)}")
    return record | {key: _existing(entry[key], folders, place, strict=strict) for key in FILE_KEYS if key in entry}


def _existing(name: str, folders: Sequence[Path], place: str, *, strict: bool) -> str:
    for folder in folders:
        if (folder / name).is_file():
            return str(folder / name)
    if not strict:
        return str(folders[0] / name)
    sought = "" if Path(name).is_absolute() else f" in {' or '.join(map(str, dict.fromkeys(folders)))}"
    raise ValueError(f"{place}: file {name} is not there{sought}; correct the datalist or delete it")


def _relative_to(root: Path, record: Record) -> Record:
    ordered = {key: record[key] for key in RECORD_KEYS if key in record}
    for key in FILE_KEYS:
        if key in record and Path(record[key]).is_relative_to(root):
            ordered[key] = Path(record[key]).relative_to(root).as_posix()
    return ordered


def _check_no_leak(parts: Parts, path: Path) -> None:
    check_distinct(record for records in parts.values() for record in records)
    part_of: dict[str, str] = {}
    patient_of: dict[str, str] = {}
    for part, records in parts.items():
        for record in records:
            patient = record["patient"]
            if part_of.setdefault(patient, part) != part:
                raise ValueError(f"{path}: patient {patient} is in {part_of[patient]} and in {part}; keep one")
            for file in (record[name] for name in CONTRASTS if name in record):
                if patient_of.setdefault(file, patient) != patient:
                    raise ValueError(f"{path}: {file} belongs to patient {patient_of[file]} and to {patient}")
