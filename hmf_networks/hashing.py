"""What a file holds, as one number: to know it again."""

import hashlib
from pathlib import Path


def file_hash(path: str | Path) -> str:
    """SHA-256 of the content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
