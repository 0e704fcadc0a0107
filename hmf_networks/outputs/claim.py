"""One process at a time makes an output; what a killed one left behind is swept away."""

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from hmf_networks.atomic import sweep
from hmf_networks.naming import beside

POLL_SECONDS = 0.2


class Claim:
    """The right to make one file, held until `release`; the system ends it with the process."""

    def __init__(self, path: Path, lock: FileLock, folders: Sequence[Path]) -> None:
        self.path = path
        self._lock, self._folders = lock, folders

    def release(self) -> None:
        """Also removes the lock's file, and folders that stayed empty. Whoever waits for it finds out."""
        if self._lock.is_locked:
            with contextlib.suppress(PermissionError):  # Windows: it is open
                Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()
            _remove_empty(self._folders)


def claim(path: Path, root: Path, *, wait: bool = False, give_up: threading.Event | None = None) -> Claim | None:
    """The right to make `path` below `root`, and what stands beside it.

    None where another process has it, unless `wait`, until `give_up`.
    """
    folders = list(itertools.takewhile(lambda folder: folder != root, path.parents))
    while True:
        lock = FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
        except Timeout:
            if not wait or (give_up is not None and give_up.is_set()):
                return None
            time.sleep(POLL_SECONDS)
        except (FileNotFoundError, FileExistsError):  # a folder was swept away at this very moment
            if any(os.path.lexists(folder) and not folder.is_dir() for folder in folders):
                raise  # no folder, or a link to nowhere
        else:
            for file in (path, beside(path, ".json"), beside(path, ".png")):
                sweep(file)
            return Claim(path, lock, folders)


def _remove_empty(folders: Sequence[Path]) -> None:
    """The innermost first."""
    with contextlib.suppress(OSError):  # it is not empty
        for folder in folders:
            folder.rmdir()
