"""Files that are never seen half-written."""

import os
import re
import uuid
from pathlib import Path

PART_SUFFIX_BYTES = len(f"..{uuid.uuid4().hex}.part")  # that a part file's name is longer by


class FileChangedError(OSError):
    """A file is no longer what it was when work on it began."""


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Write a part file in the same folder, flush it to disk, then rename it; folders are made as needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part_path = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # unique among machines: see `sweep`
    try:
        with part_path.open("wb") as part:
            part.write(content.encode() if isinstance(content, str) else content)
            part.flush()
            os.fsync(part.fileno())
        part_path.replace(path)
    finally:
        part_path.unlink(missing_ok=True)


def sweep(path: str | Path) -> None:
    """Remove the part files of `path` that killed processes left; only where no other may be writing it."""
    path = Path(path)
    part_name = re.compile(re.escape(f".{path.name}.") + "[0-9a-f]{32}" + re.escape(".part"))
    with os.scandir(path.parent) as entries:
        parts = [entry.path for entry in entries if part_name.fullmatch(entry.name)]
    for part in parts:
        Path(part).unlink(missing_ok=True)
