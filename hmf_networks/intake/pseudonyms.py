"""Who is who: a table of patients and the names they go by in the output, kept apart from it.

The table is a CSV file, readable by its owner alone. A patient in it keeps the name; new ones get the next number.
"""

import csv
import io
import re
from collections.abc import Iterable
from pathlib import Path

from hmf_networks.atomic import write_whole
from hmf_networks.intake.studies import RawStudy

COLUMNS = ("pseudonym", "session", "patient", "PatientName", "PatientBirthDate", "StudyDate", "StudyInstanceUID")
NUMBERED = re.compile(r"(\d+)")


def table_path(output_dir: Path) -> Path:
    """Beside the output folder, so that the folder can be passed on as it is."""
    return output_dir.with_name(f"{output_dir.name}_pseudonyms.csv")


def pseudonyms(studies: Iterable[RawStudy], path: Path) -> dict[tuple[str, str], str]:
    """(patient, session) -> "001", ...; the table at `path` is read first and written anew.

    Raises:
        ValueError: there is another file at `path`.
    """
    rows = _read(path)
    names = {row["patient"]: row["pseudonym"] for row in rows}
    taken = max((int(name) for name in names.values() if NUMBERED.fullmatch(name)), default=0)
    known = {(row["patient"], row["session"]) for row in rows}
    found = {}
    for study in sorted(studies, key=lambda study: (study.patient, study.session)):
        if study.patient not in names:
            taken += 1
            names[study.patient] = f"{taken:03d}"
        found[study.patient, study.session] = names[study.patient]
        if (study.patient, study.session) not in known:
            start = {"pseudonym": names[study.patient], "session": study.session, "patient": study.patient}
            rows.append(start | {key: study.identity.get(key, "") for key in COLUMNS[3:]})
    _write(rows, path)
    return found


def known_pseudonyms(path: Path) -> dict[tuple[str, str], str]:
    """(patient, session) -> "001", as the table says.

    Raises:
        FileNotFoundError: there is none.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no table of pseudonyms; name it by --pseudonyms")
    return {(row["patient"], row["session"]): row["pseudonym"] for row in _read(path)}


def _read(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path} is no table of pseudonyms; move it, or name another by --pseudonyms")
        return list(reader)


def _write(rows: list[dict[str, str]], path: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, text.getvalue())
    path.chmod(0o600)
