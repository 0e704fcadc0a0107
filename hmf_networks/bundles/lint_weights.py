"""Files of weights: what their pickles name, opcode by opcode; nothing is unpickled."""

import io
import pickletools
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

from hmf_networks.bundles.allowed import PICKLED
from hmf_networks.bundles.finding import Finding

REGISTERED = {"EXT1", "EXT2", "EXT4"}  # names by number, from a table of the one who loads
ZIP = b"PK\x03\x04"
MEMBER = re.compile(  # of torch's format, behind the name of its folder
    r"data\.pkl|data/\d+|version|byteorder|data_format|\.format_version|\.storage_alignment|\.data/serialization_id"
)


def lint_weights(name: str, content: bytes) -> Iterator[Finding]:
    if PurePosixPath(name).suffix.lower() == ".safetensors" and content[8:9] == b"{":
        return  # no pickle by design
    if not content.startswith(ZIP):
        yield Finding(name, "", "weights", "not in torch's zip format: loading it may run code")
        return
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            yield from _lint_members(name, archive)
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, zlib.error) as error:
        yield Finding(name, "", "weights", f"cannot be read ({error})")


def _lint_members(name: str, archive: zipfile.ZipFile) -> Iterator[Finding]:
    names = archive.namelist()
    for member in dict.fromkeys(names):
        if names.count(member) > 1:
            yield Finding(name, member, "weights", "twice: readers differ in which they take")
    for entry in archive.infolist():
        inside = entry.filename.partition("/")[2]
        if inside.endswith(".pkl"):
            for what in dict.fromkeys(named_by_pickle(archive.read(entry))):
                yield Finding(name, entry.filename, "pickle", what)
        if inside.startswith("code/"):
            yield Finding(name, entry.filename, "weights", "TorchScript: code, which is not judged here")
        elif not MEMBER.fullmatch(inside):
            yield Finding(name, entry.filename, "weights", "no part of a file of tensors")


def named_by_pickle(content: bytes) -> Iterator[str]:
    """What a pickle would import beyond tensors, or why that cannot be told."""
    end = 0
    try:
        for opcode, argument, position in pickletools.genops(content):
            end = position or 0
            if opcode.name in ("GLOBAL", "INST"):
                if str(argument) not in PICKLED:
                    yield f"imports {argument}"
            elif opcode.name == "STACK_GLOBAL":
                yield "imports what is put together on the stack"
            elif opcode.name in REGISTERED:
                yield "imports by a number"
            elif opcode.name in ("NEWOBJ", "NEWOBJ_EX", "OBJ"):  # BUILD has but what the names above gave
                yield f"builds an object ({opcode.name})"
    except (ValueError, IndexError) as error:
        yield f"cannot be read ({error})"
        return
    if end + 1 != len(content):
        yield "goes on after its end"
