"""Assemble the bundle as the model zoo wants it: one folder, its package inside, and the zip of it.

The zip has the same bytes wherever it is made: members sorted, of one date, stored (versions of zlib differ).
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from hmf_networks.bundles.find import PACKAGE
from hmf_networks.hashing import file_hash

NAME = "brain_mri_synthesis_hmf_mambainr"
SHOWN = {"configs": (".json", ".conf"), "models": (".pt", ".json"), "docs": (".md", ".txt", ".png")}
CODE = (".py", ".cpp")
NEEDED = (
    "LICENSE",
    *(f"configs/{name}" for name in ("metadata.json", "logging.conf", "inference.json", "train.json")),
    *("models/model.pt", "models/model.json", "docs/README.md", "docs/data_license.txt"),
    "hmf_networks/__init__.py",
)
LARGEST_MB = 25  # of a file in the zoo's git; larger ones are fetched from an address in large_files.yml
BYTES_A_MB = 2**20
METADATA_KEYS = {  # what MONAI's metadata schema requires, and the zoo beside it: name, changelog
    *("schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version"),
    *("task", "description", "authors", "copyright", "network_data_format", "name", "changelog"),
}
PERSONAL = re.compile(rb"/(?:home|Users|root|mnt|scratch)/[\w.-]+/|[A-Za-z]:\\\\?Users\\\\?\w")
ZOO_STORAGE = "https://github.com/Project-MONAI/model-zoo/releases/download/hosting_storage_v1"
DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip can hold
FILE_MODE = 0o100644 << 16
ON_UNIX = 3


class Packed(NamedTuple):
    """What `pack` wrote."""

    folder: Path
    archive: Path
    version: str
    large: list[str]  # files that the zoo's git does not take


def pack(output_dir: str | Path, bundle: Path, *, overwrite: bool = False) -> Packed:
    """Write OUT/NAME and OUT/NAME_v<version>.zip; each is there whole or not at all.

    Raises:
        FileExistsError: one of them is there, and may not be replaced.
        ValueError: the bundle is not fit to be published; every reason is told.
    """
    members = members_of(bundle)
    if faults := list(faults_of(members)):
        raise ValueError("; ".join(["the bundle cannot be packed", *faults]))
    version = json.loads(members["configs/metadata.json"].read_text(encoding="utf-8"))["version"]
    output_dir = Path(output_dir)
    folder, archive = output_dir / NAME, output_dir / f"{NAME}_v{version}.zip"
    for path in (folder, archive):
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} is there already; --overwrite replaces it")
    part = output_dir / f".{NAME}.{uuid.uuid4().hex}.part"
    try:
        for name, source in members.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, part / name)
        part_archive = part.with_suffix(".zip")
        write_archive(part_archive, archive.stem, members)  # MONAI looks for a folder called as the zip is
        if folder.exists():
            folder.replace(part.with_suffix(".old"))
        part.replace(folder)
        part_archive.replace(archive)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(part.with_suffix(".old"), ignore_errors=True)
        part.with_suffix(".zip").unlink(missing_ok=True)
    return Packed(folder, archive, version, large_files(members))


def members_of(bundle: Path) -> dict[str, Path]:
    """Name in the packed folder -> file, sorted by name: what the zoo knows, and the package."""
    places = [place / "LICENSE" for place in (bundle, bundle.parent)]
    licence = next((path for path in places if path.is_file()), None)
    found = {} if licence is None else {"LICENSE": licence}
    for folder, endings in SHOWN.items():
        found |= {
            path.relative_to(bundle).as_posix(): path
            for path in (bundle / folder).rglob("*")
            if path.is_file() and path.suffix in endings
        }
    for path in PACKAGE.rglob("*"):
        inside = path.relative_to(PACKAGE)
        if path.suffix in CODE and inside.parts[0] != "bundle":  # in a wheel the bundle lies in the package
            found[f"hmf_networks/{inside.as_posix()}"] = path
    return dict(sorted(found.items()))


def faults_of(members: dict[str, Path]) -> Iterator[str]:
    """Why a bundle of these files is not fit to be published; nothing where it is."""
    missing = [name for name in NEEDED if name not in members]
    if missing:
        yield f"missing: {', '.join(missing)}"
        return
    metadata = json.loads(members["configs/metadata.json"].read_text(encoding="utf-8"))
    lacking = sorted(METADATA_KEYS - metadata.keys())
    if lacking:
        yield f"configs/metadata.json lacks {', '.join(lacking)}"
    elif metadata["version"] not in metadata["changelog"]:
        yield f"configs/metadata.json: its changelog does not tell of version {metadata['version']}"
    about = json.loads(members["models/model.json"].read_text(encoding="utf-8"))
    if file_hash(members["models/model.pt"]) not in about.get("sha256", []):
        yield "models/model.json tells of other weights than models/model.pt"
    for name, path in members.items():
        if not name.endswith(".pt") and (personal := PERSONAL.search(path.read_bytes())):
            yield f"{name} names a place of one machine: {personal.group().decode(errors='replace')}"


def write_archive(path: Path, top: str, members: dict[str, Path]) -> None:
    """All members in one folder."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, source in members.items():
            entry = zipfile.ZipInfo(f"{top}/{name}", DATE)
            entry.create_system, entry.external_attr = ON_UNIX, FILE_MODE
            archive.writestr(entry, source.read_bytes())


def for_the_zoo(packed: Packed) -> str:
    """What a pull request to the model zoo needs beside the folder, and the command for Hugging Face."""
    checksum = hashlib.sha1(packed.archive.read_bytes()).hexdigest()
    entry = {packed.archive.stem: {"checksum": checksum, "source": f"{ZOO_STORAGE}/{packed.archive.name}"}}
    metadata = json.loads((packed.folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
    lines = [
        f"For a pull request to Project-MONAI/model-zoo: copy {packed.folder} to models/{NAME}.",
        f"models/model_info.json: {json.dumps(entry, indent=4)}",
        f"changelog: {packed.version}: {metadata['changelog'][packed.version]}",
    ]
    if packed.large:
        lines += [f"large_files.yml, since the zoo's git takes no file over {LARGEST_MB} MB:", "large_files:"]
        for name in packed.large:
            lines += [f"  - path: {name!r}", '    url: "where you put it"']
            lines += [f"    hash_val: {file_hash(packed.folder / name)!r}", '    hash_type: "sha256"']
    else:
        lines.append(f"No file is over {LARGEST_MB} MB: no large_files.yml.")
    where = f"'USER/{NAME}', {NAME!r}, {str(packed.folder.parent)!r}, version={packed.version!r}"
    return "\n".join([*lines, f"For Hugging Face, from Python: monai.bundle.push_to_hf_hub({where})"])


def large_files(members: dict[str, Path]) -> list[str]:
    return [name for name, path in members.items() if path.stat().st_size > LARGEST_MB * BYTES_A_MB]
