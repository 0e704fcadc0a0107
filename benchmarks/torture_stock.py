"""What stock MONAI and nibabel do with broken, odd and hostile files: how many wrong ones they take.

    python benchmarks/torture_stock.py FOLDER EXPECTED.json [--json stock.json]

EXPECTED.json is a list of {"path", "name", "kind", "verdict", "codes"}, paths in FOLDER; the verdict is
accept, warn (usable, with something to tell) or reject. Each file is read in a process of its own, which is
stopped after 20 s (a "hang") and gets 6 GiB of address space, one of them for torch itself.
"""

import argparse
import collections
import json
import multiprocessing
import os
import resource
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import monai
import nibabel
import numpy as np
import torch
from monai.transforms import LoadImage

SECONDS = 20.0
ADDRESS_SPACE_BYTES = 6 << 30
VERDICTS = {"reject": "accepted", "accept": "refused", "warn": "refused"}  # verdict: what counts as wrong
OUTCOMES = ("accepted", "refused", "hang", "out of memory", "died")
NO_MEMORY = ("MemoryError", "can't allocate memory", "Unable to allocate", "Cannot allocate memory")


def by_nibabel(path: str) -> np.ndarray:
    return nibabel.load(path).get_fdata()


def by_nibabel_reader(path: str) -> torch.Tensor:
    return LoadImage(reader="NibabelReader")(path)


def by_default_reader(path: str) -> torch.Tensor:
    return LoadImage()(path)


WAYS: dict[str, Callable[[str], Any]] = {
    "nibabel": by_nibabel,
    "NibabelReader": by_nibabel_reader,
    "LoadImage": by_default_reader,
}


def read_in_child(sender: Connection, way: str, path: str) -> None:
    """Send what became of one file; nothing the readers print gets out."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    try:
        shape = list(WAYS[way](path).shape)
    except BaseException as error:  # noqa: BLE001 - whatever a reader raises is a result here
        no_memory = any(word in f"{type(error).__name__} {error}" for word in NO_MEMORY)
        outcome = "out of memory" if no_memory else "refused"
        sender.send({"outcome": outcome, "exception": type(error).__name__})
    else:
        sender.send({"outcome": "accepted", "shape": shape})


def outcome_of(way: str, path: str) -> dict[str, Any]:
    """Read one file in a child; its outcome and the seconds it took."""
    context = multiprocessing.get_context("fork")  # a child starts in milliseconds, with torch already there
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=read_in_child, args=(sender, way, path))
    start = time.perf_counter()
    child.start()
    sender.close()
    try:
        result = receiver.recv() if receiver.poll(SECONDS) else {"outcome": "hang"}
    except EOFError:
        child.join()
        result = {"outcome": "died", "exit_code": child.exitcode}
    if result["outcome"] == "hang":
        child.kill()
    child.join()
    receiver.close()
    return result | {"seconds": round(time.perf_counter() - start, 3)}


def read_all(folder: Path, expected: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for entry in expected:
        path = str(folder / entry["path"])
        found.append(entry | {"stock": {way: outcome_of(way, path) for way in WAYS}})
    return found


def count(entries: list[dict[str, Any]], verdict: str, way: str, outcome: str) -> int:
    return sum(entry["verdict"] == verdict and entry["stock"][way]["outcome"] == outcome for entry in entries)


def row(entries: list[dict[str, Any]]) -> list[int]:
    """For each verdict: how many files, and how many of them each way gets wrong."""
    cells = []
    for verdict, wrong in VERDICTS.items():
        cells.append(sum(entry["verdict"] == verdict for entry in entries))
        cells.extend(count(entries, verdict, way, wrong) for way in WAYS)
    return cells


def table(head: list[str], rows: dict[str, list[int]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|---|{'--:|' * (len(head) - 1)}"]
    return "\n".join(lines + [f"| {name} | {' | '.join(map(str, cells))} |" for name, cells in rows.items()])


def tables(found: list[dict[str, Any]]) -> str:
    """Markdown: wrong verdicts by kind, then the outcomes of the files that should be refused."""
    by_kind = collections.defaultdict(list)
    for entry in found:
        by_kind[entry["kind"]].append(entry)
    head = ["kind"]
    for verdict, wrong in VERDICTS.items():
        head += [f"to {verdict}", *(f"{wrong} by {way}" for way in WAYS)]
    rows = {kind: row(entries) for kind, entries in by_kind.items()} | {"all": row(found)}
    outcomes = {
        f"{way}, to {verdict}": [count(found, verdict, way, outcome) for outcome in OUTCOMES]
        for way in WAYS
        for verdict in VERDICTS
    }
    return f"{table(head, rows)}\n\n{table(['reader', *OUTCOMES], outcomes)}"


def software() -> dict[str, Any]:
    optional = {name: find_spec(name) is not None for name in ("itk", "pydicom", "PIL", "nrrd")}
    versions = {module.__name__: module.__version__ for module in (monai, nibabel, np, torch)}
    return versions | {f"has {name}": there for name, there in optional.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("expected", type=Path, help="list of {path, name, kind, verdict, codes}")
    parser.add_argument("--json", type=Path, help="where to write the outcome of every file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = read_all(options.folder, json.loads(options.expected.read_text()))
    limits = {"seconds": SECONDS, "address_space_bytes": ADDRESS_SPACE_BYTES}
    if options.json is not None:
        results = {"software": software(), "limits": limits, "files": found}
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{software()}\n{limits}\n\n{tables(found)}")


if __name__ == "__main__":
    main()
