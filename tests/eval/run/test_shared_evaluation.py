"""A whole evaluation on two processes: the rows of one process, written once."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch.distributed as dist
from bernoulli import BernoulliModel, ink
from beside import together

from lsgm.config import SamplerConfig
from lsgm.data import ImageSet, sha256_of
from lsgm.distributed import ALONE, World, join
from lsgm.generative import Samples
from lsgm.peers import LOST
from lsgm.results import Row
from lsgm.results.files import read_rows
from lsgm_eval.run import plan
from lsgm_eval.run.calls import evaluate
from lsgm_eval.samples import gather
from lsgm_eval.task import SpaceSpec, Task, Tier

TIER = Tier(
    n_samples=90,
    nelbo_images=20,
    ode_images=0,
    sampler=SamplerConfig("heun", steps=3),
    curve_samples=40,
    curve=(SamplerConfig("heun", steps=2),),
)
SPACE = SpaceSpec("glyphs", "glyphs", ("frechet", "kernel", "precision-recall", "memorisation"))
TASK = Task("bars", 1, "bars", "bars", (SPACE,), {"quick": TIER}, binarisation_seed=3)


def evaluate_both(out: Path, world: World = ALONE) -> list[Row]:
    splits = {"train": ink(200, 1), "val": ink(50, 2), "test": ink(150, 3)}
    bars = ImageSet("bars", "1", sha256_of(*splits.values()), "binary", splits)
    models = [BernoulliModel("a"), BernoulliModel("b", p=0.2, sha256="c" * 64)]
    with mock.patch.object(plan, "load", return_value=bars):
        return evaluate(models, TASK, "quick", out, batch_size=16, world=world)


def worker(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows = evaluate_both(folder / "two", join("cpu"))
    (folder / f"{rank}.json").write_text(json.dumps([row.as_dict() for row in rows]))
    # An interpreter that ends while gloo's threads run may abort.
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
def test_two_processes_give_the_rows_of_one(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, __file__, str(tmp_path)]
    running = [
        subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    one = evaluate_both(tmp_path / "one")
    written = read_rows(tmp_path / "two" / "results.jsonl")
    for rank in range(2):
        assert len(json.loads((tmp_path / f"{rank}.json").read_text())) == len(one)
    assert [(row["model"], row["metric"], row["sampler"]) for row in written] == [
        (row["model"], row["metric"], row["sampler"]) for row in one
    ]
    for ours, theirs in zip(written, one, strict=True):
        if ours["metric"] != "seconds_per_1000":
            # Float32 features change in their last bits with the batch: 1e-6 relative on a distance.
            assert ours["value"] == pytest.approx(theirs["value"], rel=1e-5, abs=1e-9), ours["metric"]
    assert errors[0].count("Traceback") == errors[1].count("Traceback") == 0


def slow(out: Path) -> None:
    """Evaluate with a model that takes its time, as one of several processes or alone."""

    def sample(self: BernoulliModel, seeds: Sequence[int], sampler: SamplerConfig) -> Samples:
        time.sleep(0.15 if join("cpu").size > 1 else 0.0)
        return quick(self, seeds, sampler)

    quick = BernoulliModel.sample
    with mock.patch.object(BernoulliModel, "sample", sample), mock.patch.object(gather, "SAVE_EVERY", 0.0):
        evaluate_both(out, join("cpu"))


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
def test_a_dead_process_ends_an_evaluation_and_one_goes_on(tmp_path: Path) -> None:
    work = importlib.import_module("eval.run.test_shared_evaluation").slow  # as other processes can import it
    started = together(work, tmp_path / "two", folder=tmp_path)
    while not (found := list((tmp_path / "two").glob("passes/*-of-2.npz"))):
        assert all(process.is_alive() for process, _ in started), started[0][1].read_text()
        time.sleep(0.02)
    killed = time.monotonic()
    started[1][0].kill()
    started[0][0].join(30)
    assert time.monotonic() - killed < 5
    assert started[0][0].exitcode == LOST
    assert "rank 1 of 2 (process " in started[0][1].read_text()
    one = evaluate_both(tmp_path / "one")
    drawn = []
    with mock.patch.object(gather, "draw_batches", counted(drawn)):
        rows = evaluate_both(tmp_path / "two")
    assert len(found) <= 2
    assert sum(drawn) < 2 * TIER.n_samples + 2 * TIER.curve_samples  # what was done is not drawn again
    for ours, theirs in zip(rows, one, strict=True):
        if ours.metric != "seconds_per_1000":
            assert ours.value == pytest.approx(theirs.value, rel=1e-5, abs=1e-9), ours.metric


def counted(drawn: list[int]) -> Callable[..., Iterator[Any]]:
    """Return what draws batches, and notes their sizes."""
    draw = gather.draw_batches

    def noted(*arguments: Any) -> Iterator[Any]:
        for batch in draw(*arguments):
            drawn.append(len(batch.images))
            yield batch

    return noted


if __name__ == "__main__":
    worker(int(sys.argv[2]), Path(sys.argv[1]))
