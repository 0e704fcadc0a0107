"""`hmf check`: every file and subject below a path, and all that is wrong with them. Nothing is changed."""

import hashlib
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hmf_networks.data.datalist import read_datalist
from hmf_networks.data.folder import find_subjects, resolved
from hmf_networks.data.pair_check import compare_contrasts
from hmf_networks.data.records import files_below, nifti_stem
from hmf_networks.naming import CONTRASTS, TWICE, UNLISTED, Record, is_named, printable, subject_name
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.nifti.geometry import grid_difference, upright
from hmf_networks.nifti.header import MAX_VOXELS
from hmf_networks.nifti.read import Volume, examine
from nibabel.affines import voxel_sizes

# What looks like a volume and is none that can be used here.
FOREIGN = (".mgz", ".mgh", ".nrrd", ".nhdr", ".mha", ".mhd", ".mnc", ".dcm", ".ima", ".par", ".rec")
VERDICTS = ("accept", "warn", "reject")

Entry = dict[str, Any]


class _Known(NamedTuple):
    """What is remembered of a file once its voxels are let go."""

    verdict: str
    codes: list[str]
    message: str
    voxel_hash: str


def check_path(path: str | Path, *, volume: int | None = None, max_voxels: int = MAX_VOXELS) -> dict[str, list[Entry]]:
    """Judge a file, a folder or a datalist.

    Returns {"files": [{"path", "verdict", "codes", "message"}], "subjects": [{"subject", "contrasts",
    "verdict", "codes", "message", "findings"}]}; paths are relative to the folder, verdicts accept, warn or
    reject. A subject is rejected where one of its files is; its findings name each.

    Raises:
        FileNotFoundError, ValueError: there is nothing, or nothing that looks like a volume.
    """
    root = resolved(path)
    if not root.exists() and not root.is_symlink():
        raise FileNotFoundError(f"{root} does not exist; give a file, a folder or a datalist")
    judge = _Judge(root, volume, max_voxels)
    with _silence("hmf_networks.data"):  # the report says it all
        found = _records(root)
    if root.is_dir():
        files = [file for file in files_below(root) if _is_volume(file)]
    elif _is_datalist(root):
        files = [Path(r[name]) for _, r in found for name in (*CONTRASTS, "label") if name in r]
    else:
        files = [root]
    if not files:
        raise ValueError(f"nothing to check in {root}: looked for .nii, .nii.gz and .hdr files")
    subjects = [judge.subject(record) for _, record in found]
    listed = [judge.file(file) for file in dict.fromkeys(files)]
    _mark_alike(subjects)
    _mark_doubles(subjects, [record for _, record in found], judge)
    _mark_leaks(subjects, found)
    return {"files": listed, "subjects": subjects}


def summary(report: Mapping[str, Sequence[Entry]]) -> str:
    """The report for people: what is not accepted, a line each, and counts."""
    lines = [
        printable(f"{entry['verdict']:6} {entry.get('path') or 'subject ' + entry['subject']}: {entry['message']}")
        for entry in (*report["files"], *report["subjects"])
        if entry["verdict"] != "accept"
    ]
    for kind, entries in report.items():
        counts = [f"{sum(e['verdict'] == verdict for e in entries)} {verdict}" for verdict in VERDICTS]
        lines.append(f"{len(entries)} {kind}: {', '.join(counts)}")
    placed = {path for subject in report["subjects"] for path in subject["contrasts"].values()}
    others = [entry["path"] for entry in report["files"] if entry["path"] not in placed]
    if others:
        lines.append(f"{len(others)} of the files belong to no subject by their names, e.g. {printable(others[0])}")
    return "\n".join(lines)


