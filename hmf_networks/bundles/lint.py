"""What would run code, or leave the bundle, when somebody uses it: found by reading alone.

Nothing is imported, evaluated, unpickled or unpacked. What is not known to be harmless is a finding:
`allowed.py` lists what is allowed; a list of what is not would always be one short.
"""

import io
import stat
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from hmf_networks.bundles.allowed import DATA_FILES, FILES_WITHOUT_ENDING, WEIGHTS
from hmf_networks.bundles.find import PACKAGE
from hmf_networks.bundles.finding import Finding
from hmf_networks.bundles.lint_config import lint_json, lint_yaml
from hmf_networks.bundles.lint_logging import lint_logging
from hmf_networks.bundles.lint_weights import lint_weights

LARGEST_BYTES = 2**32  # of all that an archive unpacks to; more is a bomb, or nothing for a laptop
LARGEST_RATIO = 200  # unpacked to packed


def lint_bundle(path: str | Path) -> list[Finding]:
    """Findings in a bundle, folder or zip, by file.

    Raises:
        FileNotFoundError, ValueError: there is none; it is neither.
    """
    path = Path(path)
    if path.is_dir():
        found = list(_lint_folder(path))
    elif path.is_file():
        found = list(_lint_archive(path))
    else:
        raise FileNotFoundError(f"{path} is not there; name the folder of a bundle, or its zip")
    return sorted(set(found))


def _lint_folder(folder: Path) -> Iterator[Finding]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            yield Finding(name, "", "link", "points elsewhere")
        elif path.is_file():
            yield from lint_file(name, path.read_bytes())
        elif not path.is_dir():
            yield Finding(name, "", "special file", "neither file nor folder")


def _lint_archive(path: Path) -> Iterator[Finding]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            yield from _lint_entries(entries)
            top = {PurePosixPath(entry.filename).parts[:1] for entry in entries}
            if len(top) > 1:
                yield Finding(path.name, "", "archive", "more than one folder at its top")
            if sum(entry.file_size for entry in entries) > LARGEST_BYTES:
                yield Finding(path.name, "", "archive", f"unpacks to more than {LARGEST_BYTES // 2**30} GiB")
                return
            for entry in entries:
                if not entry.is_dir():
                    name = "/".join(entry.filename.split("/")[1:]) or entry.filename
                    yield from lint_file(name, archive.read(entry))
    except (zipfile.BadZipFile, RuntimeError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path} cannot be read as a zip ({error}); name the folder of a bundle, or its zip"
        ) from error


def _lint_entries(entries: list[zipfile.ZipInfo]) -> Iterator[Finding]:
    """What unpacking would do."""
    times = Counter(entry.filename.casefold() for entry in entries)
    for entry in entries:
        name = entry.orig_filename
        parts = name.replace("\\", "/").split("/")
        is_odd = ".." in parts or "" in parts[:-1]  # a//b is written where a/b is
        if is_odd or name.startswith(("/", "\\")) or ":" in parts[0] or "\\" in name or "\0" in name:
            yield Finding(name, "", "archive", "its name leads out of the folder it is unpacked to")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            yield Finding(name, "", "link", "not a plain file, but a link or a device")
        if times[entry.filename.casefold()] > 1:
            yield Finding(name, "", "archive", "twice: what is judged may not be what is unpacked")
        if entry.file_size > 2**20 and entry.file_size > LARGEST_RATIO * max(entry.compress_size, 1):
            yield Finding(
                name, "", "archive", f"unpacks to {entry.file_size // max(entry.compress_size, 1)} times its size"
            )


def lint_file(name: str, content: bytes) -> Iterator[Finding]:
    """Findings in one file of that name in its bundle."""
    path = PurePosixPath(name)
    ending = path.suffix.lower()
    if ending == ".json":
        yield from lint_json(name, content)
    elif ending in (".yaml", ".yml"):
        yield from lint_yaml(name, content)
    elif ending == ".conf":
        yield from lint_logging(name, content)
    elif ending in WEIGHTS:
        yield from lint_weights(name, content)
    elif ending not in DATA_FILES and path.name not in FILES_WITHOUT_ENDING and not _is_ours(path, content):
        yield Finding(name, "", "file", "code, an archive, or of no known kind: look at it before you use the bundle")
    if ending not in WEIGHTS and zipfile.is_zipfile(io.BytesIO(content)):
        yield Finding(name, "", "file", "a zip under another name: Python would import from it")
    if content[:2] == b"#!" or content[:4] in (b"\x7fELF", b"MZ\x90\0"):
        yield Finding(name, "", "file", "a program")


def _is_ours(path: PurePosixPath, content: bytes) -> bool:
    """Whether it is, to the byte, what runs now: the package that the bundle is packed with."""
    if path.parts[0] != PACKAGE.name or ".." in path.parts:
        return False
    own = PACKAGE.joinpath(*path.parts[1:])
    return own.is_file() and own.read_bytes() == content
