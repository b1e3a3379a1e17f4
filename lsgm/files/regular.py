"""Opening what others put there: folders, regular files within a limit, zips member by member."""

from __future__ import annotations

import bz2
import copy
import io
import logging
import os
import stat
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from lsgm.errors import DataError, UserError
from lsgm.files.limits import ZIP_LISTING, Limit
from lsgm.files.names import shown


def present(path: Path) -> bool:
    """Say whether there is anything of a name, be it a link that leads nowhere.

    Raises DataError where its folder does not let one look.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise _unseen(path, error) from error
    return True


def below(place: Path) -> Iterator[Path]:
    """Yield everything below a folder, but not what links lead to.

    Raises DataError naming a folder that cannot be looked into.
    """
    folders = [place]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    yield Path(entry.path)
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(Path(entry.path))
        except OSError as error:
            raise _unseen(folder, error) from error


def listed(folder: Path, pattern: str) -> list[Path]:
    """Return what of a folder fits a pattern, ``*.png`` or ``*/manifest.json``, in order; none without it.

    Raises DataError where the folder, or one in it that the pattern leads through, cannot be looked into.
    """
    head, _, rest = pattern.partition("/")
    try:
        with os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if fnmatchcase(entry.name, head)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _unseen(folder, error) from error
    if not rest:
        return sorted(found)
    inside = [path / rest for path in sorted(found) if os.path.isdir(path)]
    return [path for path in inside if present(path)]


def _unseen(path: Path, error: OSError | ValueError) -> DataError:
    why = error.strerror if isinstance(error, OSError) else str(error)
    return DataError(f"{shown(str(path))} cannot be looked into ({why}); make it readable, or move it away")


# Opening what others put there: only regular files, only as much as a limit lets, zips member by member

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

_AT_ONCE = 2**24
"""Bytes up to which the system gives a file in one piece; larger ones take a file object."""

_log = logging.getLogger("lsgm")
_last: list[str] = []
_NAMED = 5
_told: defaultdict[str, set[str]] = defaultdict(set)
"""The files of each folder that a log has named: of a folder of photographs a few will do."""


def last_read() -> str:
    """Return the file that was opened last, the likeliest cause of what goes wrong next; empty before any."""
    return _last[-1] if _last else ""


def absent(path: Path | str) -> bool:
    """Return whether nothing is at ``path``, be it a dead link; not where that cannot be told.

    What lies in a folder that this user may not enter is not missing: opening it says why it cannot be read.
    """
    with suppress(DataError):
        return not present(Path(path))
    return False


def refuse_special(path: Path | str, error: type[UserError] = DataError) -> None:
    """Raise ``error`` where there is something at ``path`` that is no regular file; what is absent passes."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    _check(path, mode, error)


def open_regular(path: Path | str, error: type[UserError] = DataError) -> io.BufferedReader:
    """Open a regular file for reading, in binary.

    Raises ``error`` for a folder, a pipe, a device or a socket, at once and without opening it, and for what
    cannot be opened.
    """
    return os.fdopen(_handle(path, error), "rb")


def _handle(path: Path | str, error: type[UserError]) -> int:
    """Return the descriptor of a regular file that is open for reading."""
    _last[:] = [str(path)]
    try:
        # A pipe or a device is looked at before it is opened, and again through what was opened.
        _check(path, os.stat(path).st_mode, error)
        handle = os.open(path, _FLAGS)
    except FileNotFoundError as problem:
        raise error(f"there is no {shown(str(path))}; check the path") from problem
    except (OSError, ValueError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise error(
            f"{shown(str(path))} cannot be read ({why}); make it readable or give another"
        ) from problem
    try:
        _check(path, os.fstat(handle).st_mode, error)
    except BaseException:
        os.close(handle)
        raise
    if _log.isEnabledFor(logging.DEBUG):
        _tell(path, os.fstat(handle).st_size)
    return handle


def _tell(path: Path | str, size: int) -> None:
    folder, name = os.path.split(path)
    told = _told[folder]
    if name in told or len(told) > _NAMED:
        return
    told.add(name)
    if len(told) <= _NAMED:
        _log.debug("read: %s (%s bytes)", path, f"{size:,}")
    else:
        _log.debug("read: further files of %s, which are not named", folder or "this folder")


def read_bytes(path: Path | str, limit: Limit, error: type[UserError] = DataError) -> bytes:
    """Return what a regular file holds. Raises ``error`` for one that cannot be read, or is too large."""
    handle = _handle(path, error)
    try:
        # The file's own word is not taken for it: it may grow while it is read.
        size = os.fstat(handle).st_size
        if size > limit.value:
            limit.hold(shown(str(path)), size, error)
        if size > _AT_ONCE:
            with os.fdopen(handle, "rb", closefd=False) as file:
                content = file.read(size + 1)
        else:
            content = os.read(handle, size + 1)
        # More than it said comes of one that grows, or has no size of its own, as those of /proc.
        while content and len(content) != size and len(content) <= limit.value:
            if not (more := os.read(handle, 2**20)):
                break
            content += more
    except OSError as problem:
        raise error(
            f"{shown(str(path))} cannot be read ({problem.strerror}); restore it from a copy"
        ) from problem
    finally:
        os.close(handle)
    if len(content) > size:
        limit.hold(shown(str(path)), len(content), error)
    return content


def refuse_shared_folder(path: Path, error: type[UserError] = DataError) -> None:
    """Raise ``error`` where everybody may put another file in the place of the one at ``path``.

    That is so where the file, or the folder that it lies in once links are followed, can be written by others
    than its owner and its group, as the system's folder for temporary files can; and where a folder further
    up can, unless only owners may rename what is in it (the sticky bit). Systems without such rights pass.
    """
    if not hasattr(os, "getuid"):
        return
    place = Path(os.path.realpath(path))
    for part in (place, *place.parents):
        try:
            mode = part.stat().st_mode
        except OSError:
            continue
        kept = mode & stat.S_ISVTX and part not in (place, place.parent)
        if mode & stat.S_IWOTH and not kept:
            raise error(
                f"{shown(str(place))} is not taken, because everybody may write to {shown(str(part))}; copy "
                f"it to a folder of your own, or run `chmod o-w {shown(str(part))}`"
            )


def _check(path: Path | str, mode: int, error: type[UserError]) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no regular file")
        raise error(f"{shown(str(path))} is {kind}, not a file; give a file")


# Zips

_PIECE = 2**12
"""Bytes asked of a member at a time: Python unpacks LZMA by what is packed, some thousandfold."""
_LARGE_PIECE = 2**24


class _Listing(io.RawIOBase):
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
        listed = _Listing(file, where, error)
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


def zip_of(content: bytes | IO[bytes], where: str, error: type[UserError] = DataError) -> zipfile.ZipFile:
    """Return the zip that bytes, or an open file, of ``where`` are. Raises ``error`` as `open_zip` does."""
    file = io.BytesIO(content) if isinstance(content, bytes) else content
    return _Zip(file, shown(where), error)


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
