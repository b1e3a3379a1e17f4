"""Benchmarks: what things cost on this machine. Each is a module with ``HELP`` and ``run(argv) -> int``."""

from __future__ import annotations

from lsgm.discovery import offers

__all__ = ["benchmarks"]

_OWN = {
    "train": "lsgm.bench.train",
    "cost": "lsgm.bench.cost",
    "fold": "lsgm.bench.fold",
    "memory": "lsgm.bench.memory",
    "nll": "lsgm.bench.nll",
    "sample": "lsgm.bench.sample",
    "variance": "lsgm.bench.variance",
}


def benchmarks() -> dict[str, str]:
    """Return the benchmarks, name -> module: this package's and the entry-point group ``lsgm.bench``'s.

    A benchmark of this package is a line above; of another one, an entry point. None is imported here.
    """
    return _OWN | {name: point.value for name, point in offers("lsgm.bench").items()}
