"""Names: the five contrasts, the record that describes a subject, and where its output goes.

A record is a plain dict, one for each subject and session; every contrast that is present is in it:
`{"patient": "lg01", "session": "1" or "", "layout": "bids", "t1": "/abs/path", "flair": ..., "label": ...}`.
`label` is a segmentation and optional. `patient` is the key of every split. A record that something is to be
made of has a key more: `"target": "t2"`, or `"targets": ["t2", "flair"]`.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hmf_networks import __version__

Record = dict[str, str]

CONTRASTS = ("t1", "t1c", "t2", "flair", "pd")
LAYOUTS = ("bids", "ixi", "brats", "datalist")
RECORD_KEYS = ("patient", "session", "layout", *CONTRASTS, "label")
RESERVED = ("manifest.json", "errors.json")  # of an output folder: no subject may be called so
TWICE = "twice"  # key of a record that has a contrast in two files, or the name of another: says so
UNLISTED = "unlisted"  # key of a record in the place of a folder that cannot be looked into: says so
LOOSE = "loose"  # the layout of files named one by one; key "output" then names the file to write
GENERATOR = {"Name": "hmf_networks", "Version": __version__}  # in every sidecar that we write
BIDS_SUFFIXES = {"t1": "T1w", "t1c": "T1w", "t2": "T2w", "flair": "FLAIR", "pd": "PDw"}  # t1c: plus a ce- entity


def unknown_word(kind: str, word: str, known: Iterable[str]) -> str:
    """The text of an error: "unknown contrast 'flare'; known: t1, ...; did you mean 'flair'?"."""
    known = list(known)
    return f"unknown {kind} {word!r}; known: {', '.join(known)}{suggestion(word, known)}"


def suggestion(word: str, known: Iterable[str]) -> str:
    """Text to append to an error: did you mean that known word? Empty when none is near."""
    close = difflib.get_close_matches(word.lower(), list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def printable(text: str) -> str:
    """For one line on a screen: names of files may hold line ends, or bytes that are no letters."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def check_contrasts(names: Sequence[str]) -> None:
    """Raise ValueError, with a suggestion, unless every name is one of CONTRASTS."""
    if isinstance(names, str):
        raise ValueError(f"contrasts are a list, not the text {names!r}; write [{names!r}]")
    for name in names:
        if name not in CONTRASTS:
            raise ValueError(unknown_word("contrast", name, CONTRASTS))


def check_switch(name: str, value: object) -> bool:
    """A switch from config or command line; ValueError for the text "false", true to Python."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; write True or False")
    return value


def check_weights(path: str | Path) -> None:
    """Raise FileNotFoundError unless weights are there."""
    if Path(path).is_dir():
        raise FileNotFoundError(f"ckpt_path {path} is a folder; point it to the model.pt in it")
    if not Path(path).is_file():
        raise FileNotFoundError(f"ckpt_path {path}: no weights there; train first, or point ckpt_path to a model.pt")


def subject_name(record: Mapping[str, str]) -> str:
    """`patient[_session]`: names a subject in messages and its files in the output folder.

    Raises ValueError when it could not be a plain file name: a patient '../x' would write elsewhere.
    """
    name = "_".join(part for part in (record["patient"], record.get("session", "")) if part)
    is_taken = name.casefold() in RESERVED
    if not name or is_taken or name.startswith(".") or any(letter in "/\\" or letter < " " for letter in name):
        raise ValueError(f"subject {name!r} is no file name; use letters, digits, '-' and '_' for patient and session")
    return name


def is_named(record: Mapping[str, str]) -> bool:
    """Whether `subject_name` has a name for it."""
    try:
        subject_name(record)
    except ValueError:
        return False
    return True


def targets_of(record: Mapping[str, Any]) -> list[str]:
    """What is to be made of a record; nothing of one to learn from."""
    return list(record.get("targets", [record["target"]] if "target" in record else []))


def usable_sources(record: Mapping[str, Any], sources: Iterable[str], given: Sequence[str] | None = None) -> list[str]:
    """Those of `sources` that a record has, that may be used (`given`; None: all), and that are not made."""
    made = targets_of(record)
    return [name for name in sources if name in record and name not in made and (given is None or name in given)]


def output_path(record: Mapping[str, str], target: str) -> Path:
    """Where the synthesised `target` goes, relative to the output folder; BIDS in, BIDS derivatives out."""
    check_contrasts([target])
    subject = subject_name(record)
    if record.get("layout") == LOOSE:
        return Path(record["output"])
    if record.get("layout") != "bids":
        return Path(subject) / f"{subject}_{target}_synth.nii.gz"
    folders = [f"sub-{record['patient']}"] + ([f"ses-{record['session']}"] if record.get("session") else [])
    contrast_agent = ["ce-gadolinium"] if target == "t1c" else []
    space = [f"space-{space_of(record['grid'])}"] if "grid" in record else []
    name = "_".join([*folders, *contrast_agent, *space, "desc-synth", BIDS_SUFFIXES[target]])
    return Path(*folders) / "anat" / f"{name}.nii.gz"


def space_of(contrast: str) -> str:
    """What BIDS names call the space of a scan: T1w, T1wce for t1c, ..."""
    return BIDS_SUFFIXES[contrast] + ("ce" if contrast == "t1c" else "")


def beside(path: str | Path, suffix: str) -> Path:
    """The file of that suffix beside a volume: x.nii.gz and ".json" give x.json."""
    path = Path(path)
    return path.with_name(bare_name(path.name) + suffix)


def error_path(path: str | Path) -> Path:
    """Where the expected error of a volume goes: beside it, in BIDS as another description."""
    path = Path(path)
    stem = bare_name(path.name)
    name = stem.replace("_desc-synth_", "_desc-syntherror_")
    return path.with_name((name if name != stem else f"{stem}_error") + path.name[len(stem) :])


def bare_name(name: str) -> str:
    """The name of a volume without .nii, .gz, in whatever case."""
    for ending in (".gz", ".nii"):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
    return name
