"""Processes that call a function: results in order, errors, and calls whose process has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import Future
from typing import Any

import pytest

from lsgm.workers import Workers, cores, in_order


def test_results_come_in_order_and_what_is_raised_is_raised() -> None:
    team = Workers("operator:truediv", 2)
    calls = [(12, k) for k in range(1, 7)]
    assert list(in_order(team.submit, calls, 3)) == [12, 6, 4, 3, 2.4, 2]
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        list(in_order(team.submit, [(1, 1), (1, 0), (1, 2)], 3))
    team.close()


def test_what_a_process_that_ended_was_to_do_is_done_here() -> None:
    team = Workers("os:getpid", 2)
    elsewhere = {team.submit().result() for _ in range(4)}
    assert os.getpid() not in elsewhere
    for pid in elsewhere:
        os.kill(pid, 9)
    assert {team.submit().result() for _ in range(4)} == {os.getpid()}
    team.close()


def test_where_no_process_can_be_started_the_work_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    assert Workers("os:getpid", 2).submit().result() == os.getpid()


def test_only_a_few_calls_are_made_ahead() -> None:
    made: list[int] = []

    def submit(number: int) -> Future[Any]:
        made.append(number)
        done: Future[Any] = Future()
        done.set_result(number)
        return done

    results = in_order(submit, ((k,) for k in range(100)), 4)
    assert next(results) == 0
    assert len(made) == 5
    results.close()


def test_workers_end_with_the_process_that_started_them_and_import_no_torch() -> None:
    script = (
        "from lsgm.workers import Workers; import os\n"
        "team = Workers('lsgm.data.decoding:worker_count', 1)\n"
        "print(team.submit().result(), team._idle.get().pid, flush=True); os._exit(0)"
    )
    said = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(said.split()[0]) >= 1
    light = "import lsgm.data.decoding, lsgm.typefaces, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", light], check=True)


def test_processes_of_torchrun_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    for beside, share in (("1", 8), ("3", 2), ("20", 1), ("0", 8), ("two", 8)):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", beside)
        assert cores() == share
