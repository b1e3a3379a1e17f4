"""Two processes train what one process trains."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import torch
from beside import together, two
from train_toy import CURVE, LONG, exact, fails_alone, run_toy, share, timeless, two_stages, weights

from lsgm.distributed import World
from lsgm.errors import ConfigError
from lsgm.peers import GO_ON, LOST
from lsgm.runs.directory import Run, read_metrics


def curve(directory: Path) -> list[dict[str, float]]:
    return read_metrics(directory / "metrics.jsonl")


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which two processes have done `train_toy.share`."""
    folder = tmp_path_factory.mktemp("two")
    two(share, folder, folder=folder)
    return folder


def test_two_processes_give_the_loss_curve_of_one(both: Path, tmp_path: Path) -> None:
    levels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    assert run_toy(tmp_path, two_stages(CURVE, dropout=0.0), val_levels=levels).finished
    one, shared = curve(tmp_path), curve(both / "curve")
    assert [row["step"] for row in shared] == [row["step"] for row in one] == list(range(1, 25))
    for a, b in zip(one, shared, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"stage", "seconds", "cpu_seconds", "images_per_second"}:
            # The same float32 sums in another order: a few roundings of 6e-8 each, grown over 24 steps.
            assert b[key] == pytest.approx(a[key], rel=1e-6, abs=1e-9)


def test_a_batch_that_cannot_be_shared_is_refused_everywhere(both: Path) -> None:
    for rank in (0, 1):
        said = json.loads((both / f"said-{rank}.json").read_text())
        assert said["odd"].startswith("batch-size is 9, which 2 processes cannot share equally")


def test_a_nan_on_one_process_stops_all_with_the_same_sentence(both: Path) -> None:
    said = [json.loads((both / f"said-{rank}.json").read_text())["nan"] for rank in (0, 1)]
    assert said[0] == said[1]
    assert "at step 3 the term 'error' became nan" in said[0]


def test_processes_agree_on_the_clock(both: Path) -> None:
    said = [json.loads((both / f"said-{rank}.json").read_text())["steps"] for rank in (0, 1)]
    assert said[0] == said[1]


def test_rows_partition_the_global_batch() -> None:
    rows = [World(rank, 4, torch.device("cpu")).rows(12) for rank in range(4)]
    assert [i for part in rows for i in range(12)[part]] == list(range(12))
    with pytest.raises(ConfigError, match="give a multiple of 4"):
        World(0, 4, torch.device("cpu")).rows(6)


# One of them dies.


def test_a_dead_process_is_named_at_once_and_any_number_goes_on(tmp_path: Path) -> None:
    """Two processes, of which the second is killed; one that goes on; two again, of which the first is."""
    folder, steps = tmp_path / "run", 0
    for round_, victim in enumerate((1, 0)):
        started = together(exact, folder, 0.02, 0.05, folder=tmp_path / str(round_))
        while (newest := Run(folder).newest()) is None or int(newest.name[5:]) < steps + 3:
            assert all(process.is_alive() for process, _ in started), started[0][1].read_text()
            time.sleep(0.02)
        (other, said), pid = started[1 - victim], started[victim][0].pid
        killed = time.monotonic()
        started[victim][0].kill()
        other.join(30)
        assert time.monotonic() - killed < 5
        assert other.exitcode == LOST
        assert f"rank {victim} of 2 (process {pid} on " in said.read_text()
        assert f") has died; {GO_ON}" in said.read_text()
        assert "Traceback" not in said.read_text()
        steps = run_toy(folder, two_stages(LONG, dropout=0.0), max_steps=3).step
    two(exact, folder, 0.0, 0.05, folder=tmp_path / "last")
    run_toy(tmp_path / "whole", two_stages(LONG, dropout=0.0))
    for a, b in zip(timeless(tmp_path / "whole"), timeless(folder), strict=True):
        for key in a.keys() - {"stage"}:
            # Gradients of halves are added where one process adds them all: roundings, grown over 120 steps.
            assert b[key] == pytest.approx(a[key], rel=1e-4, abs=1e-7)


def test_killed_and_started_again_as_many_processes_end_bit_for_bit(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    started = together(exact, folder, 0.02, 0.05, folder=tmp_path / "killed")
    while Run(folder).newest() is None:
        time.sleep(0.02)
    started[1][0].kill()
    started[0][0].join(30)
    two(exact, folder, 0.0, 1e9, folder=tmp_path / "again")
    two(exact, tmp_path / "whole", 0.0, 1e9, folder=tmp_path / "never killed")
    assert weights(folder) == weights(tmp_path / "whole")


def test_an_error_of_one_process_is_told_by_the_others(tmp_path: Path) -> None:
    started = together(fails_alone, tmp_path / "run", folder=tmp_path)
    for process, _ in started:
        process.join(60)
    assert [process.exitcode for process, _ in started] == [LOST, 2]
    assert "was ended by an error: no room for the images" in started[0][1].read_text()
