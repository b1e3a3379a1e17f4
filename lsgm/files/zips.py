"""Zips as others may have packed them: the list of members and each member within limits."""

from __future__ import annotations

import bz2
import copy
import io
import zipfile
import zlib
from pathlib import Path
from typing import IO

from lsgm.errors import DataError, UserError
from lsgm.files.limits import ZIP_LISTING, Limit
from lsgm.files.names import shown
from lsgm.files.regular import open_regular

__all__ = ["open_zip", "read_member", "zip_of"]

_PIECE = 2**12
"""Bytes asked of a member at a time: Python unpacks LZMA by what is packed, some thousandfold."""
_LARGE_PIECE = 2**24


class _Listed(io.RawIOBase):
    """A file that gives up at a read of more than a zip's list of members may have."""

    def __init__(self, file: IO[bytes], where: str, error: type[UserError]) -> None:
        self.file, self.where, self.error, self.opening = file, where, error, True

    def read(self, size: int = -1) -> bytes:
        if self.opening and size > 0:
            ZIP_LISTING.hold(f"the list of members of {self.where}", size, self.error)
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


class _Zip(zipfile.ZipFile):
    """A zip that closes its own file, with itself or with the last of its members."""

    def __init__(self, file: IO[bytes], where: str, error: type[UserError]) -> None:
        self._own = file
        listed = _Listed(file, where, error)
        super().__init__(listed)
        listed.opening = False

    def close(self) -> None:
        super().close()
        if self.fp is None:
            self._own.close()


def open_zip(path: Path | str, error: type[UserError] = DataError) -> zipfile.ZipFile:
    """Open a zip for reading.

    Raises ``error`` for what is no regular file and for a list of members that is too large; what `zipfile`
    says of damage is for the caller.
    """
    return _Zip(open_regular(path, error), shown(str(path)), error)


def zip_of(content: bytes, where: str, error: type[UserError] = DataError) -> zipfile.ZipFile:
    """Return the zip that some bytes of ``where`` are. Raises ``error`` as `open_zip` does."""
    return _Zip(io.BytesIO(content), shown(where), error)


def read_member(
    archive: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    where: str,
    limit: Limit,
    error: type[UserError] = DataError,
) -> bytes:
    """Return what a member holds; no more of it is unpacked than it claims, and than ``limit``.

    Raises ``error`` beyond the limit; what `zipfile` says of damage is for the caller.
    """
    limit.hold(where, info.file_size, error)
    if info.compress_type == zipfile.ZIP_BZIP2:
        return _bzip2(archive, info)
    piece = _PIECE if info.compress_type == zipfile.ZIP_LZMA else _LARGE_PIECE
    with archive.open(info) as stream:
        return b"".join(iter(lambda: stream.read(piece), b""))


def _bzip2(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Unpack a member of which a few bytes may become gigabytes, whatever it claims: no further than that."""
    packed = copy.copy(info)
    packed.compress_type, packed.file_size = zipfile.ZIP_STORED, info.compress_size
    packed.CRC = None  # type: ignore[assignment]  # it is of what is unpacked
    with archive.open(packed) as stream:
        content = bz2.BZ2Decompressor().decompress(stream.read(), info.file_size + 1)
    if len(content) != info.file_size or zlib.crc32(content) != info.CRC:
        raise zipfile.BadZipFile(f"Bad CRC-32 for file {info.filename!r}")
    return content
