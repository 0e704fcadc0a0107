"""One process at a time makes an output; what a killed one left behind is swept away."""

import contextlib
import stat
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout


class Claim:
    """The right to make one file, held until `release`; the system ends it with the process."""

    def __init__(self, path: Path, lock: FileLock, folders: Sequence[Path]) -> None:
        self.path = path
        self._lock, self._folders = lock, folders

    def release(self) -> None:
        """Also removes the lock's file, and folders that stayed empty. Whoever waits for it finds out."""
        if self._lock.is_locked:
            Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
            _remove_empty(self._folders)


def claim(path: Path, *, wait: bool = False) -> Claim | None:
    """The right to make `path`; None where another process has it, unless `wait`."""
    while True:
        folders = [path.parent, *(folder for folder in path.parents[1:] if not folder.exists())]
        with contextlib.suppress(FileNotFoundError):  # a folder was swept away at this very moment
            _make(path.parent)
            lock = FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)
            try:
                lock.acquire(blocking=wait, poll_interval=0.2)
            except Timeout:
                return None
            sweep(path)
            return Claim(path, lock, folders)


def sweep(path: Path) -> None:
    """Remove part files of `path` and what stands beside it (`atomic.write_whole`); only under a claim."""
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    for part in path.parent.glob(f".{_literal(stem)}.*.part"):
        part.unlink(missing_ok=True)


def _literal(text: str) -> str:
    """For a glob: `[`, `*` and `?` of a file name stand for themselves."""
    return "".join(f"[{letter}]" if letter in "[*?" else letter for letter in text)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        if not stat.S_ISDIR(folder.lstat().st_mode):  # else it was there, then not, and is there again
            raise


def _remove_empty(folders: Sequence[Path]) -> None:
    """The innermost first."""
    with contextlib.suppress(OSError):  # it is not empty
        for folder in folders:
            folder.rmdir()
