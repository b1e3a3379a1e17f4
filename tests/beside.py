"""Processes beside a test's own, forked from a server that imports torch and the package once for all."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

from lsgm import peers
from lsgm.errors import UserError
from lsgm.logs import speaking

__all__ = ["begin", "together", "two"]

PATIENCE = 240.0
"""Seconds that two processes may take on a busy machine."""


@cache
def _server() -> ForkServerContext:
    """Return what starts processes. Its server finds the modules that this process finds, and no others."""
    context = mp.get_context("forkserver")
    # The optimisers and DistributedDataParallel import torch._dynamo when they are first used.
    context.set_forkserver_preload(["lsgm.train.loop", "lsgm.runs.load", "torch._dynamo"])
    settings = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "LSGM_PROGRESS": "0"}
    with mock.patch.dict(os.environ, settings):
        forkserver.ensure_running()
    return context


def begin(work: Callable[..., int | None], *arguments: Any, said: Path, **environment: str) -> BaseProcess:
    """Start a process whose exit status is what ``work`` returns; the file ``said`` holds its standard error.

    ``work`` is a function of a module that can be imported by its name.
    """
    process = _server().Process(target=_child, args=(work, arguments, said, environment))
    process.start()
    return process


def together(
    work: Callable[..., int | None], *arguments: Any, folder: Path, size: int = 2
) -> list[tuple[BaseProcess, Path]]:
    """Start processes in the environment that torchrun gives them; the files hold their standard errors."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    folder.mkdir(parents=True, exist_ok=True)
    places = [folder / f"stderr-{rank}.txt" for rank in range(size)]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size)}
    return [
        (begin(work, *arguments, said=said, RANK=str(rank), LOCAL_RANK=str(rank), **place), said)
        for rank, said in enumerate(places)
    ]


def two(work: Callable[..., int | None], *arguments: Any, folder: Path) -> None:
    """Have two processes do the same work in the environment that torchrun gives them, and wait for both."""
    started = together(work, *arguments, folder=folder)
    for process, _ in started:
        process.join(PATIENCE)
    status = [process.exitcode for process, _ in started]
    for process, _ in started:
        process.kill()
    assert status == [0, 0], "\n".join(said.read_text() for _, said in started)


def _child(
    work: Callable[..., int | None], arguments: tuple[Any, ...], said: Path, environment: dict[str, str]
) -> None:
    # A shell has its background jobs ignore SIGINT, and so would Python in them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), sys.stderr.fileno())
    os.environ.update(environment)
    with speaking():
        try:
            status = work(*arguments)
        except Exception as error:
            # As the command line does: it may be no more than what another process's death led to.
            peers.failed(f"{type(error).__name__}: {error}", foreseen=isinstance(error, UserError))
            raise
        sys.exit(status)
