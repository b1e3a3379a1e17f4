"""Readers of files that no command line names: they lie in the package, or are held by their sums."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

__all__ = ["READERS"]


def _costs(path: Path) -> None:
    from lsgm.recipes import read_costs

    read_costs(path.parent)


def _published(path: Path) -> None:
    from lsgm_reports.published import editions, published, published_ablations

    published(path)
    published_ablations(path)
    editions(path)


def _calibrations(path: Path) -> None:
    from lsgm_reports.published import calibrations

    calibrations(path)


def _csv(path: Path) -> None:
    from lsgm.files.limits import DOCUMENT
    from lsgm.files.regular import read_bytes
    from lsgm.results.files import from_csv

    from_csv(read_bytes(path, DOCUMENT).decode("utf-8", "surrogateescape"))


def _idx(path: Path) -> None:
    from lsgm.data.dataset import gunzip
    from lsgm.data.mnist import read_idx

    read_idx(gunzip(path), path)


def _cifar(path: Path) -> None:
    from lsgm.data.cifar import read_archive

    read_archive(path)


def _chardata(path: Path) -> None:
    from lsgm.data.omniglot import read_chardata

    read_chardata(path, "of a test", counts=(40, 10))


READERS: dict[str, Callable[[Path], None]] = {
    "costs": _costs,
    "published": _published,
    "calibrations": _calibrations,
    "csv": _csv,
    "idx": _idx,
    "cifar": _cifar,
    "chardata": _chardata,
}
