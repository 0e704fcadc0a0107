"""The results files of the benchmarks, which a model card is made of: what was measured, of which weights."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hmf_networks.naming import unknown_word

VIEWS = {  # file -> tables that can be made of it; the first one where none is named
    "held_out": ("volume", "affine"),
    "held_out_simulation_only": ("volume", "affine"),
    "simulated": ("volume", "affine", "lesions", "decoding"),
    "uncertainty": ("uncertainty",),
    "volume": ("speed",),
}
OTHER_WEIGHTS = ("held_out_simulation_only",)  # than those that are shipped
HASH = "weights_sha256"

Results = dict[str, dict[str, Any]]


def read_results(folder: Path) -> Results:
    """Content by name of the files that are there.

    Raises:
        ValueError: one of them is no JSON object.
    """
    results = {}
    for name in VIEWS:
        path = folder / f"{name}.json"
        if path.is_file():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{path} cannot be read ({error}); measure again") from error
            if not isinstance(content, dict):
                raise ValueError(f"{path} is no JSON object; measure again")
            results[name] = content
    return results


def view_of(what: str) -> tuple[str, str]:
    """File and view that a marker names, "held_out" or "held_out affine"; ValueError for others."""
    name, _, view = what.strip().partition(" ")
    if name not in VIEWS:
        raise ValueError(unknown_word("results file", name, VIEWS))
    if view and view not in VIEWS[name]:
        raise ValueError(unknown_word(f"table of {name}", view, VIEWS[name]))
    return name, view or VIEWS[name][0]


def weights_hash(content: Mapping[str, Any]) -> str | None:
    """SHA-256 of the weights that were measured, wherever the file says so."""
    return next((str(value) for key, value in _pairs(content) if key == HASH and value), None)


def _pairs(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        for key, value in content.items():
            yield str(key), value
            yield from _pairs(value)
