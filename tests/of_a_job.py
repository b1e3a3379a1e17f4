"""A job whose commands are a few lines that count, save on SIGTERM and go on, in place of a training."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

from lsgm.commands.job import Job

__all__ = ["Light"]


class Light(Job):
    """A job of `count` in place of ``lsgm``."""

    def _launch(self) -> list[str]:
        return [sys.executable, __file__]


def count(place: Path, end: int, status: int) -> int:
    """Count to ``end`` in a file, one in 20 ms, and return ``status``; 143 where SIGTERM ends it."""
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    begun = int(place.read_text().split()[-1]) if place.exists() else 0
    for number in range(begun + 1, end + 1):
        with place.open("a") as file:
            file.write(f"{number} ")
        time.sleep(0.02)
        if told:
            return 143
    return status


if __name__ == "__main__":
    sys.exit(count(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
