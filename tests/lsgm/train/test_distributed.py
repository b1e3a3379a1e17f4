"""Two processes under torchrun train what one process trains."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from train_toy import CONFIG, patient, run_toy, two_stages

from lsgm.distributed import World
from lsgm.errors import ConfigError, UserError
from lsgm.runs.directory import read_metrics

CURVE = replace(CONFIG, log_every=1)


def curve(directory: Path) -> list[dict[str, float]]:
    return read_metrics(directory / "metrics.jsonl")


def worker(folder: Path) -> None:
    """What each of the two processes does: train, run into errors, be interrupted."""
    said: dict[str, str] = {}
    levels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    rank = int(os.environ["RANK"])
    # Dropout draws from each process's own stream, so it is off where curves are compared.
    for _ in range(2):
        run_toy(folder / "curve", two_stages(CURVE, dropout=0.0), val_levels=levels, max_steps=14)
    for name, stages in {
        "odd": two_stages(replace(CURVE, batch_size=9)),
        "nan": two_stages(hook=lambda call: math.nan if call == 3 and rank == 1 else 1.0),
    }.items():
        try:
            run_toy(folder / name, stages)
        except UserError as error:
            said[name] = str(error)
    clocked = two_stages(replace(CONFIG, seconds=0.2), hook=patient(0.01 * (1 + rank)))[:1]
    said["steps"] = str(run_toy(folder / "clock", clocked).step)
    (folder / f"said-{rank}.json").write_text(json.dumps(said))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which two processes have done `worker`."""
    folder = tmp_path_factory.mktemp("two")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [*launch, __file__, str(folder)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_two_processes_give_the_loss_curve_of_one(two: Path, tmp_path: Path) -> None:
    levels = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    assert run_toy(tmp_path, two_stages(CURVE, dropout=0.0), val_levels=levels).finished
    one, both = curve(tmp_path), curve(two / "curve")
    assert [row["step"] for row in both] == [row["step"] for row in one] == list(range(1, 25))
    for a, b in zip(one, both, strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"stage", "seconds", "images_per_second"}:
            # The same float32 sums in another order: a few roundings of 6e-8 each, grown over 24 steps.
            assert b[key] == pytest.approx(a[key], rel=1e-6, abs=1e-9)


def test_a_batch_that_cannot_be_shared_is_refused_everywhere(two: Path) -> None:
    for rank in (0, 1):
        said = json.loads((two / f"said-{rank}.json").read_text())
        assert said["odd"].startswith("batch-size is 9, which 2 processes cannot share equally")


def test_a_nan_on_one_process_stops_all_with_the_same_sentence(two: Path) -> None:
    said = [json.loads((two / f"said-{rank}.json").read_text())["nan"] for rank in (0, 1)]
    assert said[0] == said[1]
    assert "at step 3 the term 'error' became nan" in said[0]


def test_processes_agree_on_the_clock(two: Path) -> None:
    said = [json.loads((two / f"said-{rank}.json").read_text())["steps"] for rank in (0, 1)]
    assert said[0] == said[1]


def test_rows_partition_the_global_batch() -> None:
    rows = [World(rank, 4, torch.device("cpu")).rows(12) for rank in range(4)]
    assert [i for part in rows for i in range(12)[part]] == list(range(12))
    with pytest.raises(ConfigError, match="give a multiple of 4"):
        World(0, 4, torch.device("cpu")).rows(6)


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
