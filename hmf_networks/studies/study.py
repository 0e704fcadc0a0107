"""What a study compares: data x tasks x methods x seeds under one budget, read from a page of JSON."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hmf_networks.naming import unknown_word

KEYS = ("_desc_", "data", "configs", "tasks", "methods", "seeds", "budget", "conditions")
SIMULATED = {"subjects": 16, "seed": 1, "spacing_mm": 2.0}  # of data that names no folder
Settings = dict[str, Any]  # config key -> value


class Method(NamedTuple):
    """A network as overlays over train.json and keys that are set after them."""

    configs: list[str]
    overrides: Settings


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
    data: Settings
    configs: list[str]
    tasks: dict[str, list[str]]
    methods: dict[str, Method]
    seeds: list[int]
    budget: Settings
    conditions: dict[str, Settings]


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
        ValueError: no such study, an unknown key, a value of another kind, an overlay that is not there; in one line.
    """
    shipped = {file.stem: file for file in sorted((configs / "studies").glob("*.json"))}
    file = path if path.is_file() else shipped.get(str(path))
    if file is None:
        raise ValueError(unknown_word("study", str(path), shipped) + "; or name a JSON file")
    try:
        return _checked(file.stem, json.loads(file.read_text(encoding="utf-8")), configs)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


def runs_of(study: Study) -> Iterator[Run]:
    """Task by task, so that a table is whole as early as can be."""
    for task in study.tasks:
        for seed in study.seeds:
            for method in study.methods:
                yield Run(task, method, seed)


def file_name(words: str) -> str:
    """A name for people as a name of a folder: "w/o RHMB" -> "w_o_RHMB"."""
    return re.sub(r"[^\w.+-]+", "_", words.replace("->", "_to_"))


def _checked(name: str, page: Any, configs: Path) -> Study:
    _known(_mapping("a study", page), "key", KEYS)
    data = _known(_mapping("data", page.get("data", SIMULATED)), "key of data", (*SIMULATED, "dataset_dir"))
    tasks, methods = (_named(key, page.get(key)) for key in ("tasks", "methods"))
    if not tasks or not methods:
        raise ValueError("tasks and methods must name at least one each, as in studies/smoke.json")
    study = Study(
        name,
        data,
        _overlays("configs", page.get("configs", []), configs),
        {task: _overlays(task, overlays, configs) for task, overlays in tasks.items()},
        {method: _method(method, content, configs) for method, content in methods.items()},
        page.get("seeds", [0]),
        _mapping("budget", page.get("budget", {})),
        {c: _mapping(c, changes) for c, changes in _named("conditions", page.get("conditions", {})).items()},
    )
    if not (isinstance(study.seeds, list) and study.seeds and all(type(seed) is int for seed in study.seeds)):
        raise ValueError(f"seeds must be a list of whole numbers, as [0, 1, 2], not {study.seeds!r}")
    _check_settings(study, configs)
    return study


def _check_settings(study: Study, configs: Path) -> None:
    """Keys that no config has would be set without a word, and change nothing."""
    overlays = {*study.configs, *(name for some in study.tasks.values() for name in some)}
    overlays |= {name for method in study.methods.values() for name in method.configs}
    pages = [json.loads((configs / name).read_text(encoding="utf-8")) for name in ("train.json", *sorted(overlays))]
    scoring = json.loads((configs / "evaluate.json").read_text(encoding="utf-8"))
    known = {key.partition("#")[0] for page in (*pages, scoring) for key in page}
    for settings in (
        study.budget,
        *(method.overrides for method in study.methods.values()),
        *study.conditions.values(),
    ):
        for key in settings:
            _known({key.partition("#")[0]: 0}, "config key", known)
    corruption = [f"corruption#{key}" for key in scoring["corruption"]]
    for changes in study.conditions.values():
        _known({key: 0 for key in changes if key.startswith("corruption")}, "config key", corruption)


def _method(name: str, content: Any, configs: Path) -> Method:
    """`["networks/hinet.json"]`, or `{"configs": [...], "set": {key: value}}`."""
    if isinstance(content, Mapping):
        _known(content, f"key of {name}", ("configs", "set"))
        overlays = _overlays(name, content.get("configs", []), configs)
        return Method(overlays, _mapping(f"set of {name}", content.get("set", {})))
    return Method(_overlays(name, content, configs), {})


def _overlays(what: str, overlays: Any, configs: Path) -> list[str]:
    names = [overlays] if isinstance(overlays, str) else overlays
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise ValueError(f"{what} must be a list of overlays, as ['networks/hinet.json'], not {overlays!r}")
    for name in names:
        if not (configs / name).is_file():
            raise ValueError(f"{what}: {configs / name} is not there")
    return names


def _named(key: str, content: Any) -> dict[str, Any]:
    """Names that are different folders, too."""
    folders: dict[str, str] = {}
    for name in _mapping(key, content if content is not None else {}):
        folder = file_name(name).casefold()
        if not folder.strip("._"):
            raise ValueError(f"{key}: {name!r} is no name")
        if folder in folders:
            raise ValueError(f"{key}: {name!r} and {folders[folder]!r} would share a folder; call one otherwise")
        folders[folder] = name
    return dict(content or {})


def _mapping(what: str, content: Any) -> Settings:
    if not isinstance(content, dict):
        raise ValueError(f"{what} must be an object with names, not {content!r}")
    return dict(content)


def _known(content: Mapping[str, Any], kind: str, known: Collection[str]) -> Settings:
    for key in content:
        if key not in known:
            raise ValueError(unknown_word(kind, key, known))
    return dict(content)
