"""What `python -m monai.bundle run` leaves to be said: an option that no config knows, and the cause, last.

MONAI takes any `--name` for a new key, and wraps whatever goes wrong in messages of its own. The bundle's
`initialize` calls `speak_clearly` before anything is read.
"""

import inspect
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import hmf_networks
import monai.bundle
from hmf_networks.naming import suggestion
from hmf_networks.outputs.failure import SubjectsFailed
from monai.bundle import ConfigParser

PACKAGE = str(Path(hmf_networks.__file__).parent)
TRACEBACK = "HMF_TRACEBACK"  # environment variable: 1 shows where an error was raised


def speak_clearly() -> None:
    """Refuse options that no config has; let an uncaught error end in one line: the cause and the cure."""
    if Path(sys.argv[0]).resolve() != Path(monai.bundle.__file__).with_name("__main__.py").resolve():
        return  # a server, a notebook, a test: it has manners of its own
    sys.excepthook = _print_error
    check_options(sys.argv[1:])


def check_options(arguments: Sequence[str]) -> None:
    """Raise ValueError, with a suggestion, for an option that neither MONAI nor a config file knows."""
    files = _config_files(arguments)
    if not all(Path(path).is_file() for path in files) or not files:
        return  # named in an args_file, or not there: MONAI says so itself
    known = keys_of(files) | set(inspect.signature(monai.bundle.run).parameters) - {"override"}
    for option in (word for word in arguments if word.startswith("--")):
        check_key(option.removeprefix("--").partition("=")[0], known)


def keys_of(files: Sequence[str | Path]) -> set[str]:
    """What may be overridden: the first words of the keys of these config files."""
    keys = {"bundle_root", "_meta_"}.union(*(ConfigParser.load_config_file(path) for path in files))
    return keys | {key.partition("#")[0] for key in keys}


def check_key(key: str, known: set[str]) -> None:
    """Raise ValueError, with a suggestion, for a key whose first word is not known."""
    name = key.replace("::", "#").partition("#")[0]
    if name not in known:
        hint = suggestion(f"--{name}", [f"--{word}" for word in sorted(known)])
        raise ValueError(f"unknown option --{name}: the keys of the config files are the options{hint}")


def _config_files(arguments: Sequence[str]) -> list[str]:
    for option, value in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, text = option.partition("=")
        if name == "--config_file":
            text = text if equals else value
            return [word.strip(" '\"") for word in text.strip("[]() ").split(",")]
    return []


def _print_error(kind: type[BaseException], error: BaseException, where: TracebackType | None) -> None:
    """In place of sys.excepthook."""
    cause = told_to_users(error)
    if cause is None or os.environ.get(TRACEBACK):
        traceback.print_exception(kind, error, where)
    if cause is not None:
        text = cause.args[0] if isinstance(cause, KeyError) and cause.args else cause
        sys.stderr.write(f"error: {text}\n")
    if isinstance(cause, SubjectsFailed):
        raise SystemExit(2)  # an excepthook may say how to end


def told_to_users(error: BaseException) -> BaseException | None:
    """The innermost error that was raised for users; None where it is a bug."""
    return next((cause for cause in _causes(error) if _is_ours(cause)), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it, innermost first."""
    if error is not None:
        yield from _causes(error.__cause__ or (None if error.__suppress_context__ else error.__context__))
        yield error


def _is_ours(error: BaseException) -> bool:
    """Raised by a `raise` of this package: its message is written for users; a bug keeps its traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].filename.startswith(PACKAGE) and _is_raise(frames[-1].line)


def _is_raise(line: str | None) -> bool:
    return (line or "").startswith("raise ")
