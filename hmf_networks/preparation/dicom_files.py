"""The DICOM files of a study: below a folder at any depth and under any name, or in a .zip of one."""

import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from hmf_networks.nifti.codes import VolumeError

MOST_BYTES = 2**33  # unpacked; a study of raw 3-D scans with maps and perfusion has one or two GiB
MOST_FILES = 200_000
CHUNK = 2**20  # bytes
COPIES_OF_MACOS = "__MACOSX"  # in what was zipped there: a folder of stubs with the names of the files
PREAMBLE = 128  # bytes before "DICM"
# Files from before the preamble begin with an element that every data set has, little endian.
FIRST_ELEMENTS = (
    b"\x02\x00\x00\x00",
    b"\x08\x00\x00\x00",
    b"\x08\x00\x01\x00",
    b"\x08\x00\x05\x00",
    b"\x08\x00\x08\x00",
)


@contextmanager
def unpacked(source: str | Path, *, most_bytes: int = MOST_BYTES) -> Iterator[Path]:
    """The folder itself, or that of a .zip for as long as the block runs: nothing of it stays on the disk.

    Raises:
        VolumeError: E_MISSING, E_DICOM_ZIP.
    """
    source = Path(source)
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise VolumeError("E_MISSING", source, "no such folder or .zip", "give the folder of a study, or a .zip of it")
    with tempfile.TemporaryDirectory(prefix="hmf_study_") as folder:  # for its owner's eyes only
        _unpack(source, Path(folder), most_bytes)
        yield Path(folder)


def dicom_paths(folder: Path) -> list[Path]:
    """All files that begin as DICOM does, sorted; hidden ones, DICOMDIR and links to folders are left out."""
    paths = []
    for above, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(name for name in subfolders if not _is_hidden(name))
        paths += [path for name in sorted(names) if not _is_hidden(name) and _is_dicom(path := Path(above, name))]
    return paths


def _is_hidden(name: str) -> bool:
    return name.startswith((".", COPIES_OF_MACOS)) or name.upper() == "DICOMDIR"


def _is_dicom(path: Path) -> bool:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would wait for ever
            return False
        with path.open("rb") as file:
            start = file.read(PREAMBLE + 4)
    except OSError:
        return False
    return start[PREAMBLE:] == b"DICM" or start[:4] in FIRST_ELEMENTS


def _unpack(source: Path, folder: Path, most_bytes: int) -> None:
    try:
        with zipfile.ZipFile(source) as archive:
            members = [member for member in archive.infolist() if not member.is_dir()]
            _check(source, members, most_bytes)
            left = most_bytes
            for member in members:
                if not any(_is_hidden(part) for part in _parts(member)):
                    left -= _write(archive, member, folder.joinpath(*_parts(member)), left)
    except VolumeError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise VolumeError("E_DICOM_ZIP", source, f"cannot be unpacked ({error})") from error
    except OSError as error:  # a file where a folder must be, a name too long, a full disk
        raise VolumeError("E_DICOM_ZIP", source, f"cannot be unpacked ({error.strerror})") from error


def _check(source: Path, members: list[zipfile.ZipInfo], most_bytes: int) -> None:
    """Before anything is written: all or nothing."""
    if any(_leads_out(member) for member in members):
        raise VolumeError("E_DICOM_ZIP", source, "a name in it leads out of its folder")
    if any(member.flag_bits & 1 for member in members):
        raise VolumeError("E_DICOM_ZIP", source, "it is encrypted", "unpack it and give the folder")
    total = sum(member.file_size for member in members)
    if total > most_bytes or len(members) > MOST_FILES:
        problem = f"{len(members)} files of {total} bytes; {MOST_FILES} of {most_bytes} are unpacked"
        raise VolumeError("E_DICOM_ZIP", source, problem, "unpack it and give the folder")


def _parts(member: zipfile.ZipInfo) -> tuple[str, ...]:
    return PurePosixPath(member.filename.replace("\\", "/")).parts


def _leads_out(member: zipfile.ZipInfo) -> bool:
    parts = _parts(member)
    return ".." in parts or member.filename.startswith(("/", "\\")) or any(":" in part for part in parts[:1])


def _write(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path, left: int) -> int:
    """Bytes written: the sizes that the .zip claims are not believed. A link in it becomes a file of text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with archive.open(member) as packed, path.open("wb") as file:
        while chunk := packed.read(CHUNK):
            written += len(chunk)
            if written > left:
                raise ValueError("more bytes than it says")
            file.write(chunk)
    return written
