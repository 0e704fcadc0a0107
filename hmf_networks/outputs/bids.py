"""What makes an output folder a BIDS derivative dataset: dataset_description.json, .bidsignore, sidecars.

BIDS 1.10, "Derivatives". The validator judges the result in tests/test_bids.py.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hmf_networks.atomic import write_whole
from hmf_networks.naming import GENERATOR, beside

VERSION = "1.10.0"
IGNORED = ("manifest.json", "errors.json", "*.png", "*_synth.*", "*_synth_error.*")  # ours, and no part of BIDS
DESCRIPTION = {
    "Name": "Synthetic MRI contrasts",
    "BIDSVersion": VERSION,
    "DatasetType": "derivative",
    "GeneratedBy": [GENERATOR],
}
README = """Synthetic MRI contrasts, computed from acquired ones by hmf_networks.

Research only, not for diagnosis.

manifest.json tells what was made of which file; errors.json, where it is there, what could not be made.
"""

FILES = {
    ".bidsignore": "\n".join(IGNORED) + "\n",
    "README.md": README,
    "dataset_description.json": json.dumps(DESCRIPTION, indent=2) + "\n",
}


def is_described(folder: Path) -> bool:
    return all((folder / name).exists() for name in FILES)


def describe(folder: Path) -> None:
    """Write what belongs to the dataset as a whole, where it is not there yet."""
    for name, content in FILES.items():
        if not (folder / name).exists():
            write_whole(folder / name, content)


def dataset_of(path: str | Path) -> Path | None:
    """The dataset that a file named as in BIDS lies in: the folder above its sub-*."""
    return next((folder.parent for folder in Path(path).parents if folder.name.startswith("sub-")), None)


def read_sidecar(path: Path) -> dict[str, Any]:
    """What stands beside a volume; nothing where that is not there or broken."""
    try:
        content = json.loads(beside(path, ".json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def is_ours(sidecar: Mapping[str, Any]) -> bool:
    """Whether this package, of whatever version, wrote it."""
    generator = sidecar.get("GeneratedBy")
    return isinstance(generator, dict) and generator.get("Name") == GENERATOR["Name"]
