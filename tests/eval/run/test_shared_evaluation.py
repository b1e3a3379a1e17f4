"""A whole evaluation on two processes: the rows of one process, written once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch.distributed as dist
from bernoulli import BernoulliModel, ink

from lsgm.config import SamplerConfig
from lsgm.data import ImageSet, sha256_of
from lsgm.distributed import ALONE, World, join
from lsgm.results import Row
from lsgm.results.files import read_rows
from lsgm_eval.run import plan
from lsgm_eval.run.calls import evaluate
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
    plan.load = lambda name, **options: bars  # type: ignore[assignment]
    models = [BernoulliModel("a"), BernoulliModel("b", p=0.2, sha256="c" * 64)]
    return evaluate(models, TASK, "quick", out, batch_size=16, world=world)


def worker(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    rows = evaluate_both(folder / "two", join("cpu"))
    (folder / f"{rank}.json").write_text(json.dumps([row.as_dict() for row in rows]))
    # An interpreter that ends while gloo's threads run may abort.
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
def test_two_processes_give_the_rows_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, __file__, str(tmp_path)]
    running = [
        subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    monkeypatch.setattr(plan, "load", plan.load)  # put back whatever the call below puts there
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


if __name__ == "__main__":
    worker(int(sys.argv[2]), Path(sys.argv[1]))
