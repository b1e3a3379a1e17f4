"""Getting and checking what is not here: official datasets, and the weights that packages measure with.

Packages offer weights through the entry-point group ``lsgm.weights``: each is a mapping from names to
`Weights`. What is at hand anywhere, a mirror too, is left as it is; a download goes on where it stopped.
"""

from __future__ import annotations

import contextlib
import http.client
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsgm.data.dataset import Dataset, RemoteFile
from lsgm.data.images import sha256_of
from lsgm.data.places import (
    Mirror,
    file_sha256,
    find_mirror,
    is_there,
    mirror_ways,
    places_of,
    roots,
)
from lsgm.data.registry import DATASETS, find_dataset
from lsgm.discovery import offers
from lsgm.errors import DataError
from lsgm.files.limits import DOWNLOAD
from lsgm.files.names import shown
from lsgm.files.regular import refuse_special
from lsgm.files.write import cache_dir, exclusive, open_append, unwritable
from lsgm.logs import log
from lsgm.progress import bar


@dataclass(frozen=True)
class Weights:
    """Published weights of a network that measures.

    Attributes:
        remote: The file as it is published.
        places: Returns where copies may lie, in the order in which they are looked for.
        get: Returns where a good copy lies, downloading it into the cache where there is none.
    """

    remote: RemoteFile
    places: Callable[[], Sequence[Path]]
    get: Callable[[], Path]

    def find(self) -> Path | None:
        """Return where a good copy lies, None where there is none; nothing is downloaded."""
        return next((place for place in self.places() if self.remote.is_good(place)), None)


def published_weights() -> Mapping[str, Weights]:
    """Return the weights that the installed packages offer, by name."""
    found: dict[str, Weights] = {}
    for point in offers("lsgm.weights").values():
        found |= point.load()
    return found


def at_hand(name: str, search: list[Path]) -> Path | None:
    """Return where a whole and verified copy of a dataset lies, a mirror's folder or an official file's.

    A damaged copy does not count.
    """
    dataset = DATASETS[name]
    for whole in mirror_ways(name, search, _whole):
        with contextlib.suppress(DataError, OSError):
            return whole()
    if dataset.find is not None:
        for path in filter(None, map(dataset.find, search)):
            return path
    for part in [[root] for root in search] if dataset.together else [search]:
        copies = [_good_copy(item, name, part) for item in dataset.files]
        if copies and copies[0] is not None and all(copies):
            return copies[0].parent
    return None


def _whole(mirror: Mirror) -> Path:
    mirror.verify()
    return mirror.folder


def _good_copy(item: RemoteFile, name: str, search: list[Path]) -> Path | None:
    return next((place for place in places_of(name, item.file, search) if item.is_good(place)), None)


def fetch(files: Sequence[RemoteFile], folder: Path, *, dataset: str) -> list[Path]:
    """Download what is not in ``folder`` yet, each file verified before it takes its name.

    Raises DataError, which names the file, the place and the command, for no connection, contents that are
    refused, and a folder that cannot be written.
    """
    for item in files:

        def accept(part: Path, item: RemoteFile = item) -> None:
            if problem := item.problem(part):
                raise DataError(
                    f"what {item.url} sent is not the file wanted: {problem}; "
                    f"run `lsgm data fetch {dataset}` again, or get the file elsewhere"
                )

        try:
            download(item.url, folder / item.file, check=accept)
        except UnreachableError as error:
            part = folder / f"{item.file}.part"
            kept = f"; {part} is kept" if part.exists() else ""
            known = f" ({item.check})" if item.check else ""
            reason = str(error).partition(";")[0]
            raise DataError(
                f"{dataset}: {item.file}{known} is not here; {reason}{kept}; run `lsgm data fetch {dataset}` "
                f"where there is a network, or put the file into {folder} or a folder named by LSGM_DATA"
            ) from error
    return [folder / item.file for item in files]


def fetch_dataset(name: str, to: Path | None = None) -> list[str]:
    """Get a dataset into the cache, or below ``to``, and return a line for the screen on each thing done.

    Without ``to`` nothing is done where every place that is looked in together has it. Raises DataError,
    which names file, place and command, where there is no place to get it from, no network or no room.
    """
    dataset, search = DATASETS[name], roots() if to is None else [to]
    if dataset.bundled:
        return [f"{name}: nothing to fetch, it is rendered here"]
    if (place := at_hand(name, search)) is not None:
        return [f"{name}: nothing to fetch, it is in {place}"]
    if not dataset.files:
        looked = ", ".join(map(str, search))
        raise DataError(
            f"{name} cannot be downloaded; {dataset.how}; looked in {looked}, each with its sub-folders; "
            f"`lsgm data verify {name}` says whether it is found"
        )
    folder = (cache_dir() / "data" if to is None else to) / name
    wanted = _wanted(dataset, folder, search)
    return [f"{path}  sha256 {file_sha256(path)}" for path in fetch(wanted, folder, dataset=name)]


