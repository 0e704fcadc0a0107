"""Which file on disk is the prediction for which subject: folders of `hmf synthesize`, or one file."""

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hmf_networks.data.folder import find_subjects
from hmf_networks.data.records import files_below, nifti_stem
from hmf_networks.naming import BIDS_SUFFIXES, Record, check_contrasts, output_path, subject_name
from hmf_networks.nifti.codes import VolumeError

logger = logging.getLogger(__name__)

NUM_NAMED = 3  # files that an error message names


class Failure(NamedTuple):
    """A subject that could not be scored, as `errors.json` tells it."""

    subject: str
    code: str
    cause: str
    cure: str

    @classmethod
    def from_error(cls, subject: str, error: VolumeError) -> "Failure":
        return cls(subject, error.code, f"{Path(error.path).name}: {error.problem}", error.cure)


def find_truths(root: str | Path, target: str) -> list[Record]:
    """Records that have the target: of a dataset folder or datalist, or of one NIfTI file."""
    check_contrasts([target])
    root = Path(root).expanduser()
    stem = nifti_stem(root)
    if stem is None:
        return find_subjects(root, [target])
    if not root.is_file():
        raise FileNotFoundError(f"{root}: no such file")
    return [{"patient": stem, "session": "", target: str(root)}]


def find_predictions(root: str | Path, target: str, truths: Sequence[Record]) -> dict[str, Path]:
    """Subject -> file of its synthesised target, at any depth of the folder; one file is for one truth.

    Raises:
        ValueError: there is none, or two for one subject.
        FileNotFoundError: there is no such folder or file.
    """
    root = Path(root).expanduser()
    if not root.exists():
        raise FileNotFoundError(f"{root} does not exist; give the folder that `hmf synthesize` wrote")
    if root.is_file() != ("layout" not in truths[0]):  # a single file belongs to no layout
        raise ValueError(f"{root}: give a folder for a dataset, or one NIfTI file for one NIfTI file")
    if root.is_file():
        return {subject_name(truths[0]): root}
    found: dict[str, Path] = {}
    for path in files_below(root):
        subject = _subject_of(path, target)
        if subject and found.setdefault(subject, path) != path:
            raise ValueError(f"subject {subject} has two predictions: {found[subject]} and {path}; keep one")
    if not found:
        raise ValueError(_nothing_found(root, target))
    return found


def unpaired(truths: Sequence[Record], found: Mapping[str, Path], root: Path, target: str) -> list[Failure]:
    """Truths without a prediction, and predictions without a truth."""
    names = {subject_name(record): record for record in truths}
    no_prediction = [
        Failure(
            subject,
            "E_MISSING",
            f"no prediction of {target} in {root.name}: {output_path(record, target)} is not there",
            "synthesise it, or leave the subject out of the truth",
        )
        for subject, record in names.items()
        if subject not in found
    ]
    no_truth = [
        Failure(subject, "E_MISSING", f"{path.name} has no true {target}", "add the true file, or remove this one")
        for subject, path in found.items()
        if subject not in names
    ]
    return no_prediction + no_truth


def _subject_of(path: Path, target: str) -> str | None:
    """`patient[_session]` of a file that `naming.output_path` names so, else None."""
    stem = nifti_stem(path) or ""
    plain = re.fullmatch(rf"(?P<subject>.+)_{target}_synth", stem)
    if plain:
        return plain["subject"]
    agent = "_ce-[^_]+" if target == "t1c" else ""
    derivative = re.fullmatch(
        rf"sub-(?P<patient>[^_]+)(_ses-(?P<session>[^_]+))?{agent}_desc-synth_{BIDS_SUFFIXES[target]}", stem
    )
    if derivative is None:
        return None
    return subject_name({"patient": derivative["patient"], "session": derivative["session"] or ""})


def _nothing_found(root: Path, target: str) -> str:
    layouts = ("brats", "bids")
    examples = [str(output_path({"patient": "001", "layout": layout}, target)) for layout in layouts]
    volumes = [path for path in files_below(root) if nifti_stem(path)]
    seen = f"{len(volumes)} NIfTI file(s)" + "".join(f", {path.name}" for path in volumes[:NUM_NAMED])
    return (
        f"no prediction of {target} in {root}: looked for files like {' or '.join(examples)}; "
        f"found {seen}; give the folder that `hmf synthesize` wrote"
    )
