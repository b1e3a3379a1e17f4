"""Official files: their addresses, the checksums by which they are known, and downloads that go on."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lsgm.data.places import file_sha256
from lsgm.errors import DataError
from lsgm.files.limits import DATASET_FILE, DOWNLOAD
from lsgm.files.names import shown
from lsgm.files.regular import open_regular, refuse_special
from lsgm.files.write import exclusive, open_append, unwritable
from lsgm.progress import bar

__all__ = ["RemoteFile", "UnreachableError", "download", "fetch"]


@dataclass(frozen=True)
class RemoteFile:
    """A file of an official archive.

    Attributes:
        file: Its name here.
        url: Where it comes from.
        sha256: Its checksum, where one is published or known.
        contents_md5: md5 of the uncompressed contents of a gzip file: the same however it was compressed.
    """

    file: str
    url: str
    sha256: str = ""
    contents_md5: str = ""

    @property
    def check(self) -> str:
        """Return the checksum in words, "" where none is known."""
        if self.sha256:
            return f"sha256 {self.sha256}"
        return f"md5 of the uncompressed contents {self.contents_md5}" if self.contents_md5 else ""

    def problem(self, path: Path) -> str:
        """Return what is wrong with the file at a path, in a sentence without advice, or "" (OSError)."""
        if not self.check and _is_page(path):
            return f"{path} is a web page"
        if self.sha256 and (found := file_sha256(path)) != self.sha256:
            return f"{path} is truncated or corrupted: its sha256 is {found} instead of {self.sha256}"
        if self.contents_md5:
            try:
                found = hashlib.md5(gunzip(path), usedforsecurity=False).hexdigest()
            except DataError as error:
                return str(error)
            if found != self.contents_md5:
                return (
                    f"{path} is not the official file: its contents have md5 {found}, not {self.contents_md5}"
                )
        return ""

    def is_good(self, path: Path) -> bool:
        """Return whether the file at a path can be read and is the one."""
        try:
            return not self.problem(path)
        except (OSError, DataError):
            return False

    def verify(self, path: Path, *, dataset: str) -> None:
        """Check the file at a path.

        Raises:
            DataError: its checksum is another one.
        """
        if problem := self.problem(path):
            raise DataError(f"{problem}; delete it and run `lsgm data fetch {dataset}`")


def _is_page(path: Path) -> bool:
    with open_regular(path) as file:
        return file.read(512).lstrip().startswith(b"<")


def gunzip(path: Path) -> bytes:
    """Return the contents of a gzip file.

    Raises:
        DataError: it is truncated or corrupted, or unpacks to more than any file of a dataset.
    """
    with open_regular(path) as packed:
        try:
            with gzip.GzipFile(fileobj=packed) as file:
                contents = file.read(DATASET_FILE.value + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is truncated or corrupted ({error})") from error
    DATASET_FILE.hold(f"{path}, unpacked,", len(contents))
    return contents


def fetch(files: Sequence[RemoteFile], folder: Path, *, dataset: str) -> list[Path]:
    """Download what is not in ``folder`` yet, each file verified before it takes its name.

    Raises:
        DataError: no connection, contents that are refused, or a folder that cannot be written; names the
            file, the place and the command.
    """
    for item in files:
        try:
            download(item.url, folder / item.file, check=partial(_accept, item, dataset))
        except UnreachableError as error:
            raise _absent(item, folder, dataset, error) from error
    return [folder / item.file for item in files]


def _absent(item: RemoteFile, folder: Path, dataset: str, error: UnreachableError) -> DataError:
    part = folder / f"{item.file}.part"
    kept = f"; {part} is kept" if part.exists() else ""
    known = f" ({item.check})" if item.check else ""
    reason = str(error).partition(";")[0]
    return DataError(
        f"{dataset}: {item.file}{known} is not here; {reason}{kept}; run `lsgm data fetch {dataset}` where "
        f"there is a network, or put the file into {folder} or a folder named by LSGM_DATA"
    )


def _accept(item: RemoteFile, dataset: str, part: Path) -> None:
    if problem := item.problem(part):
        raise DataError(
            f"what {item.url} sent is not the file wanted: {problem}; "
            f"run `lsgm data fetch {dataset}` again, or get the file elsewhere"
        )


# Downloads that survive interruption: a `.part` file grows by HTTP ranges until it is whole and verified

CHUNK = 1 << 18


class UnreachableError(DataError):
    """No connection, or an answer that is not the file; what has come so far is kept."""


def download(
    url: str,
    target: Path,
    *,
    check: Callable[[Path], None] = lambda path: None,
    attempts: int = 5,
    timeout: float = 60.0,
) -> None:
    """Fetch ``url`` to ``target`` unless it is there, continuing what an earlier call left behind.

    Args:
        url: http, https or file address.
        target: Final path; it appears at once and only after ``check`` has accepted the contents.
        check: Raises DataError where the contents are wrong; they are then thrown away.
        attempts: Connections tried in a row without progress before giving up.
        timeout: Seconds of silence after which a connection is given up.

    Raises:
        UnreachableError: no connection, or an answer that is not the file.
        DataError: contents that are refused, or a place that cannot be written.
    """
    if not target.is_dir():  # which is said when it is in the way
        refuse_special(target)
    if target.is_file():
        return
    with exclusive(target):
        if target.is_file():
            return
        part = target.with_name(target.name + ".part")
        refuse_special(part)
        resumed = part.exists()
        _fill(url, part, attempts, timeout)
        try:
            _checked(part, check)
        except DataError:
            if not resumed:
                raise
            # What an earlier call left may have been of another file, or damaged since: once from the start.
            _fill(url, part, attempts, timeout)
            _checked(part, check)
        try:
            part.replace(target)
        except OSError as error:
            raise unwritable(target, error) from error


def _checked(part: Path, check: Callable[[Path], None]) -> None:
    try:
        check(part)
    except DataError:
        part.unlink()
        raise


def _fill(url: str, part: Path, attempts: int, timeout: float) -> None:
    failures, last = 0, ""
    while failures < attempts:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _fetch(url, part, before, timeout):
                return
            last = "the connection closed early"
        except urllib.error.HTTPError as error:
            if error.code == 416 and before:  # a part as long as the file or longer: start again
                part.unlink()
            elif error.code < 500:
                raise UnreachableError(
                    f"{url} answered {error.code} {error.reason}; check the address"
                ) from error
            last = f"{error.code} {error.reason}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            last = str(getattr(error, "reason", error)) or type(error).__name__
        grown = part.exists() and part.stat().st_size > before
        failures = 0 if grown else failures + 1
        time.sleep(0.2 * failures)
    kept = f"; {part} is kept" if part.exists() else ""
    raise UnreachableError(f"could not download {url} ({last}){kept}; run the same command again to go on")


def _fetch(url: str, part: Path, have: int, timeout: float) -> bool:
    """Append what is still missing; return whether the file is now complete."""
    headers = {"User-Agent": "lsgm-bench", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.build_opener(_SameKind).open(request, timeout=timeout) as response:
        resumed = response.status == 206 and _range_start(response) == have
        have = have if resumed else 0  # a server without ranges sends everything: begin again
        length = str(response.headers.get("Content-Length", ""))
        total = have + int(length) if length.isascii() and length.isdecimal() else None
        where = f"what {shown(url)} sends"
        DOWNLOAD.hold(where, total or 0)
        with bar(total=total, desc=part.name.removesuffix(".part"), unit="B") as progress:
            progress.unit_scale = True
            progress.update(have)
            if not resumed:
                _write(part, b"", fresh=True)
            while chunk := response.read(CHUNK):
                have += len(chunk)
                if have > DOWNLOAD.value:  # of a length that was not announced
                    part.unlink()
                DOWNLOAD.hold(where, have)
                _write(part, chunk)
                progress.update(len(chunk))
    return total is None or part.stat().st_size == total


class _SameKind(urllib.request.HTTPRedirectHandler):
    """Follows from web address to web address only, and from an encrypted one to another."""

    def redirect_request(self, req: urllib.request.Request, *args: Any) -> urllib.request.Request | None:
        """Return the next request (`HTTPRedirectHandler`). Raises UnreachableError for another kind."""
        new = str(args[-1])
        wanted = ("https",) if req.type == "https" else ("http", "https")
        if urllib.parse.urlsplit(new).scheme not in wanted:
            raise UnreachableError(
                f"{shown(req.full_url)} leads to {shown(new)[:200]}, which is not followed; check the address"
            )
        return super().redirect_request(req, *args)


def _write(part: Path, chunk: bytes, *, fresh: bool = False) -> None:
    """Write to the file; a full disk is no fault of the connection, and no second attempt mends it."""
    try:
        with open_append(part) as file:
            if fresh and file.seek(0, 2):
                file.truncate(0)
            left = memoryview(chunk)
            while left:
                left = left[file.write(left) :]
    except OSError as error:
        raise unwritable(part, error) from error


def _range_start(response: Any) -> int:
    """Return the first byte of a partial answer, -1 where it does not say."""
    unit, _, rest = str(response.headers.get("Content-Range", "")).partition(" ")
    start = rest.partition("-")[0]
    return int(start) if unit == "bytes" and start.isdigit() else -1
