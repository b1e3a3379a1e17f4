"""A process that has imported everything once, and forks a real one for each command that it is told.

It reads a JSON object a line: the words of a command, where its output goes, and before which of the renames
that put finished files into their places it stops, to be killed there. It answers with the process's number,
then with how it ended. Its children have one thread, as it has itself: that is what makes forking safe.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pkgutil
import sys
import time
from pathlib import Path
from typing import Any

import tiny
import torch
import torch._dynamo  # which an optimiser asks for, and which takes two seconds
from eval.cost_curve.curve_models import Ink

import lsgm
import lsgm_eval
import lsgm_reports
from lsgm import cli
from lsgm_eval.gate import measure
from lsgm_eval.run import plan

__all__: list[str] = []


def told() -> None:
    """Run what comes in on standard input, one command after the other."""
    torch.set_num_threads(1)
    for package in (lsgm, lsgm_eval, lsgm_reports):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            with contextlib.suppress(ImportError):  # of what is not installed here
                importlib.import_module(module.name)
    if (tasks := Path("/proc/self/task")).is_dir():
        assert len(list(tasks.iterdir())) == 1, "a process of several threads must not be forked"
    # The tasks' data are the pictures that the tiny models learn.
    bars = tiny.bars()
    plan.load = lambda name, **options: bars  # type: ignore[assignment]
    measure.task_images = lambda task, models: bars  # type: ignore[assignment]
    plan.load_extractor = lambda spec, shape, device=None: Ink()  # type: ignore[assignment,misc]
    for line in sys.stdin:
        ask = json.loads(line)
        sys.stdout.flush()
        if (child := os.fork()) == 0:
            _run(ask)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(ask: dict[str, Any]) -> None:
    """Be the process of one command; does not return."""
    status = 1
    try:
        with open(ask["log"], "ab") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        os.chdir(ask["folder"])
        moves = _Moves(Path(ask["mark"]), ask["stop"])
        for name in ("rename", "replace"):
            setattr(os, name, moves.counted(getattr(os, name)))
        status = cli.main(ask["words"])
        Path(ask["mark"]).write_text(str(moves.count))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class _Moves:
    """Counts the renames of a process, and keeps it from one of them for good."""

    def __init__(self, mark: Path, stop: int | None) -> None:
        self.mark, self.stop, self.count = mark, stop, 0

    def counted(self, move: Any) -> Any:
        """Return a function that does what ``move`` does, unless it is the one not to be done."""

        def moved(*arguments: Any, **options: Any) -> None:
            if self.count == self.stop:
                self.mark.write_text("stopped")
                time.sleep(600)
            self.count += 1
            move(*arguments, **options)

        return moved


if __name__ == "__main__":
    told()
