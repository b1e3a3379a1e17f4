"""Commands as steps of a longer one: printed, then run here or, where they train, also side by side."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lsgm.discovery import offers
from lsgm.errors import UserError
from lsgm.logs import log, quiet, speaking

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

Key = TypeVar("Key", bound=Hashable)


def one_by_one(commands: Mapping[Key, Sequence[str]]) -> Iterator[tuple[Key, int, str]]:
    """Run training commands in this process; yield of each its status, and why it did not stay finite."""
    for key, argv in commands.items():
        announce(argv)
        yield key, *_attempt(argv)


def side_by_side(commands: Mapping[Key, Sequence[str]], jobs: int) -> Iterator[tuple[Key, int, str]]:
    """Do the same in processes, as many at a time; when this one ends, they save and end too."""
    import multiprocessing
    import signal
    from multiprocessing.connection import wait

    context = multiprocessing.get_context("spawn")
    # An orderly end: Python then stops its daemonic children, which training takes as a request to save.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    waiting = list(commands.items())
    running: dict[Any, tuple[Key, SpawnProcess]] = {}
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                key, argv = waiting.pop(0)
                announce(argv)
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_child, args=(list(argv), jobs, theirs), daemon=True)
                with _safe_path():
                    process.start()
                theirs.close()
                running[ours] = (key, process)
            answers: list[Any] = wait(list(running))
            for answer in answers:
                key, process = running.pop(answer)
                try:
                    outcome = answer.recv()
                except EOFError:  # it was killed before it could send any
                    outcome = None
                process.join()
                yield key, *(outcome or (process.exitcode or 1, ""))
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Let processes that are started look for no module in the working directory.

    It is the first place in which a fresh Python looks, before it is told where this process does, and in a
    folder that somebody sent a ``multiprocessing.py`` may lie.
    """
    name = "PYTHONSAFEPATH"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _child(argv: Sequence[str], jobs: int, answer: Connection) -> None:
    """Train in a process of its own with its share of the cores, without a bar; send the outcome."""
    import torch

    os.environ["LSGM_PROGRESS"] = "0"
    torch.set_num_threads(max(1, min(torch.get_num_threads(), (os.cpu_count() or 1) // jobs)))
    with speaking():
        try:
            outcome = _attempt(argv)
        except UserError as error:
            log.error(str(error))
            outcome = (2, "")
    with contextlib.suppress(BrokenPipeError):  # the grid was ended, and with it this training
        answer.send(outcome)


def _attempt(argv: Sequence[str]) -> tuple[int, str]:
    """Train; return the exit status, and why it did not stay finite."""
    from lsgm.train.signals import TrainingError

    try:
        return run_command(argv), ""
    except TrainingError as error:
        return 2, str(error).partition(";")[0]


def run_command(argv: Sequence[str]) -> int:
    """Run a command line in this process; what it raises is for the caller."""
    name, *rest = argv
    return int(offers("lsgm.commands")[name].load().run(rest))


def step(argv: Sequence[str]) -> int:
    """Print a command line as one would type it, and run it as the command line does; return its status."""
    from lsgm.cli import main

    announce(argv)
    return main(list(argv))


def announce(argv: Sequence[str]) -> None:
    """Print a command line as one would type it, unless only warnings are wanted."""
    if not quiet():
        print(f"\n$ lsgm {shlex.join(argv)}", file=sys.stderr, flush=True)
