"""How our reader, `hmf check` and the stock readers judge the torture set of tests/torture.

    python benchmarks/torture.py [FOLDER] [--json OUT]
    python benchmarks/torture.py --codes

Writes every case into a folder of its own in FOLDER, reads each in a process of its own (ours: 10 s and 3 GiB
of address space; stock: see torture_stock.py), and prints Markdown: a row for each kind, and each bomb with
its seconds and what it added to the memory of an idle reader. Ends with 1 unless every verdict of ours is as
it should be. `--codes` prints the table of codes for docs/reliability.md and does nothing else.
"""

import argparse
import collections
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # `torture` is the package there

from hmf_networks.nifti.codes import ERRORS, WARNINGS, VolumeError
from hmf_networks.nifti.read import examine
from torture.case import Case, passes, simulated_head, write_files
from torture.ours import CASES as OURS
from torture.stranger import CASES as STRANGE

SECONDS = 10.0
ADDRESS_SPACE_BYTES = 3 << 30
CHECK_SECONDS = 600
CASES = {case.name: case for case in STRANGE + OURS}
STOCK = ("nibabel", "NibabelReader", "LoadImage")

Entry = dict[str, Any]


def entries() -> list[Entry]:
    """The expected verdicts, as torture_stock.py wants them."""
    volume = simulated_head()
    return [
        {
            "path": f"{case.name}/{next(iter(case.files(volume)))}",
            "name": case.name,
            "kind": case.kind,
            "author": "stranger" if case in STRANGE else "ours",
            "verdict": case.verdict,
            "codes": sorted(case.codes),
        }
        for case in CASES.values()
    ]


