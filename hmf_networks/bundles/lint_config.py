"""Configs in MONAI's syntax: every text that it would evaluate, call, import or read from elsewhere."""

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from hmf_networks.bundles.allowed import BARE_CLASSES, CLASSES, DANGEROUS, FUNCTIONS, READERS, WEIGHTS
from hmf_networks.bundles.finding import Finding
from hmf_networks.bundles.lint_expression import faults_of_expression

KEY = re.compile(
    r"[\w .,+~#:/=<>-]*"
)  # a key is pasted into expressions of relative ids (@#): no quote, no bracket
LOADED_BY = {"workflow_name": "names code to run", "allow_pickle": "unpickles", "weights_only": "unpickles"}
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


def lint_yaml(name: str, content: bytes) -> Iterator[Finding]:
    try:
        import yaml  # type: ignore[import-untyped]
    except ImportError:
        yield Finding(name, "", "config", "YAML cannot be read here: pip install pyyaml")
        return
    try:
        documents = list(yaml.safe_load_all(content.decode("utf-8")))
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        yield Finding(name, "", "config", f"cannot be read ({' '.join(str(error).split())})")
        return
    for document in documents:
        yield from _lint_values(name, document)
    if PurePosixPath(name).stem == "large_files":
        for entry in (documents[0] or {}).get("large_files", []) if isinstance(documents[0], dict) else []:
            path = str(entry.get("path", "")) if isinstance(entry, dict) else str(entry)
            if leads_out(path) or PurePosixPath(path).suffix.lower() not in WEIGHTS:
                yield Finding(name, "large_files", "path", f"{path}: to be fetched, but no weights")


class _Pairs(list[tuple[str, Any]]):
    """A JSON object, with keys that are there twice."""


def _lint_values(file: str, value: Any, key: str = "", depth: int = 0) -> Iterator[Finding]:
    if depth > DEEPEST:
        yield Finding(file, key[:LONGEST], "config", "nested too deeply to be read")
    elif isinstance(value, _Pairs | dict):
        for name, item in value.items() if isinstance(value, dict) else value:
            place = f"{key}#{name}" if key else str(name)
            if not KEY.fullmatch(str(name)):
                yield Finding(file, key, "key", f"{str(name)[:LONGEST]!r} may become a part of an expression")
            last = re.split("#|::", str(name))[-1].strip("+~ ")
            yield from _lint_named(file, place, last, item)
            yield from _lint_values(file, item, place, depth + 1)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _lint_values(file, item, f"{key}#{number}", depth + 1)
    elif isinstance(value, str):
        yield from _lint_text(file, key, value)


def _lint_named(file: str, place: str, name: str, value: Any) -> Iterator[Finding]:
    """By the name of its key."""
    shown = str(value)[:LONGEST]
    if name == "_target_" and not is_allowed_target(value):
        yield Finding(file, place, "target", f"{shown} is not on the list of what may be called")
    if name == "_debug_":  # stops in a debugger, which reads a file of commands first
        yield Finding(file, place, "mode", f"_debug_ {shown}")
    if name == "_mode_" and value not in ("default", "callable"):
        yield Finding(file, place, "mode", shown)
    if name in ("reader", "writer") and any(each not in READERS for each in _each(value)):
        yield Finding(file, place, name, f"{shown} would be looked up anywhere and called")
    is_harmless = value is None or value is (name == "weights_only")
    if name in LOADED_BY and not is_harmless:
        yield Finding(file, place, "loading", f"{name} {shown}: {LOADED_BY[name]}")


def _each(value: Any) -> list[Any]:
    """A text or None; what is neither cannot be judged, and is on no list."""
    return [
        item if isinstance(item, str | None) else repr(item)
        for item in (value if isinstance(value, list) else [value])
    ]


def is_allowed_target(name: Any) -> bool:
    if not isinstance(name, str):
        return False
    if name in FUNCTIONS:
        return True
    return bool(CLASSES.fullmatch(name) or BARE_CLASSES.fullmatch(name)) and not DANGEROUS.fullmatch(name)


def _lint_text(file: str, key: str, text: str) -> Iterator[Finding]:
    if text.startswith("$"):
        for fault in faults_of_expression(text):
            yield Finding(file, key, "expression", f"{fault} in {text[:LONGEST]}")
    elif text.startswith("%") and leads_out(text[1:].replace("::", "#").partition("#")[0]):
        yield Finding(file, key, "include", f"{text[:LONGEST]} reads a file outside of the bundle")


def leads_out(path: str) -> bool:
    parts = path.replace("\\", "/").split("/")
    return ".." in parts or path.startswith(("/", "\\", "~")) or ":" in parts[0]
