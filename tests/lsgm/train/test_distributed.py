"""Two processes train what one process trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from beside import two
from train_toy import CURVE, run_toy, share, two_stages

from lsgm.distributed import World
from lsgm.errors import ConfigError
from lsgm.runs.directory import read_metrics


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
