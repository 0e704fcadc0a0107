"""What a study compares: data x tasks x methods x seeds under one budget, read from a page of JSON."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hmf_networks.naming import unknown_word

KEYS = ("_desc_", "data", "configs", "tasks", "methods", "seeds", "budget", "conditions")
SIMULATED = {"subjects": 16, "seed": 1, "spacing_mm": 2.0}  # of data that names no folder


class Method(NamedTuple):
    """A network as overlays over train.json and keys that are set after them."""

    configs: list[str]
    overrides: dict[str, Any]


class Study(NamedTuple):
    """The page, checked. The first method is the one that the others are held against.

    Attributes:
        name: of the file.
        data: {"subjects", "seed", "spacing_mm"} to simulate, or {"dataset_dir"}.
        configs: overlays that every run has, first.
        tasks: name -> overlays.
        methods: name -> overlays and overrides of its own.
        seeds: of each a run.
        budget: config keys that are alike for all: epochs, slices, batch, learning rate.
        conditions: name -> config keys of a further scoring of the same weights, e.g. on corrupted sources.
    """

    name: str
    data: dict[str, Any]
    configs: list[str]
    tasks: dict[str, list[str]]
    methods: dict[str, Method]
    seeds: list[int]
    budget: dict[str, Any]
    conditions: dict[str, dict[str, Any]]


class Run(NamedTuple):
    """One training and its scores."""

    task: str
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.task}, {self.method}, seed {self.seed}"


def read_study(path: Path, configs: Path) -> Study:
    """The study of a file; a bare name is one of those in `configs`/studies.

    Raises:
        ValueError: no such study, an unknown key, an overlay that is not there; in one line.
    """
    shipped = {file.stem: file for file in sorted((configs / "studies").glob("*.json"))}
    file = path if path.is_file() else shipped.get(str(path))
    if file is None:
        raise ValueError(unknown_word("study", str(path), shipped) + "; or name a JSON file")
    try:
        page = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON: {error}") from None
    for key in page:
        if key not in KEYS:
            raise ValueError(f"{file}: {unknown_word('key', key, KEYS)}")
    for key, kind in {"tasks": dict, "methods": dict}.items():
        if not isinstance(page.get(key), kind) or not page[key]:
            raise ValueError(f"{file}: {key} must name at least one, as in studies/smoke.json")
    methods = {name: _method(content) for name, content in page["methods"].items()}
    study = Study(
        file.stem,
        dict(page.get("data") or SIMULATED),
        _listed(page.get("configs", [])),
        {name: _listed(overlays) for name, overlays in page["tasks"].items()},
        methods,
        [int(seed) for seed in page.get("seeds", [0])],
        dict(page.get("budget", {})),
        {name: dict(changes) for name, changes in page.get("conditions", {}).items()},
    )
    for overlay in _overlays(study):
        if not (configs / overlay).is_file():
            raise ValueError(f"{file}: {configs / overlay} is not there")
    return study


def runs_of(study: Study) -> Iterator[Run]:
    """Task by task, so that a table is whole as early as can be."""
    for task in study.tasks:
        for seed in study.seeds:
            for method in study.methods:
                yield Run(task, method, seed)


def _method(content: Any) -> Method:
    """`["networks/hinet.json"]`, or `{"configs": [...], "set": {key: value}}`."""
    if isinstance(content, Mapping):
        return Method(_listed(content.get("configs", [])), dict(content.get("set", {})))
    return Method(_listed(content), {})


def _listed(overlays: str | list[str]) -> list[str]:
    return [overlays] if isinstance(overlays, str) else [str(name) for name in overlays]


def _overlays(study: Study) -> Iterator[str]:
    yield from study.configs
    for overlays in study.tasks.values():
        yield from overlays
    for method in study.methods.values():
        yield from method.configs