class _Judge:
    """Looks at each file once, and remembers its verdict."""

    def __init__(self, root: Path, volume: int | None, max_voxels: int) -> None:
        self.root = root if root.is_dir() else root.parent
        self.options: dict[str, Any] = {"volume": volume, "max_voxels": max_voxels}
        self.known: dict[Path, _Known] = {}

    def file(self, path: Path) -> Entry:
        if path not in self.known:
            self._read(path)
        known = self.known[path]
        shown = path.relative_to(self.root) if path.is_relative_to(self.root) else path
        return {"path": str(shown), "verdict": known.verdict, "codes": known.codes, "message": known.message}

    def subject(self, record: Record) -> Entry:
        name = subject_name(record) if is_named(record) else repr(record["patient"])
        contrasts = {key: record[key] for key in (*CONTRASTS, "label") if key in record}
        read = {key: self._read(Path(path), is_label=key == "label") for key, path in contrasts.items()}
        findings: list[Entry] = []
        if not is_named(record):
            findings.append(_finding("E_NAME", [], 0, f"{name} is no file name for an output; rename it"))
        if UNLISTED in record:
            findings.append(_finding("E_MISSING", [], 0, f"{record[UNLISTED]}; correct its permissions"))
        if TWICE in record:
            findings.append(_finding("E_AMBIGUOUS", [], 0, f"{record[TWICE]}; keep one of them"))
        for key, path in contrasts.items():
            if (known := self.known[Path(path)]).verdict == "reject":
                code, _, message = known.message.partition(" ")
                findings.append(_finding(code, [key], 0, f"{key}: {message}"))
        volumes = {key: volume for key, volume in read.items() if volume is not None}
        findings += _grids(volumes)
        findings += _fit({key: volume for key, volume in volumes.items() if key != "label"}, findings)
        entry: Entry = {"subject": name, "contrasts": {key: self._shown(path) for key, path in contrasts.items()}}
        return entry | _verdict(findings)

    def _shown(self, path: str) -> str:
        return str(Path(path).relative_to(self.root)) if Path(path).is_relative_to(self.root) else path

    def _read(self, path: Path, *, is_label: bool = False) -> Volume | None:
        try:
            read = examine(path, **self.options)
        except VolumeError as error:
            if is_label and error.code == "E_NO_SIGNAL":  # a healthy subject has an empty segmentation
                self.known[path] = _Known("accept", [], "", "")
            else:
                self.known[path] = _Known("reject", [error.code], f"{error.code} {error.problem}; {error.cure}", "")
            return None
        codes = list(dict.fromkeys(warned.code for warned in read.warnings))
        message = "; ".join(f"{warned.code} {warned.problem}" for warned in read.warnings)
        voxel_hash = hashlib.sha256(read.values.T.tobytes()).hexdigest()  # in the order of the file
        self.known[path] = _Known("warn" if codes else "accept", codes, message, voxel_hash)
        return read


@contextmanager
def _silence(name: str) -> Iterator[None]:
    """Within it a logger says errors only."""
    level = logging.getLogger(name).level
    logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.getLogger(name).setLevel(level)


def _is_volume(path: Path) -> bool:
    return nifti_stem(path) is not None or path.suffix.lower() in FOREIGN


def _is_datalist(root: Path) -> bool:
    return root.is_file() and root.suffix.lower() == ".json"


def _records(root: Path) -> list[tuple[str, Record]]:
    """The subjects, where names tell any, each with its part of a datalist."""
    if _is_datalist(root):
        parts = read_datalist(root, strict=False)
        return [(part, record) for part, records in parts.items() for record in records]
    try:
        return [("", record) for record in find_subjects(root, [], strict=False)]
    except ValueError:  # files that fit no layout are judged one by one
        return []


def _grids(volumes: Mapping[str, Volume]) -> list[Entry]:
    """Contrasts that do not lie on the grid of the first."""
    found = []
    for name, volume in volumes.items():
        first_name, first = next(iter(volumes.items()))
        grids = (volume.header.shape, volume.header.affine, first.header.shape, first.header.affine)
        difference = grid_difference(*grids, first_name)
        if difference is not None:
            text = f"{name}: {difference.text}; use --regrid or resample it"
            found.append(_finding("E_GRID", [first_name, name], difference.mm, text))
    return found


