"""What files hold, as one number: to know it again."""

import hashlib
from pathlib import Path


def file_hash(*paths: str | Path) -> str:
    """SHA-256, in hexadecimal, of the content of a file, or of several, one after the other."""
    known = hashlib.sha256()
    for path in paths:
        with Path(path).open("rb") as file:
            while chunk := file.read(2**20):
                known.update(chunk)
    return known.hexdigest()
