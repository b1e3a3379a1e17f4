"""Processes of our own that call one function side by side, started in moments because they import no torch.

``python -m lsgm.workers package.module:function`` is one of them: it reads arguments from standard input and
writes results to standard output, pickled, until its input ends. So they end with the process that started
them, and run neither its script again, as ``multiprocessing`` would, nor what its threads hold, as a fork.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pickle
import queue
import subprocess
import sys
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

Answer = tuple[Any, Exception | None]


def cores() -> int:
    """Return how many cores this process may run on: its share where torchrun started several here."""
    known = hasattr(os, "sched_getaffinity")
    count = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    return max(count // beside(), 1)


def beside() -> int:
    """Return how many processes of torchrun share this machine's cores and memory, this one included."""
    said = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(int(said), 1) if said.isascii() and said.isdecimal() and len(said) < 6 else 1


class Workers:
    """A function, ``package.module:name``, in ``count`` processes; its module should import neither torch nor
    anything else that takes long.

    Arguments and results are pickled. What the function raises is raised by the call. Where a process cannot
    be started, or ends before it has answered, its calls are made here.
    """

    def __init__(self, target: str, count: int) -> None:
        self.target, self.count = target, count
        self._idle: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
        processes = [_started(target) for _ in range(count)]
        for process in processes:
            self._idle.put(process)
        self._pool = ThreadPoolExecutor(count, "lsgm-workers")
        self.close = weakref.finalize(self, _end, self._pool, [each for each in processes if each])

    def submit(self, *arguments: Any) -> Future[Any]:
        """Return the call with these arguments, which the first process that is free makes."""
        return self._pool.submit(self._call, arguments)

    def _call(self, arguments: tuple[Any, ...]) -> Any:
        process = self._idle.get()
        try:
            answer = None if process is None else _answer(process, arguments)
            if answer is None:
                process = None
                return _function(self.target)(*arguments)
        finally:
            self._idle.put(process)
        result, error = answer
        if error is not None:
            raise error
        return result


def in_order(submit: Callable[..., Future[Any]], calls: Iterable[Sequence[Any]], lead: int) -> Iterator[Any]:
    """Yield the results of calls with these arguments in their order, ``lead`` of them made ahead."""
    waiting: deque[Future[Any]] = deque()
    try:
        for arguments in calls:
            waiting.append(submit(*arguments))
            if len(waiting) > lead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for left in waiting:
            left.cancel()


def _function(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _started(target: str) -> subprocess.Popen[bytes] | None:
    home = str(Path(__file__).parent.parent)
    path = os.pathsep.join(filter(None, (home, os.environ.get("PYTHONPATH"))))
    # -P: the folder where the user is may be one that somebody sent, and hold modules of its own.
    command = [sys.executable, "-P", "-m", __name__, target]
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
        )
    except OSError:
        return None


def _answer(
    process: subprocess.Popen[bytes], arguments: tuple[Any, ...]
) -> tuple[Any, Exception | None] | None:
    """Return a result and what was raised in its place, or None where the process has ended."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        pickle.dump(arguments, process.stdin, pickle.HIGHEST_PROTOCOL)
        process.stdin.flush()
        answer: Answer = pickle.load(process.stdout)
    except (OSError, EOFError, pickle.UnpicklingError):
        return None
    return answer


def _end(pool: ThreadPoolExecutor, processes: list[subprocess.Popen[bytes]]) -> None:
    pool.shutdown(cancel_futures=True)
    for process in processes:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # of a process that has ended before
                    pipe.close()
        process.wait()


def _serve(target: str, asked: IO[bytes], told: IO[bytes]) -> None:
    """Answer calls until there are no more."""
    function = _function(target)
    while True:
        try:
            arguments = pickle.load(asked)
        except EOFError:
            return
        answer: Answer
        try:
            answer = function(*arguments), None
        except Exception as error:  # whatever it is, it belongs to the caller
            answer = None, error
        pickle.dump(answer, told, pickle.HIGHEST_PROTOCOL)
        told.flush()


if __name__ == "__main__":
    _serve(sys.argv[1], sys.stdin.buffer, sys.stdout.buffer)