def _wanted(dataset: Dataset, folder: Path, search: list[Path]) -> list[RemoteFile]:
    """Return the files to download, and remove damaged ones that stand in their way in the cache."""
    search = [folder.parent] if dataset.together else search
    wanted = [item for item in dataset.files if _good_copy(item, dataset.name, search) is None]
    for item in wanted:
        path = folder / item.file
        if not path.is_file():
            continue
        wrong = f"{path} is not the file that it should be"
        if not path.is_relative_to(cache_dir()):  # not ours to throw away
            raise DataError(f"{wrong}; delete it and run `lsgm data fetch {dataset.name}` again")
        log.warning(f"{wrong}; it is fetched again")
        path.unlink()
    return wanted


def fetch_weights(name: str, weights: Weights) -> list[str]:
    """Get published weights into the cache unless a good copy is anywhere; return a line for the screen.

    Raises DataError, which names file, place and command, without a network or room.
    """
    if (place := weights.find()) is not None:
        return [f"{name}: nothing to fetch, it is in {place}"]
    path = weights.get()
    return [f"{path}  sha256 {file_sha256(path)}"]


# Hashing every file of a dataset, and reading it, or of weights: what `lsgm data verify` reports


@dataclass(frozen=True)
class Checked:
    """One thing that was checked: a file, or the pixels read from it. ``problem`` is "" where all is well.

    ``dataset`` may be the name of weights.
    """

    dataset: str
    item: str
    problem: str = ""


def verify(name: str, *, required: bool = True) -> Iterator[Checked]:
    """Yield a finding for every file of a dataset, then, where these are good, one for its pixels.

    An absent dataset is passed over unless it is ``required``.
    """
    search = roots()
    found = find_dataset(name, search)
    if found is None and not DATASETS[name].bundled and not required:
        return
    files = list(_files(name, found, search))
    yield from files
    if not any(finding.problem for finding in files):
        yield _pixels(name, search)


def _files(name: str, found: Path | None, search: list[Path]) -> Iterator[Checked]:
    if found is None:
        return
    mirror = find_mirror(name, found) if found.is_dir() else None
    if mirror is not None:
        for entry, problem in mirror.problems():
            yield Checked(name, str(mirror.folder / entry.file), problem)
        return
    for item in DATASETS[name].files:
        for path in places_of(name, item.file, search)[:1]:
            yield _file(name, item, path)


def _file(name: str, item: RemoteFile, path: Path) -> Checked:
    try:
        problem = item.problem(path)
    except (OSError, DataError) as error:
        what = (isinstance(error, OSError) and error.strerror) or str(error)
        problem = what if what.startswith(str(path)) else f"{path} cannot be read ({what})"
    advice = f"; delete it and run `lsgm data fetch {name}`" if problem else ""
    return Checked(name, str(path), problem + advice)


def verify_weights(name: str, weights: Weights, *, required: bool = True) -> Iterator[Checked]:
    """Yield a finding for every copy of published weights; that there is none is one where ``required``."""
    places = list(dict.fromkeys(weights.places()))
    there = [place for place in places if is_there(place)]
    for place in there:
        yield _file(name, weights.remote, place)
    if required and not there:
        looked = ", ".join(map(str, places))
        problem = f"not here; looked for {looked}: run `lsgm data fetch {name}`"
        yield Checked(name, weights.remote.file, problem)


def _pixels(name: str, search: list[Path]) -> Checked:
    try:
        images = DATASETS[name].read(search)
    except DataError as error:
        return Checked(name, "pixels", str(error))
    if sha256_of(images.splits.values()) != images.sha256:  # only memory-mapped sets can get here
        return Checked(
            name, "pixels", f"the pixels of {name} in the cache are corrupted; delete {cache_dir()}"
        )
    counts = ", ".join(f"{len(rows):,} {split}" for split, rows in images.splits.items())
    return Checked(name, f"{images.identity} ({counts})")


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

    Raises UnreachableError for no connection and an answer that is not the file, DataError for contents that
    are refused and a place that cannot be written.
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
        # What an earlier call left may be of another file, or damaged since: then once from the start.
        for again in [True, False] if part.exists() else [False]:
            _fill(url, part, attempts, timeout)
            try:
                check(part)
                break
            except DataError:
                part.unlink()
                if not again:
                    raise
        try:
            part.replace(target)
        except OSError as error:
            raise unwritable(target, error) from error


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
