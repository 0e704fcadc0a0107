"""One volume under `ulimit -v`: planes at a time, warnings, and the difference to the result without a limit.

    python benchmarks/memory_limit.py [--megabytes 1000 300 150 100 60] [--width 16] [--threads 1]

Eight planes of 256 x 256 pixels in float32, through a network of random weights. Megabytes are what is left
to the process once everything is imported and the network is made. Differences are in parts of the range.
"""

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RANGE = 2.0  # the network answers in [-1, 1]


def run_once(megabytes: int, batch_size: int, width: int, threads: int, result: Path) -> dict[str, Any]:
    """In a process of its own: what happened; the volume goes to `result`. No limit for 0 megabytes."""
    import torch
    from hmf_networks.engines import SliceSynthesisInferer
    from hmf_networks.engines.memory import keep_freed_memory
    from hmf_networks.nets import HMFMambaINR

    taken, warnings = [], []

    class Watched(SliceSynthesisInferer):
        def _planes(self, planes: torch.Tensor, *arguments: Any) -> torch.Tensor:
            decoded = super()._planes(planes, *arguments)
            taken.append(len(planes))
            return decoded

    class Notes(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warnings.append(record.getMessage())

    logging.getLogger("hmf_networks").addHandler(Notes(logging.WARNING))
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    keep_freed_memory(33)  # as inference.json
    network = HMFMambaINR(2, 2, 1, width=width, append_foreground=True).eval()
    volume = torch.rand(1, 2, 256, 256, 8) * 2 - 1
    if megabytes:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 2**20,) * 2)
    error = ""
    try:
        with torch.inference_mode():
            torch.save(Watched(batch_size=batch_size or None)(volume, network), result)
    except (MemoryError, RuntimeError) as raised:
        error = f"{type(raised).__name__}: {raised}".splitlines()[0]
    return {"taken": taken, "warnings": warnings, "error": error}


def in_its_own_process(options: argparse.Namespace, megabytes: int, batch_size: int, result: Path) -> str:
    """A row of the table."""
    sizes = [str(x) for x in (megabytes, batch_size, options.width, options.threads)]
    command = [sys.executable, __file__, "--child", *sizes, str(result)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"ended with {done.returncode} | {(done.stderr.strip().splitlines() or [''])[-1]} | |"
    found = json.loads(done.stdout.splitlines()[-1])
    return f"{found['taken']} | {'; '.join(found['warnings'])} | {found['error']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[1000, 300, 150, 100, 60])
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(run_once(*map(int, options.child[:4]), Path(options.child[4]))))
        return
    import torch

    with tempfile.TemporaryDirectory() as folder:
        free, limited = Path(folder, "free.pt"), Path(folder, "limited.pt")
        in_its_own_process(options, 0, 8, free)
        print("| MB | batch_size | planes taken | warnings | error | difference |\n|--:|--:|---|---|---|--:|")
        for megabytes in options.megabytes:
            for batch_size in (8, 0):
                limited.unlink(missing_ok=True)
                row = in_its_own_process(options, megabytes, batch_size, limited)
                apart = ""
                if limited.exists():
                    apart = f"{float((torch.load(limited) - torch.load(free)).abs().max()) / RANGE:.1e}"
                print(f"| {megabytes} | {batch_size or 'null'} | {row} | {apart} |", flush=True)


if __name__ == "__main__":
    main()
