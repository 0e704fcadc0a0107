"""Folders that are never seen half-written."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hmf_networks.naming import printable


@contextmanager
def whole_folder(folder: str | Path, *, suffix: str, overwrite: bool = False) -> Iterator[Path]:
    """A new folder to write in, that becomes `folder` when the block ends well and is gone when it does not.

    A process that is killed leaves a hidden folder `.NAME.*.part` beside it, and `folder` as it was. With
    `overwrite` an older folder is replaced, if all it holds are files with that `suffix`.

    Raises:
        ValueError: the folder is there already, or holds more than may be replaced.
    """
    folder = Path(folder)
    _check_free(folder, suffix=suffix, overwrite=overwrite)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    part.mkdir()
    try:
        yield part
        _replace(part, folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_free(folder: Path, *, suffix: str, overwrite: bool) -> None:
    if not folder.is_symlink() and not folder.exists():
        return
    name = printable(str(folder))
    if folder.is_symlink() or not folder.is_dir():
        raise ValueError(f"{name} is no folder; write to another one")
    if not overwrite:
        raise ValueError(f"{name} is there already; write to another folder, or say overwrite=True")
    foreign = next((path.name for path in folder.iterdir() if path.suffix != suffix or not path.is_file()), None)
    if foreign is not None:
        raise ValueError(f"{name} holds {printable(foreign)}, which overwriting would delete; write to another folder")


def _replace(part: Path, folder: Path) -> None:
    """Two renames, as there is none that takes a full folder's place; the older folder returns if the second fails."""
    if not folder.exists():
        part.rename(folder)
        return
    older = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.older")
    folder.rename(older)
    try:
        part.rename(folder)
    except BaseException:
        older.rename(folder)
        raise
    shutil.rmtree(older, ignore_errors=True)
