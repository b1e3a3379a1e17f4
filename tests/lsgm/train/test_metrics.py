"""metrics.jsonl holds each step once, whatever happened; TensorBoard is an extra."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from train_toy import run_toy

from lsgm.errors import CheckpointError
from lsgm.runs.checkpoint import read_state
from lsgm.runs.directory import MetricsLog, read_metrics
from lsgm.trackers import Trackers
from lsgm.train.signals import PHASES, StepTimer, TrainingClock


def test_rows_after_the_checkpoint_and_a_torn_line_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(
        "".join(json.dumps({"step": s, "stage": "a"}) + "\n" for s in (5, 10, 15)) + '{"step": 20, "st'
    )
    log = MetricsLog(path, 10)
    log.write({"step": 15, "stage": "a", "loss": math.nan})
    log.close()
    assert read_metrics(path) == [
        {"step": 5, "stage": "a"},
        {"step": 10, "stage": "a"},
        {"step": 15, "stage": "a", "loss": None},
    ]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_while_logging_is_named_and_closing_hides_nothing(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    with contextlib.ExitStack() as stack, Path("/dev/full").open("wb", buffering=0) as log._file:
        stack.callback(log.close)
        with pytest.raises(CheckpointError, match=r"metrics\.jsonl could not be written \(No space left"):
            log.write({"step": 1, "stage": "a"})
        log.close()  # which tries once more to write what could not be written


def test_a_tracker_whose_disk_is_full_is_left_out_and_every_row_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full:
        def scalars(self, step: int, values: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    log = MetricsLog(tmp_path / "metrics.jsonl", 0, Trackers({"full": Full()}))  # type: ignore[dict-item]
    for step in (1, 2):
        log.write({"step": step, "stage": "a", "loss": 1.0})
    log.close()
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lsgm: full tracks no further (OSError: [Errno 28] No space left on device)")


def test_a_run_killed_after_logging_logs_each_step_once(tmp_path: Path) -> None:
    run_toy(tmp_path, max_steps=7)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 10, "stage": "vae", "error": 99}\n{"step": 12, "sta')
    run_toy(tmp_path)
    steps = [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")]
    assert steps == [5, 10, 12, 17, 22, 24]
    assert all(row.get("error") != 99 for row in read_metrics(tmp_path / "metrics.jsonl"))


def test_a_row_has_rates_norms_terms_and_speed(tmp_path: Path) -> None:
    run_toy(tmp_path, val_levels=torch.zeros(2, 1, 2, 2, dtype=torch.uint8))
    last = read_metrics(tmp_path / "metrics.jsonl")[-1]
    expected = {
        "step",
        "stage",
        "seconds",
        "cpu_seconds",
        "images",
        "size",
        "error",
        "total",
        "images_per_second",
        "val_error",
    }
    groups = {f"{kind}/{name}" for kind in ("lr", "grad_norm") for name in ("vae", "prior")}
    assert last.keys() == expected | groups
    assert last["images"] == 12 * 8 + 12 * 12


def test_a_tracker_that_is_not_there_is_said_once_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert run_toy(tmp_path, max_steps=6, track=["tensorboard"]).step == 6
    lines = [line for line in capsys.readouterr().err.splitlines() if "tensorboard" in line]
    assert len(lines) == 1
    assert "it goes on without" in lines[0]


def test_tensorboard_writes_beside_the_log(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is an extra")
    run_toy(tmp_path, max_steps=6, track=["tensorboard"])
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_the_timer_splits_the_steps_it_counts(tmp_path: Path) -> None:
    timer = StepTimer(skip=4)
    run_toy(tmp_path, timer=timer)
    assert timer.steps == 20
    assert set(timer.seconds) == set(PHASES)
    assert min(timer.seconds.values()) > 0
    assert sum(timer.shares().values()) == pytest.approx(1.0)
    assert timer.steps_per_second == pytest.approx(20 / sum(timer.seconds.values()))


def test_the_training_clock_stands_still_while_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    now, spent = [100.0], [30.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr("time.process_time", lambda: spent[0])
    clock = TrainingClock(5.0)
    now[0] += 2.0
    spent[0] += 4.0
    assert (clock.read(), clock.cpu()) == (7.0, 4.0)
    with clock.paused():
        now[0] += 50.0
        spent[0] += 60.0
        assert (clock.read(), clock.cpu()) == (7.0, 4.0)
    now[0] += 1.0
    spent[0] += 0.5
    assert (clock.read(), clock.cpu()) == (8.0, 4.5)


def test_the_processors_seconds_go_on_over_a_stop_and_are_told_by_stage(tmp_path: Path) -> None:
    first = run_toy(tmp_path, max_steps=7).checkpoint
    assert first is not None
    before = read_state(first)
    last = run_toy(tmp_path).checkpoint
    assert last is not None
    after = read_state(last)
    assert list(after["cpu_seconds_by_stage"]) == list(after["seconds_by_stage"])
    assert 0 < before["cpu_seconds"] < after["cpu_seconds_by_stage"][before["stage"]]
    assert after["cpu_seconds"] == after["cpu_seconds_by_stage"][after["stage"]] > 0


def test_a_stage_begun_before_they_were_counted_says_nothing_of_the_processors_seconds(
    tmp_path: Path,
) -> None:
    first = run_toy(tmp_path, max_steps=7).checkpoint
    assert first is not None
    state = json.loads((first / "state.json").read_text())
    begun = state["stage"]
    del state["cpu_seconds"], state["cpu_seconds_by_stage"]
    (first / "state.json").write_text(json.dumps(state))
    last = run_toy(tmp_path).checkpoint
    assert last is not None
    spent = read_state(last)["cpu_seconds_by_stage"]
    assert spent.pop(begun) is None
    assert all(seconds > 0 for seconds in spent.values())
