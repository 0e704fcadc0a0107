"""Files that are never seen half-written."""

import os
import uuid
from pathlib import Path


def write_whole(path: str | Path, content: bytes | str) -> None:
    """Write a part file in the same folder, flush it to disk, then rename it; folders are made as needed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part_path = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # unique among machines
    try:
        with part_path.open("wb") as part:
            part.write(content.encode() if isinstance(content, str) else content)
            part.flush()
            os.fsync(part.fileno())
        part_path.replace(path)
    finally:
        part_path.unlink(missing_ok=True)
