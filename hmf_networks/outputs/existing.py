"""What lies where an output would go: whose it is, and whether it may stay."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from hmf_networks.hashing import file_hash
from hmf_networks.naming import CONTRASTS, bare_name, beside, error_path
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.nifti.files import volume_hash
from hmf_networks.outputs import bids

Record = Mapping[str, Any]


class Scans:
    """The files that a run reads from: no output may take their place, or that of their sidecars."""

    def __init__(self, records: Iterable[Record]) -> None:
        scans = scans_of(records)
        self._identities = {_identity(scan) for scan in scans} - {None}
        self._stems = {_stem(scan) for scan in scans}

    def hold(self, path: Path) -> bool:
        """Whether it is one of them, by whatever name, or has the name of one but for .nii and .gz."""
        return _stem(path) in self._stems or _identity(path) in self._identities


def scans_of(records: Iterable[Record]) -> list[Path]:
    """Each once: a subject has a record for each of its outputs."""
    paths = (record[name] for record in records for name in CONTRASTS if name in record)
    return [Path(path) for path in dict.fromkeys(paths)]


def in_the_way(path: Path) -> Path | None:
    """What would be lost if `path` were written: itself, or a file beside it that is not known to be its."""
    if path.exists():
        return path
    picture, sidecar = beside(path, ".png"), beside(path, ".json")
    twins = [twin for ending in (".nii", ".nii.gz") if (twin := beside(path, ending)) != path]
    if bids.is_ours(bids.read_sidecar(path)) and not any(twin.exists() for twin in twins):
        return None
    error = error_path(path)
    return next((file for file in (sidecar, picture, error) if file.exists()), None)


def reason_to_make_again(
    path: Path,
    record: Record,
    sources: Collection[str],
    known: Mapping[str, Any] | None,
    sidecar: Mapping[str, Any],
    made_with: tuple[str | None, str],
) -> str | None:
    """Why an output cannot stay as it is; None: it can.

    Args:
        path: the output.
        record: the subject whose it is.
        sources: contrasts of the subject that it would be made from.
        known: what manifest.json says of it, if anything.
        sidecar: what stands beside it.
        made_with: hashes of the weights and of the settings that it should be made with.
    """
    weights_hash, settings_hash = made_with
    content = file_hash(path)
    if known is not None and content != known["sha256"]:
        return "it is not what was written, by its hash"
    if content != sidecar.get("Sha256"):
        return "its sidecar is lost"
    if not _has_its_error(path, sidecar):
        return "its expected error is lost"
    if not _are_sources(record, sources, sidecar.get("SourcesSha256")):
        return "its sources have changed"
    if sidecar.get("WeightsSha256") != weights_hash:
        return "it was made with other weights"
    if sidecar.get("SettingsSha256", (known or {}).get("settings_sha256")) != settings_hash:
        return "it was made with other settings"
    return None


def stale_error(path: Path, content_hash: str) -> list[Path]:
    """What was written beside an earlier volume of that name, as its expected error, and is still there."""
    error = error_path(path)
    about = bids.read_sidecar(error)
    if not bids.is_ours(about) or about.get("VolumeSha256", content_hash) == content_hash:
        return []
    return [file for file in (error, beside(error, ".json")) if file.exists()]


def _has_its_error(path: Path, sidecar: Mapping[str, Any]) -> bool:
    """Where the sidecar names one."""
    known = sidecar.get("ExpectedError")
    if not isinstance(known, Mapping):
        return True
    return error_path(path).is_file() and file_hash(error_path(path)) == known.get("Sha256")


def _are_sources(record: Record, sources: Collection[str], hashes: Any) -> bool:
    """Whether the sources of a record are still these, no more and no fewer: contrast -> SHA-256."""
    if not isinstance(hashes, Mapping) or hashes.keys() != set(sources):
        return False
    try:
        return all(volume_hash(record[name]) == content for name, content in hashes.items())
    except (OSError, VolumeError):  # whoever reads it says what is wrong
        return False


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode; None for what is not there, and where a file system has no such numbers."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_dev, stat.st_ino) if stat.st_ino else None


def _stem(path: Path) -> Path:
    """What a volume shares with its sidecar: folder, links followed, and name without .nii and .gz."""
    return path.parent.resolve() / bare_name(path.name)
