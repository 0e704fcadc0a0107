"""Where a benchmark ran, and a table and a file of what it found."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch


def describe() -> dict[str, Any]:
    """Processor, what torch makes of it, threads and load."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else "unknown",
        "capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
    }


def report(
    title: str, columns: Sequence[str], rows: Mapping[str, Mapping[str, float]], path: Path | None, **more: Any
) -> None:
    """Print the rows' `columns` as a Markdown table; write everything, and `more`, as JSON to `path`."""
    machine = more.pop("machine", None) or describe()
    print(f"{title}\n{machine}\n")
    print(f"| | {' | '.join(columns)} |\n|---|{'--:|' * len(columns)}")
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(f'{row[column]:.3g}' for column in columns)} |")
    if path is not None:
        content = {"title": title, **more, "machine": machine, "rows": rows}
        path.write_text(json.dumps(content, indent=1) + "\n")
