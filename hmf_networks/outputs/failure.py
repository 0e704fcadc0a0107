"""What became of a subject that could not be done: a code, the cause, the cure. One entry of errors.json."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hmf_networks.atomic import FileChangedError
from hmf_networks.naming import is_named, subject_name
from hmf_networks.nifti.codes import ERRORS, Fault, VolumeError

SUBJECT_ERRORS = ERRORS | {
    "E_NAME": Fault("the name of a subject is no file name", "rename it with letters, digits, '-' and '_'"),
    "E_EXISTS": Fault("an output exists that no manifest speaks of", "move it, or replace it with --overwrite"),
    "E_SOURCE": Fault("the output would replace a scan that is read from", "give the output another name"),
    "E_CHANGED": Fault("a file was changed while it was worked on", "run it again when nobody else writes to it"),
    "E_NONFINITE": Fault(
        "the network gave values that are no numbers", "set precision to float32, or fetch the weights again"
    ),
    "E_WRITE": Fault(
        "an output cannot be written", "make room or correct the permissions, then go on with --skip-existing"
    ),
    "E_MEMORY": Fault("not even one plane fits the memory", "take a narrower network or a larger machine"),
    "E_FAILED": Fault("something that is not foreseen", "run it again with HMF_TRACEBACK=1 and report it"),
}
FOLDERS = re.compile(r"(?<![\w.-])(/[^/\s]+)*/(?=[^/\s])")  # of an absolute path


class SubjectError(ValueError):
    """A subject that cannot be done, for a reason that lies in none of its files."""

    def __init__(self, code: str, problem: str) -> None:
        self.code, self.problem, self.cure = code, problem, SUBJECT_ERRORS[code].cure
        super().__init__(code, problem)  # what pickle calls with, when a worker sends it

    def __str__(self) -> str:
        return f"{self.code} {self.problem}; {self.cure}"


class SubjectsFailed(RuntimeError):  # noqa: N818
    """All else is done, but some subjects could not be: the command ends with 2."""


def failure(record: Mapping[str, Any], error: BaseException) -> dict[str, str]:
    """An entry of errors.json: "subject", "target", "code", "cause", "cure", and "file" if one is to blame.

    Files are named without their folders, which may tell of people and places.
    """
    code, cause, cure = told(error)
    entry = {"subject": subject_name(record) if is_named(record) else repr(record.get("patient", ""))}
    entry |= {"target": record["target"], "code": code, "cause": _without_folders(cause), "cure": cure}
    return entry | ({"file": Path(error.path).name} if isinstance(error, VolumeError) else {})


def told(error: BaseException) -> tuple[str, str, str]:
    """Code, cause and cure of an error, each in one line."""
    if isinstance(error, VolumeError | SubjectError):
        return error.code, error.problem, error.cure
    if isinstance(error, FloatingPointError):
        code, cause = "E_NONFINITE", str(error)
    elif isinstance(error, FileChangedError):
        code, cause = "E_CHANGED", str(error)
    elif isinstance(error, MemoryError):
        code, cause = "E_MEMORY", str(error) or "out of memory"
    elif isinstance(error, OSError):
        code, cause = "E_WRITE", error.strerror or str(error)
    else:
        code, cause = "E_FAILED", f"{type(error).__name__}: {error}"
    return code, (cause.splitlines() or ["nothing is known"])[0], SUBJECT_ERRORS[code].cure


def _without_folders(text: str) -> str:
    return FOLDERS.sub("", text).replace(str(Path.home()), "~")
