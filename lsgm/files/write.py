"""Writing: whole or not at all, never where a link leads, and into the cache where nothing else is said."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from lsgm.errors import ConfigError, DataError
from lsgm.files.names import shown

_log = logging.getLogger("lsgm")
TEMPORARY = ".tmp-"
"""Prefix of everything unfinished; `sweep` removes what a kill has left."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What only writing meets: a full disk, a used-up share of it, and a shell's limit of the size of a file."""
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_claimed: set[Path] = set()


def cache_dir() -> Path:
    """Return ``$LSGM_CACHE``, else ``$XDG_CACHE_HOME/lsgm``, else ``~/.cache/lsgm``.

    Raises ConfigError where that is below the home of somebody who has none.
    """
    named, base = os.environ.get("LSGM_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        if named:
            return Path(named).expanduser()
        return (Path(base) if base else Path.home() / ".cache") / "lsgm"
    except RuntimeError as error:
        raise ConfigError(
            f"there is no folder for the cache ({shown(str(error))[:200]}); set LSGM_CACHE to one"
        ) from error


def claim(root: Path | str) -> Path:
    """Note that this process writes into ``root``, and return it: below it no link is followed from now on.

    ``root`` itself may be a link or lie behind one: the person at the keyboard has named it.
    """
    root = Path(root)
    _claimed.add(Path(os.path.abspath(root)))
    return root


def refuse_links(path: Path) -> None:
    """Raise DataError where ``path``, or a folder between it and a claimed root, is a symbolic link."""
    place = Path(os.path.abspath(path))
    for root in _claimed:
        if not place.is_relative_to(root):
            continue
        for part in (place, *place.parents):
            if part == root:
                break
            if part.is_symlink():
                raise DataError(
                    f"{shown(str(part))} is a link, and what is written into {shown(str(root))} stays there; "
                    "remove the link and put there what it leads to, or give another folder (which itself "
                    "may be a link to where there is room)"
                )


def make_folder(path: Path) -> Path:
    """Make a folder and those above it, where they are not there, and return it: DataError, OSError."""
    refuse_links(path)
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its place if the block succeeds, else vanishes.

    A link at ``path`` is replaced, not followed. Raises DataError where the place cannot be written.
    """
    temporary: Path | None = None
    refuse_links(path.parent)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        ending = os.fsencode(path.suffix)[:20].decode(errors="ignore")  # by which Pillow knows a format
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=ending)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        try:
            temporary.chmod(0o644)
            temporary.replace(path)
            _log.debug("wrote: %s", path)
        except OSError as error:  # a folder of that name
            raise unwritable(path, error) from error
    except OSError as error:
        # What else goes wrong while the file is made is the caller's to explain.
        if temporary is None or error.errno in _FULL:
            raise unwritable(path, error) from error
        raise
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def replace_file(path: Path, content: bytes) -> None:
    """Replace (or create) a file and wait until it is on the disk. Raises OSError, leaving the old one."""
    refuse_links(path.parent)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path))
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            _synced(file, content)
        temporary.chmod(0o644)
        os.replace(temporary, path)
        _log.debug("wrote: %s", path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)


def write_synced(path: Path, content: bytes | memoryview) -> None:
    """Write a file that is not there yet and wait until it is on the disk. Raises OSError."""
    with path.open("xb") as file:
        _synced(file, content)


@contextmanager
def directory(final: Path) -> Iterator[Path]:
    """Yield a temporary directory that becomes ``final`` by one rename once the block has ended well."""
    make_folder(final.parent)
    temporary = Path(tempfile.mkdtemp(dir=final.parent, prefix=_prefix(final)))
    try:
        temporary.chmod(0o755)
        yield temporary
        _sync_directory(temporary)
        os.rename(temporary, final)
        _log.debug("wrote: %s", final)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync_directory(final.parent)


def open_append(path: Path) -> IO[bytes]:
    """Open a file, new or not, to write at its end, unbuffered. Raises DataError for a link, and OSError."""
    refuse_links(path)
    return _opened(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, "ab")


def open_update(path: Path) -> IO[bytes]:
    """Open a file that is there to write within it, unbuffered. Raises DataError for a link, and OSError."""
    refuse_links(path)
    return _opened(path, os.O_RDWR, "r+b")


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold a lock named after ``path``: of several processes wanting a file, one makes it, the rest wait."""
    try:
        make_folder(path.parent)
        lock = _opened(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, "r+b")
    except OSError as error:
        raise unwritable(path, error) from error
    with lock:
        # Without such locks (Windows, some network disks) work may be done twice, and is still atomic.
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class UnwritableError(DataError):
    """A place that cannot be written, unlike what lies there and cannot be read."""


def unwritable(path: Path, error: OSError) -> UnwritableError:
    """Return the error for a file that cannot be written: its name, why, and what to do."""
    reason = error.strerror or error
    return UnwritableError(
        f"cannot write {shown(str(path))} ({reason}); {remedy(error)}, or use another folder{_option(path)}"
    )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of the block, which writes a file, into the error of `unwritable`."""
    try:
        yield
    except OSError as error:
        raise unwritable(path, error) from error


def remedy(error: OSError) -> str:
    """Return what is to be done where a file cannot be written: room helps where there is too little."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "let this user write there"
    return "allow larger files (ulimit -f)" if error.errno == errno.EFBIG else "make room"


def _option(path: Path) -> str:
    """Return what says where a file is written: the command line of a claimed folder, else the cache's."""
    place = Path(os.path.abspath(path))
    if any(place.is_relative_to(root) for root in _claimed):
        return " (--out)"
    with contextlib.suppress(ConfigError):
        return " (LSGM_CACHE)" if path.is_relative_to(cache_dir()) else ""
    return ""


def remove(path: Path) -> None:
    """Remove a directory so that a kill half-way leaves no directory of its name behind."""
    condemned = Path(tempfile.mkdtemp(dir=path.parent, prefix=_prefix(path)))
    os.rename(path, condemned / path.name)
    shutil.rmtree(condemned, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove the unfinished files and directories that a killed process left in ``parent``."""
    for leftover in parent.glob(f"{TEMPORARY}*"):
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    # A name may have up to 255 bytes, and up to four of them to a letter.
    return f"{TEMPORARY}{os.fsencode(path.name)[:100].decode(errors='ignore')}."


def _is_link(path: Path) -> DataError:
    return DataError(f"{shown(str(path))} is a link, which is not written through; remove it")


def _opened(path: Path, flags: int, mode: str) -> IO[bytes]:
    """Open what is, or becomes, a regular file of one name: not what a link or a second name leads to."""
    if path.is_symlink():  # one that comes after this look is not followed either
        raise _is_link(path)
    try:
        handle = os.open(path, flags | _NOFOLLOW | getattr(os, "O_NONBLOCK", 0), 0o644)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _is_link(path) from error
        if error.errno == errno.ENXIO:  # a pipe that nobody reads
            raise DataError(f"{shown(str(path))} is not a file; remove it") from error
        raise
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1:
        os.close(handle)
        what = "has a second name (a hard link)" if stat.S_ISREG(about.st_mode) else "is not a file"
        raise DataError(f"{shown(str(path))} {what}, and is not written into; remove it")
    return os.fdopen(handle, mode, buffering=0)


def _synced(file: IO[bytes], content: bytes | memoryview) -> None:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    # Not every system lets a directory be opened; there the rename alone has to do.
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
