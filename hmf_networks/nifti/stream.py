"""The bytes of a file from front to back, unpacked where they are gzip; damaged and endless streams refused.

Nothing is read before it is asked for: a header can be judged before its voxels are unpacked. Reading to the
end compares the checksum.
"""

import zlib
from pathlib import Path
from types import TracebackType

from hmf_networks.nifti.codes import VolumeError

GZIP = b"\x1f\x8b"
GZIP_FORMAT = 31  # of zlib's wbits: header, checksum and length are read and checked
CHUNK = 2**18  # bytes


class Stream:
    """A file opened for reading once. Everything that can go wrong is a VolumeError.

    Raises:
        VolumeError: E_MISSING, E_EMPTY, E_TRUNCATED, E_CORRUPT.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.size = _size(self.path)  # bytes on disk
        try:
            self._file = self.path.open("rb")
        except OSError as error:
            raise VolumeError(
                "E_MISSING", path, f"cannot be opened ({error.strerror})", "correct its permissions"
            ) from error
        self._packed = self._from_file()
        self.is_gzip = self._packed.startswith(GZIP)
        self._unpacker = zlib.decompressobj(GZIP_FORMAT)
        self._pushed = b""
        self.has_garbage = False  # behind the gzip stream

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, count: int, what: str) -> bytes:
        """Exactly `count` bytes; `what` names them in an error."""
        content = self.read_at_most(count)
        if len(content) < count:
            raise VolumeError(
                "E_TRUNCATED", self.path, f"it ends {count - len(content)} bytes before the end of {what}"
            )
        return content

    def read_at_most(self, count: int) -> bytes:
        """`count` bytes, fewer only where the file ends."""
        pieces, self._pushed = [self._pushed[:count]], self._pushed[count:]
        wanted = count - len(pieces[0])
        while wanted > 0 and (piece := self._next(min(wanted, CHUNK))):
            pieces.append(piece)
            wanted -= len(piece)
        return b"".join(pieces)

    def push_back(self, content: bytes) -> None:
        """What was read too much is read again."""
        self._pushed = content + self._pushed

    def _next(self, most: int) -> bytes:
        """Some bytes, none at the end."""
        if not self.is_gzip:
            piece, self._packed = self._packed[:most], self._packed[most:]
            return piece or self._from_file(most)
        while True:
            if self._unpacker.eof and not self._next_member():
                return b""
            try:
                piece = self._unpacker.decompress(self._packed, most)
            except zlib.error as error:
                raise VolumeError("E_CORRUPT", self.path, f"its gzip stream is damaged ({error})") from error
            self._packed = self._unpacker.unused_data or self._unpacker.unconsumed_tail
            if piece:
                return piece
            if not self._packed and not self._unpacker.eof:
                self._packed = self._from_file()
                if not self._packed:
                    raise VolumeError("E_TRUNCATED", self.path, "its gzip stream has no end")

    def _next_member(self) -> bool:
        """Go on with a further gzip stream in the same file; other bytes are garbage."""
        while len(self._packed) < len(GZIP) and (more := self._from_file()):
            self._packed += more
        if self._packed.startswith(GZIP):
            self._unpacker = zlib.decompressobj(GZIP_FORMAT)
            return True
        self.has_garbage = bool(self._packed)  # it stays unread: there may be terabytes of it
        return False

    def _from_file(self, most: int = CHUNK) -> bytes:
        try:
            return self._file.read(most)
        except OSError as error:
            raise VolumeError(
                "E_TRUNCATED", self.path, f"cannot be read ({error.strerror})", "check the disk"
            ) from error


def _size(path: Path) -> int:
    """In bytes; E_MISSING unless it is a plain file (a pipe would wait for ever), E_EMPTY for none."""
    try:
        is_file, is_link = path.is_file(), path.is_symlink()
        size = path.stat().st_size if is_file else 0
    except (OSError, ValueError) as error:  # a name too long, or with a zero byte
        raise VolumeError(
            "E_MISSING", path, f"cannot be looked at ({error})", "correct its name or its permissions"
        ) from error
    if not is_file and is_link:
        target = path.readlink()
        raise VolumeError(
            "E_MISSING", path, f"a link to {target}, which is not there", "fetch its content, e.g. `datalad get`"
        )
    if not is_file:
        kind = "is no plain file" if path.exists() else "no such file"
        raise VolumeError("E_MISSING", path, kind, "check the name in the folder or the datalist")
    if size == 0:
        raise VolumeError("E_EMPTY", path, "the file is empty")
    return size
