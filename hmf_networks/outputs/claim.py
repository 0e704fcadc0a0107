"""One process at a time makes an output; what a killed one left behind is swept away."""

import contextlib
import stat
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout

from hmf_networks.naming import bare_name

POLL_SECONDS = 0.2


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


def claim(path: Path, *, wait: bool = False, give_up: threading.Event | None = None) -> Claim | None:
    """The right to make `path`; None where another process has it, unless `wait`, until `give_up`."""
    while True:
        folders = [path.parent, *(folder for folder in path.parents[1:] if not folder.exists())]
        lock = FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:
            if not wait or (give_up is not None and give_up.is_set()):
                return None
            time.sleep(POLL_SECONDS)
        except (FileNotFoundError, FileExistsError):  # a folder was swept away at this very moment
            if _is_in_the_way(path.parent):
                raise
        else:
            sweep(path)
            return Claim(path, lock, folders)


def sweep(path: Path) -> None:
    """Remove part files of `path` and what stands beside it (`atomic.write_whole`); only under a claim."""
    for part in path.parent.glob(f".{_literal(bare_name(path.name))}.*.part"):
        part.unlink(missing_ok=True)


def _literal(text: str) -> str:
    """For a glob: `[`, `*` and `?` of a file name stand for themselves."""
    return "".join(f"[{letter}]" if letter in "[*?" else letter for letter in text)


def _is_in_the_way(path: Path) -> bool:
    """Whether something else is where a folder should be."""
    try:
        return not stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _remove_empty(folders: Sequence[Path]) -> None:
    """The innermost first."""
    with contextlib.suppress(OSError):  # it is not empty
        for folder in folders:
            folder.rmdir()