def _fit(volumes: Mapping[str, Volume], findings: Iterable[Entry]) -> list[Entry]:
    """What speaks against the contrasts that lie on one grid."""
    elsewhere = {name for finding in findings if finding["code"] == "E_GRID" for name in finding["contrasts"][1:]}
    turned = {
        name: upright(volume.values, volume.header.affine) for name, volume in volumes.items() if name not in elsewhere
    }
    if len(turned) < 2:
        return []
    spacing_mm = voxel_sizes(next(iter(turned.values()))[1]).tolist()
    findings_there = compare_contrasts({name: values for name, (values, _) in turned.items()}, spacing_mm)
    return [_finding(*finding) for finding in findings_there]


def _mark_alike(subjects: Sequence[Entry]) -> None:
    """Names that differ in case alone: one folder on many a disk, and perhaps one person."""
    alike: dict[str, list[Entry]] = defaultdict(list)
    for subject in subjects:
        alike[subject["subject"].casefold()].append(subject)
    for group in alike.values():
        for subject in group:
            others = sorted({other["subject"] for other in group} - {subject["subject"]})
            if others:
                text = f"its name differs from {', '.join(others)} in case alone; rename one"
                _add(subject, _finding("W_NAME", [], 0, text))


def _mark_doubles(subjects: Sequence[Entry], records: Sequence[Record], judge: _Judge) -> None:
    """The same voxels in two subjects: one person under two names, or a copied file."""
    owners: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for number, record in enumerate(records):
        for name in (name for name in CONTRASTS if name in record):
            voxel_hash = judge.known[Path(record[name])].voxel_hash
            if voxel_hash:
                owners[voxel_hash].append((number, name))
    for places in owners.values():
        for number, name in places:
            others = sorted({subjects[other]["subject"] for other, _ in places if other != number})
            if others:
                text = f"{name} has the very voxels of {', '.join(others)}; keep one, or give them one patient"
                _add(subjects[number], _finding("E_DUPLICATE", [name], 1.0, text) | {"others": others})


def _mark_leaks(subjects: Sequence[Entry], found: Sequence[tuple[str, Record]]) -> None:
    """Patients in two parts of a datalist, by name or by voxels: what is tested was trained on."""
    parts_of: dict[str, set[str]] = defaultdict(set)
    for (part, record), subject in zip(found, subjects, strict=True):
        parts_of[record["patient"]].add(part)
        parts_of[subject["subject"]].add(part)
    for (_, record), subject in zip(found, subjects, strict=True):
        doubles = {name for finding in subject["findings"] for name in finding.get("others", ())}
        parts = parts_of[record["patient"]].union(*(parts_of[name] for name in doubles))
        if len(parts) > 1:
            same = f" (as {', '.join(sorted(doubles))})" if doubles else ""
            text = f"patient {record['patient']}{same} is in {' and '.join(sorted(parts))}; keep one"
            _add(subject, _finding("E_LEAK", [], len(parts), text))


def _finding(code: str, contrasts: Iterable[str], number: float, message: str) -> Entry:
    number = round(float(number), 3) if math.isfinite(number) else 0.0  # strict JSON has no infinity
    return {"code": code, "contrasts": list(contrasts), "number": number, "message": message}


def _add(subject: Entry, finding: Entry) -> None:
    subject.update(_verdict([*subject["findings"], finding]))


def _verdict(findings: Sequence[Entry]) -> Entry:
    codes = list(dict.fromkeys(finding["code"] for finding in findings))
    verdict = "reject" if any(code.startswith("E_") for code in codes) else "warn" if codes else "accept"
    message = "; ".join(f"{finding['code']} {finding['message']}" for finding in findings)
    return {"verdict": verdict, "codes": codes, "message": message, "findings": list(findings)}
