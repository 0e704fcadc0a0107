"""The files that a volume is made of, one or a pair of .hdr and .img; what they hold, as one number."""

import itertools
from pathlib import Path

from hmf_networks.hashing import file_hash
from hmf_networks.nifti.codes import VolumeError


def volume_files(path: str | Path) -> list[Path]:
    """The file; of a pair, whichever is given, header and voxels.

    Raises:
        VolumeError: E_MISSING, an .img without its .hdr.
    """
    header = header_path(Path(path))
    if _ending(header) != ".hdr":
        return [header]
    try:
        return [header, voxel_path(header)]
    except VolumeError:  # a whole volume under that name
        return [header]


def volume_hash(path: str | Path) -> str:
    """SHA-256, in hexadecimal, of the bytes of its files.

    Raises:
        OSError, VolumeError: they are not there, or cannot be read.
    """
    files = volume_files(path)
    for file in files:
        if not file.is_file():  # a pipe would wait for ever
            raise FileNotFoundError(f"{file} is not there, or no plain file")
    return file_hash(*files)


def volume_state(path: str | Path) -> str:
    """Time of change and size of its files: another when they were written anew.

    Raises:
        OSError, VolumeError: they cannot be looked at.
    """
    stats = [file.stat() for file in volume_files(path)]
    return " ".join(f"{stat.st_mtime_ns}-{stat.st_size}" for stat in stats)


def header_path(path: Path) -> Path:
    """Of a pair, whichever file is given, the header."""
    if _ending(path) != ".img":
        return path
    return _other_half(path, ".hdr")


def voxel_path(path: Path) -> Path:
    """Of a pair, whichever file is given, the voxels."""
    return path if _ending(path) == ".img" else _other_half(path, ".img")


def _ending(path: Path) -> str:
    return _without_gz(path).suffix.lower()


def _other_half(path: Path, suffix: str) -> Path:
    stem = _without_gz(path)
    for letters, packed in itertools.product((suffix, suffix.upper(), suffix.title()), ("", ".gz", ".GZ")):
        if _exists(candidate := stem.with_suffix(letters + packed)):
            return candidate
    raise VolumeError("E_MISSING", path, f"its other half, {stem.with_suffix(suffix).name}, is not beside it")


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # with .gz its name may be too long
        return False


def _without_gz(path: Path) -> Path:
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path
