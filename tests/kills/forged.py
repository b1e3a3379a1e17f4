"""Commands as processes of their own, some of which are killed, forked from one that is ready for all."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

LIMIT = 60.0
"""Seconds in which a process must have come to where it is killed, on a machine that is busy with others."""


class Forge:
    """Runs commands as processes of their own, and kills some of them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log = folder, folder / "log.txt"
        path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
        quiet = {"LSGM_CACHE": str(folder / "cache"), "LSGM_PROGRESS": "0", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forge.py"))],
            env=os.environ | quiet | {"PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, words: Sequence[object], folder: Path) -> int:
        """Run a command to its end; return how many files it has put into their places."""
        mark, _ = self._begun(words, folder, None)
        assert self._answer() == 0, self.log.read_text()
        return int(mark.read_text())

    def kill(self, words: Sequence[object], folder: Path, before: int) -> None:
        """Kill a command that is about to put a file into its place, the one after ``before`` others."""
        mark, child = self._begun(words, folder, before)
        limit = time.monotonic() + LIMIT
        while not (mark.exists() and mark.read_text()):
            assert self._process.poll() is None
            assert time.monotonic() < limit, self.log.read_text()
            time.sleep(0.005)
        os.kill(child, signal.SIGKILL)
        assert self._answer() == -signal.SIGKILL

    def close(self) -> None:
        """End the process that all others come from."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(LIMIT)

    def _begun(self, words: Sequence[object], folder: Path, stop: int | None) -> tuple[Path, int]:
        folder.mkdir(exist_ok=True)
        mark = self.folder / "mark"
        mark.unlink(missing_ok=True)
        ask = {"words": [*map(str, words)], "folder": str(folder), "stop": stop}
        ask |= {"mark": str(mark), "log": str(self.log)}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(ask) + "\n")
        self._process.stdin.flush()
        return mark, self._answer()

    def _answer(self) -> int:
        assert self._process.stdout is not None
        return int(self._process.stdout.readline())
