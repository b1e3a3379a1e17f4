"""A run that was cut into pieces is the run that was not."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import train_toy
from train_toy import CONFIG, LONG, run_toy, timeless, two_stages, weights

from lsgm.errors import CheckpointError, ConfigError
from lsgm.runs.checkpoint import checkpoints, read_state, read_weights
from lsgm.runs.directory import Run


@pytest.mark.parametrize("piece", [1, 5, 12, 13])
def test_pieces_of_any_length_give_the_same_weights_bit_for_bit(tmp_path: Path, piece: int) -> None:
    levels = torch.zeros(3, 1, 2, 2, dtype=torch.uint8)
    whole = run_toy(tmp_path / "whole", val_levels=levels)
    assert (whole.finished, whole.step, whole.stage) == (True, 24, "joint")
    calls = 0
    while not run_toy(tmp_path / "cut", val_levels=levels, max_steps=piece).finished:
        calls += 1
    assert calls == -(-24 // piece) - 1
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "whole")


def test_the_second_stage_starts_from_the_averaged_weights_of_the_first(tmp_path: Path) -> None:
    starts: list[torch.Tensor] = []
    first, second = two_stages()

    def build() -> object:
        stage = second.build()
        starts.append(next(iter(stage.groups()[0].params)).detach().clone())
        return stage

    run_toy(tmp_path, [first, replace(second, build=build)])
    end = checkpoints(Run(tmp_path).checkpoints)[0]
    assert torch.equal(starts[0], read_weights(end, "ema")["parts.vae.weight"])
    assert not torch.equal(
        read_weights(end, "raw")["parts.vae.weight"], read_weights(end, "ema")["parts.vae.weight"]
    )


def test_max_seconds_ends_at_a_complete_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = run_toy(tmp_path, two_stages(LONG, hook=train_toy.patient(0.01)), max_seconds=0.2)
    assert not outcome.finished
    assert 1 <= outcome.step < 60
    assert outcome.exit_status == 0
    assert outcome.checkpoint is not None
    assert read_state(outcome.checkpoint)["step"] == outcome.step
    assert "run the same command again" in capsys.readouterr().err


def test_a_finished_run_says_so_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_toy(tmp_path)
    before = weights(tmp_path)
    outcome = run_toy(tmp_path)
    assert outcome.finished
    assert "is finished at step 24: nothing to do" in capsys.readouterr().err
    assert weights(tmp_path) == before


def test_a_stage_without_steps_is_skipped(tmp_path: Path) -> None:
    first, second = two_stages()
    outcome = run_toy(tmp_path, [replace(first, config=replace(CONFIG, steps=0)), second])
    assert outcome.seconds_by_stage.keys() == {"joint"}
    assert outcome.step == 12
    with pytest.raises(ConfigError, match="every stage has 0 steps"):
        run_toy(tmp_path / "none", [replace(first, config=replace(CONFIG, steps=0))])


def test_a_budget_in_seconds_ends_in_time(tmp_path: Path) -> None:
    config = replace(CONFIG, seconds=0.3)
    first = two_stages(config, hook=train_toy.patient(0.01))[0]
    started = time.monotonic()
    outcome = run_toy(tmp_path, [first])
    assert outcome.finished
    # At most one step more than the budget. A step sleeps 10 ms; the rest is room for a busy machine.
    assert 0.3 <= outcome.seconds_by_stage["vae"] < 1.5
    assert outcome.step <= 31
    assert time.monotonic() - started < 10.0


def test_seconds_of_earlier_calls_count(tmp_path: Path) -> None:
    config = replace(CONFIG, seconds=1.0)
    first = run_toy(tmp_path, two_stages(config, hook=train_toy.patient(0.02))[:1], max_steps=10)
    second = run_toy(tmp_path, two_stages(config, hook=train_toy.patient(0.02))[:1])
    assert second.finished
    assert second.seconds_by_stage["vae"] > first.seconds_by_stage["vae"] >= 0.2
    # Ten steps of 20 ms or more have left room for at most forty and the one that crosses the line.
    assert second.step - first.step <= 41


def test_another_seed_is_refused(tmp_path: Path) -> None:
    run_toy(tmp_path, max_steps=2)
    with pytest.raises(CheckpointError, match="was trained with seed 1, not 2"):
        run_toy(tmp_path, seed=2)
