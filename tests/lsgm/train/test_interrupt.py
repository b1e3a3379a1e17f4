"""Ctrl-C and SIGTERM: finish the step, save, say how to go on, exit with 128 + signal; kill -9 is no harm."""

from __future__ import annotations

import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from beside import begin
from train_toy import LONG, long, run_toy, stuck, timeless, two_stages, weights

from lsgm.runs.directory import Run
from lsgm.train.signals import Interrupt


def test_a_signalled_process_saves_says_how_to_go_on_and_is_resumed_exactly(tmp_path: Path) -> None:
    """After both signals it is killed, at a random moment and in the middle of a save, and resumed."""
    folder = tmp_path / "run"
    for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")):
        before, said = Run(folder).newest(), tmp_path / f"{name}.txt"
        process = begin(long, folder, 0.03, 0.05, said=said)
        wait_for_checkpoint_after(before, folder, process)
        signalled(process, number)
        process.join(60)
        assert process.exitcode == 128 + number
        newest = Run(folder).newest()
        assert newest is not None
        message = said.read_text()
        assert f"stopped by {name} after step {int(newest.name[5:])}" in message
        assert f"{newest}: run the same command again to go on" in message
        assert "Traceback" not in message
    before = Run(folder).newest()
    process = begin(long, folder, 0.02, 0.05, said=tmp_path / "killed.txt")
    wait_for_checkpoint_after(before, folder, process)
    time.sleep(random.uniform(0.0, 0.5))
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    # What a kill in the middle of a save leaves behind is swept.
    (Run(folder).checkpoints / ".tmp-step-9999999").mkdir()
    run_toy(folder, two_stages(LONG))
    run_toy(tmp_path / "whole", two_stages(LONG))
    assert weights(folder) == weights(tmp_path / "whole")
    assert timeless(folder) == timeless(tmp_path / "whole")
    assert not list(Run(folder).checkpoints.glob(".tmp-*"))


def test_a_second_ctrl_c_quits_at_once_and_leaves_whole_checkpoints(tmp_path: Path) -> None:
    # The 25th step takes minutes: only the second signal can end it.
    process = begin(stuck, tmp_path, said=tmp_path / "said.txt")
    while (newest := Run(tmp_path).newest()) is None or int(newest.name[5:]) < 24:
        wait_for_checkpoint_after(newest, tmp_path, process)
    time.sleep(0.2)
    signalled(process, signal.SIGINT)
    time.sleep(0.2)
    assert process.is_alive()
    signalled(process, signal.SIGINT)
    process.join(10)
    assert process.exitcode == 130
    assert "Ctrl-C again quits at once" in (tmp_path / "said.txt").read_text()
    newest = Run(tmp_path).newest()
    assert newest is not None
    assert newest.name == "step-0000024"


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt:
        assert signal.getsignal(signal.SIGINT) != before[0]
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.signal == signal.SIGTERM
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_torchruns_echo_of_a_ctrl_c_is_not_a_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with Interrupt() as interrupt:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.signal == signal.SIGINT


def signalled(process: BaseProcess, number: int) -> None:
    assert process.pid is not None
    os.kill(process.pid, number)


def wait_for_checkpoint_after(before: Path | None, folder: Path, process: BaseProcess) -> None:
    limit = time.monotonic() + 60
    while Run(folder).newest() == before:
        assert process.is_alive()
        assert time.monotonic() < limit
        time.sleep(0.01)
