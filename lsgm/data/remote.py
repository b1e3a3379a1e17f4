"""Official archives: their addresses and the checksums by which they are known."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lsgm.data.download import UnreachableError, download
from lsgm.data.store import file_sha256
from lsgm.errors import DataError
from lsgm.files.limits import DATASET_FILE
from lsgm.files.regular import open_regular

__all__ = ["RemoteFile", "fetch"]


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