def write_all(folder: Path) -> None:
    volume, expected = simulated_head(), entries()
    for case in CASES.values():
        (folder / case.name).mkdir(parents=True)
        write_files(case, volume, folder / case.name)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def in_child(work: Callable[..., None], *arguments: Any, seconds: float | None = None) -> Entry:
    """What `work` sends from a process of its own, so that ours keeps no memory of it."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=work, args=(sender, *arguments))
    child.start()
    sender.close()
    try:
        result = receiver.recv() if receiver.poll(seconds) else {"outcome": "hang"}
    except EOFError:
        result = {"outcome": "died"}
    if result["outcome"] == "hang":
        child.kill()
    child.join()
    return result


def write_in_child(sender: Connection, folder: Path) -> None:
    write_all(folder)
    sender.send({"outcome": "written"})


def judge_in_child(sender: Connection, case: Case, path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE_BYTES, ADDRESS_SPACE_BYTES))
    before, start = peak_mb(), time.perf_counter()
    result: Entry = {"outcome": "traceback", "used": False, "codes": []}
    try:
        read = examine(path)
    except VolumeError as error:
        result |= {"outcome": "refused", "codes": [error.code]}
    except BaseException as error:  # noqa: BLE001 - whatever else comes out of the reader is what is sought
        result |= {"exception": repr(error)}
    else:
        codes = sorted({warned.code for warned in read.warnings})
        result |= {"outcome": "used", "used": True, "codes": codes}
    result |= {"seconds": round(time.perf_counter() - start, 3), "mb": round(peak_mb() - before, 1)}
    result["wrong"] = not passes(case, used=result["used"], codes=result["codes"])
    if result["used"] and not result["wrong"]:
        result["wrong"] = not holds_what_it_should(case, read.values, read.header.affine)
    sender.send(result)


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def holds_what_it_should(case: Case, values: np.ndarray, affine: np.ndarray) -> bool:
    expected, expected_affine = case.expected(simulated_head())
    if values.shape != expected.shape:
        return False
    finite = np.isfinite(expected)
    largest = np.abs(expected[finite]).max()
    close = np.allclose(values[finite] / largest, expected[finite] / largest, rtol=0, atol=1e-5)
    return close and (expected_affine is None or np.allclose(affine, expected_affine, rtol=0, atol=1e-4))


def judge_all(folder: Path, expected: Iterable[Entry]) -> list[Entry]:
    found = []
    for entry in expected:
        case = CASES[entry["name"]]
        result = in_child(judge_in_child, case, folder / entry["path"], seconds=SECONDS)
        found.append(entry | {"ours": {"wrong": True} | result})
    return found


def check_all(folder: Path, found: Iterable[Entry]) -> list[Entry]:
    """The verdicts of `hmf check FOLDER --json`; of a file that it does not list there is none."""
    command = [sys.executable, "-m", "hmf_networks", "check", str(folder), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=CHECK_SECONDS, check=False)
    if run.returncode not in (0, 2):
        raise RuntimeError(f"{' '.join(command)} ended with {run.returncode}: {run.stderr[-2000:]}")
    listed = {Path(entry["path"]): entry for entry in json.loads(run.stdout)["files"]}
    return [entry | {"check": checked(entry, listed)} for entry in found]


def checked(entry: Entry, listed: dict[Path, Entry]) -> Entry | None:
    path = Path(entry["path"])
    verdict = listed.get(path) or listed.get(path.with_suffix(".hdr"))
    if verdict is None:
        return None
    used = verdict["verdict"] != "reject"
    wrong = not passes(CASES[entry["name"]], used=used, codes=verdict["codes"])
    return {"verdict": verdict["verdict"], "codes": verdict["codes"], "wrong": wrong}


def row(found: list[Entry]) -> list[int]:
    ours, check = [entry["ours"] for entry in found], [entry["check"] for entry in found]
    cells = [len(found), sum(one["wrong"] for one in ours)]
    cells += [sum(one["outcome"] in kinds for one in ours) for kinds in (("traceback", "died"), ("hang",))]
    cells += [sum(one is not None for one in check), sum(one is not None and one["wrong"] for one in check)]
    for verdict, wrong in (("reject", ("accepted",)), ("accept", ("refused", "hang", "out of memory", "died"))):
        some = [entry["stock"] for entry in found if entry["verdict"] == verdict]
        cells += [len(some), *(sum(one[way]["outcome"] in wrong for one in some) for way in STOCK)]
    return cells


def tables(found: list[Entry], table: Callable[[list[str], dict[str, list[Any]]], str]) -> str:
    by_kind, by_author = collections.defaultdict(list), collections.defaultdict(list)
    for entry in found:
        by_kind[entry["kind"]].append(entry)
        by_author[f"all by {'the stranger' if entry['author'] == 'stranger' else 'us'}"].append(entry)
    head = ["kind", "cases", "ours: wrong", "tracebacks", "hangs", "listed by `hmf check`", "wrong"]
    head += ["to reject", *(f"taken by {way}" for way in STOCK)]
    head += ["to accept", *(f"not read by {way}" for way in STOCK)]
    rows = {name: row(some) for name, some in (by_kind | by_author | {"all": found}).items()}
    bombs = {}
    for entry in by_kind["bomb"]:
        ours, stock = entry["ours"], [entry["stock"][way] for way in STOCK]
        cells = [" ".join(ours["codes"]) or ours["outcome"], f"{ours.get('seconds', SECONDS):.2f}"]
        cells += [f"{ours.get('mb', float('nan')):.0f}"]
        bombs[entry["name"]] = cells + [f"{one['outcome']}, {one['seconds']:.1f} s" for one in stock]
    return f"{table(head, rows)}\n\n{table(['bomb', 'ours', 'seconds', 'MB', *STOCK], bombs)}"


def wrong(found: Iterable[Entry]) -> list[str]:
    return [
        f"{entry['name']}: {entry['verdict']} {entry['codes']}, but {name}: {entry[name]}"
        for entry in found
        for name in ("ours", "check")
        if entry[name] is not None and entry[name]["wrong"]
    ]


def table_of_codes() -> str:
    errors = [f"| `{code}` | {fault.meaning} | {fault.cure} |" for code, fault in ERRORS.items()]
    warnings = [f"| `{code}` | {meaning} |" for code, meaning in WARNINGS.items()]
    refused = ["| refused with | meaning | what to do |", "|---|---|---|", *errors]
    told = ["| used, and told | meaning |", "|---|---|", *warnings]
    return "\n".join([*refused, "", *told])


def run(folder: Path, out: Path | None) -> bool:
    """Print the tables; whether all verdicts of ours are right."""
    in_child(write_in_child, folder)
    expected = json.loads((folder / "expected.json").read_text())
    found = check_all(folder, judge_all(folder, expected))
    import torture_stock  # here, because torch would weigh on the memory of our own readers
    from machine import describe

    found = torture_stock.read_all(folder, found)
    results = {"machine": describe(), "software": torture_stock.software(), "files": found}
    if out is not None:
        out.write_text(json.dumps(results, indent=1) + "\n")
    print(f"{results['machine']}\n{results['software']}\n\n{tables(found, torture_stock.table)}\n")
    unlisted = [entry["name"] for entry in found if entry["check"] is None]
    print(f"not listed by `hmf check`: {', '.join(unlisted)}\n")
    print("\n".join(wrong(found)) or "no wrong verdict")
    return not wrong(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", help="a new one; by default a temporary one")
    parser.add_argument("--json", type=Path, help="where to write what became of every file")
    parser.add_argument("--codes", action="store_true", help="print the table of codes")
    options = parser.parse_args()
    if options.codes:
        print(table_of_codes())
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        sys.exit(0 if run(folder, options.json) else 1)


if __name__ == "__main__":
    main()
