"""Ctrl-C and SIGTERM: finish the step, save, say how to go on, exit with 128 + signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import train_toy
from train_toy import LONG, run_toy, two_stages, weights

from lsgm.runs.directory import Run
from lsgm.train.signals import Interrupt


def test_a_signalled_process_saves_says_how_to_go_on_and_is_resumed_exactly(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for number, name in ((signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "Ctrl-C")):
        before = Run(folder).newest()
        process = start(folder, pause=0.03, every=0.05)
        wait_for_checkpoint_after(before, folder, process)
        process.send_signal(number)
        _, message = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        newest = Run(folder).newest()
        assert f"stopped by {name} after step {int(newest.name[5:])}" in message
        assert f"{newest}: run the same command again to go on" in message
        assert "Traceback" not in message
    run_toy(folder, two_stages(LONG))
    run_toy(tmp_path / "whole", two_stages(LONG))
    assert weights(folder) == weights(tmp_path / "whole")


def test_a_second_ctrl_c_quits_at_once_and_leaves_whole_checkpoints(tmp_path: Path) -> None:
    # The 25th step takes minutes: only the second signal can end it.
    code = (
        "import sys, time; from pathlib import Path; import train_toy as t;"
        "hook = lambda call: (time.sleep(300 if call == 25 else 0), 1.0)[1];"
        "config = t.replace(t.LONG, checkpoint_every=1e-6, keep=99);"
        "t.run_toy(Path(sys.argv[1]), t.two_stages(config, hook=hook))"
    )
    environment = {**os.environ, "LSGM_PROGRESS": "0", "PYTHONPATH": str(Path(train_toy.__file__).parent)}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE, text=True, env=environment
    )
    wait_until_step(24, tmp_path, process)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Ctrl-C again quits at once" in message
    assert Run(tmp_path).newest().name == "step-0000024"


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


def start(folder: Path, *, pause: float, every: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, train_toy.__file__, str(folder), str(pause), str(every)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LSGM_PROGRESS": "0", "OMP_NUM_THREADS": "1"},
    )


def wait_for_checkpoint_after(before: Path | None, folder: Path, process: subprocess.Popen[str]) -> None:
    limit = time.monotonic() + 60
    while Run(folder).newest() == before:
        assert process.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.01)


def wait_until_step(step: int, folder: Path, process: subprocess.Popen[str]) -> None:
    while (newest := Run(folder).newest()) is None or int(newest.name[5:]) < step:
        wait_for_checkpoint_after(newest, folder, process)
