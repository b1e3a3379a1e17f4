"""Downloads that survive interruption: a `.part` file grows by HTTP ranges until it is whole and verified."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lsgm.errors import DataError
from lsgm.files.limits import DOWNLOAD
from lsgm.files.regular import refuse_special
from lsgm.files.shown import shown
from lsgm.files.write import exclusive, open_append, unwritable
from lsgm.progress import bar

__all__ = ["UnreachableError", "download"]

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
    with _opener().open(request, timeout=timeout) as response:
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


def _opener() -> urllib.request.OpenerDirector:
    return urllib.request.build_opener(_SameKind)


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
