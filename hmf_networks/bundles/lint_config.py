"""Configs in MONAI's syntax: every text that it would evaluate, call, import or read from elsewhere."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from hmf_networks.bundles.allowed import BARE_CLASSES, CLASSES, DANGEROUS, FUNCTIONS, READERS, WEIGHTS
from hmf_networks.bundles.finding import Finding
from hmf_networks.bundles.lint_expression import RELATIVE, faults_of_expression, is_import

PLAIN_KEY = re.compile(r"[+~]?\w+(?:(?:#|::)\w+)*")  # others become code, pasted into relative references (@#)
IMPORTS = re.compile(r"\+?imports(?:#\d+)?")  # where import statements belong
OF_IMPORTS = re.compile(r"[@%][\w#:.]*imports")  # a module as a value: all that it has could be called
ROOT = re.compile(r"\.|/workspace(?:/[\w-]+)*")  # first on the path of modules, so not any file
LOADED_BY = {"workflow_name": "names code to run", "allow_pickle": "unpickles", "weights_only": "unpickles"}
LOOKED_UP = ("reader", "writer", "merger_cls")  # by name, anywhere
FILES_OF_RUNS = {"logging_file": ".conf", "tracking": ".json", "properties_path": ".json"}
LONGEST = 120  # of a text that is shown
DEEPEST = 200


def lint_json(name: str, content: bytes) -> Iterator[Finding]:
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        keys = [key for key, _ in items]
        twice.extend(key for key in keys if keys.count(key) > 1)
        return _Pairs(items)

    try:
        config = json.loads(content.decode("utf-8"), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        yield Finding(name, "", "config", f"cannot be read ({error})")
        return
    for key in dict.fromkeys(twice):
        yield Finding(name, key, "config", "twice: readers differ in which they take")
    yield from _lint_values(name, config)
    yield from _lint_large_files(name, dict(config) if isinstance(config, _Pairs) else config)


def lint_yaml(name: str, content: bytes) -> Iterator[Finding]:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        yield Finding(name, "", "config", "YAML cannot be read here: pip install pyyaml")
        return
    try:
        documents = list(yaml.safe_load_all(content.decode("utf-8")))
    except (ValueError, LookupError, TypeError, RecursionError, yaml.YAMLError) as error:
        yield Finding(name, "", "config", f"cannot be read ({' '.join(str(error).split())})")
        return
    for document in documents:
        yield from _lint_values(name, document)
        yield from _lint_large_files(name, document)


def _lint_large_files(name: str, document: Any) -> Iterator[Finding]:
    """What MONAI fetches on request, by a list in any `large_files*`."""
    if not PurePosixPath(name).name.startswith("large_files"):
        return
    entries = document.get("large_files") if isinstance(document, dict) else None
    for entry in entries if isinstance(entries, list) else [entries]:
        path = str(dict(entry).get("path", "")) if isinstance(entry, dict | _Pairs) else ""
        if leads_out(path) or PurePosixPath(path).suffix.lower() not in WEIGHTS:
            yield Finding(name, "large_files", "path", f"{path!r}: to be fetched, but no weights")


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, with keys that are there twice."""


def _lint_values(file: str, value: Any, key: str = "", depth: int = 0) -> Iterator[Finding]:
    if depth > DEEPEST:
        yield Finding(file, key[:LONGEST], "config", "nested too deeply to be read")
    elif isinstance(value, _Pairs | dict):
        for name, item in value.items() if isinstance(value, dict) else value:
            place = f"{key}#{name}" if key else str(name)
            if not PLAIN_KEY.fullmatch(str(name)) and _may_paste_keys(item):
                yield Finding(file, key, "key", f"{str(name)[:LONGEST]!r} may become a part of an expression")
            last = re.split("#|::", str(name))[-1].strip("+~ ")
            yield from _lint_named(file, place, last, item)
            yield from _lint_values(file, item, place, depth + 1)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _lint_values(file, item, f"{key}#{number}", depth + 1)
    elif isinstance(value, str):
        yield from _lint_text(file, key, value)


def _may_paste_keys(value: Any) -> bool:
    """Whether MONAI would evaluate a text in it with a relative reference, or bring one in from elsewhere."""
    if isinstance(value, _Pairs | dict):
        value = [item for _, item in (value.items() if isinstance(value, dict) else value)]
    if isinstance(value, list | tuple):
        return any(map(_may_paste_keys, value))
    if not isinstance(value, str):
        return False
    return value.startswith("%") or (value.startswith("$") and RELATIVE.search(value) is not None)


def _lint_named(file: str, place: str, name: str, value: Any) -> Iterator[Finding]:
    """By the name of its key."""
    shown = str(value)[:LONGEST]
    if name == "_target_" and not is_allowed_target(value):
        yield Finding(file, place, "target", f"{shown} is not on the list of what may be called")
    if name == "_debug_":  # stops in a debugger, which reads a file of commands first
        yield Finding(file, place, "mode", f"_debug_ {shown}")
    if name == "_mode_" and value not in ("default", "callable"):
        yield Finding(file, place, "mode", shown)
    if name == "bundle_root" and not (isinstance(value, str) and ROOT.fullmatch(value)):
        yield Finding(file, place, "path", f"bundle_root {shown}: modules would be imported from there")
    if name in FILES_OF_RUNS and isinstance(value, str) and not value.endswith(FILES_OF_RUNS[name]):
        yield Finding(file, place, "loading", f"{name} {shown}: a file that is not judged as one of those")
    if name in LOOKED_UP and any(each not in READERS for each in _each(value)):
        yield Finding(file, place, name, f"{shown} would be looked up anywhere and called")
    is_harmless = value is None or value is (name == "weights_only")
    if name in LOADED_BY and not is_harmless:
        yield Finding(file, place, "loading", f"{name} {shown}: {LOADED_BY[name]}")


def _each(value: Any) -> list[Any]:
    """A text or None; what is neither cannot be judged, and is on no list."""
    return [
        item if isinstance(item, str | None) else repr(item) for item in (value if isinstance(value, list) else [value])
    ]


def is_allowed_target(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    if name in FUNCTIONS:
        return True
    if DANGEROUS.search(name.rpartition(".")[2]):
        return False
    of_module = CLASSES.fullmatch(name)
    if of_module is not None:
        return of_module["module"] not in sys.stdlib_module_names
    return BARE_CLASSES.fullmatch(name) is not None


def _lint_text(file: str, key: str, text: str) -> Iterator[Finding]:
    if text.startswith(("$", "%")):
        belongs = IMPORTS.fullmatch(key) is not None
        if OF_IMPORTS.search(text) or is_import(text) != belongs:
            yield Finding(file, key, "import", f"{text[:LONGEST]}: modules belong under imports, and stay there")
    if text.startswith("$"):
        if faults := dict.fromkeys(faults_of_expression(text)):
            yield Finding(file, key, "expression", f"{', '.join(faults)} in {text[:LONGEST]}")
    elif text.startswith("%") and leads_out(text[1:].replace("::", "#").partition("#")[0]):
        yield Finding(file, key, "include", f"{text[:LONGEST]} reads a file outside of the bundle")


def leads_out(path: str) -> bool:
    parts = path.replace("\\", "/").split("/")
    return ".." in parts or path.startswith(("/", "\\", "~")) or ":" in parts[0]
