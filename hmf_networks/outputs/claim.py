"""One process at a time makes an output; what a killed one left behind is swept away."""

import contextlib
from pathlib import Path

from filelock import FileLock, Timeout


class Claim:
    """The right to make one file, held until `release`; the system ends it with the process."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock

    def release(self) -> None:
        """Also removes the lock's file, and folders that stayed empty. Whoever waits for it finds out."""
        if self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
            _remove_empty(self.path.parent)


def claim(path: Path, *, wait: bool = False) -> Claim | None:
    """The right to make `path`; None where another process has it, unless `wait`."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)
        with contextlib.suppress(FileNotFoundError):  # the folder was swept away at this very moment
            try:
                lock.acquire(blocking=wait, poll_interval=0.2)
            except Timeout:
                return None
            sweep(path)
            return Claim(path, lock)


def sweep(path: Path) -> None:
    """Remove part files of `path` and what stands beside it (`atomic.write_whole`); only under a claim."""
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    for part in path.parent.glob(f".{_literal(stem)}.*.part"):
        part.unlink(missing_ok=True)


def _literal(text: str) -> str:
    """For a glob: `[`, `*` and `?` of a file name stand for themselves."""
    return "".join(f"[{letter}]" if letter in "[*?" else letter for letter in text)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # it is not empty
        folder.rmdir()
