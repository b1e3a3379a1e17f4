"""Sweeps: which jobs they are, on this machine and as a SLURM array, preempted, failed and gone on with."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny
from of_a_job import Light

from lsgm.commands import sweep
from lsgm.commands.job import told
from lsgm.errors import ConfigError
from lsgm.files.text import read_toml
from lsgm.runs.checkpoint import find_checkpoint, read_state
from lsgm_eval.commands.eval import EvalOptions
from lsgm_eval.commands.nfe import NfeOptions
from lsgm_eval.commands.nll import NllOptions


def jobs_of(folder: Path, *words: str) -> list[sweep.Job]:
    options = sweep.parse(sweep.SweepOptions, words, prog="lsgm sweep", description="")
    return [sweep._job(cell, options, folder) for cell in sweep._cells(options)]


def test_a_job_is_every_combination_and_its_recipe_a_file(tmp_path: Path) -> None:
    settings = ("--set", "stage1.ema=0.9", "--set", "stage2.prior.lr=1e-3,3e-4")
    measured = ("--measure", "eval,nfe", "--tier", "smoke", "--device", "cpu")
    jobs = jobs_of(tmp_path, "glyphs", "glyphs-small", "--seeds", "1,2", *settings[2:], *measured)
    assert [job.name for job in jobs] == [
        f"{recipe}-seed{seed}-stage2.prior.lr={rate}"
        for recipe in ("glyphs", "glyphs-small")
        for seed in (1, 2)
        for rate in ("1e-3", "3e-4")
    ]
    job = jobs_of(tmp_path, "glyphs", "--seeds", "2", *settings, *measured)[1]
    recipe = tmp_path / "recipes" / f"{job.name}.toml"
    table = read_toml(recipe, ConfigError)
    assert (table["seed"], table["stage1"]["ema"], table["stage2"]["prior"]["lr"]) == (2, 0.9, 3e-4)
    model, results = str(tmp_path / job.name), str(tmp_path / "results" / job.name)
    where = ["--tier", "smoke", "--out", results, "--device", "cpu"]
    assert job.commands == [
        ["train", str(recipe), "--out", model, "--device", "cpu"],
        ["eval", "glyphs", "--model", model, *where],
        ["nfe", "--task", "glyphs", "--model", model, *where],
    ]


@pytest.mark.parametrize(
    ("name", "options"), [("eval", EvalOptions), ("nll", NllOptions), ("nfe", NfeOptions)]
)
def test_what_a_job_measures_is_a_command_that_there_is(
    tmp_path: Path, name: str, options: type[Any]
) -> None:
    (job,) = jobs_of(tmp_path, "glyphs", "--measure", name, "--tier", "smoke", "--device", "cpu")
    command, *words = job.commands[-1]
    assert command == name
    asked = sweep.parse(options, words, prog=f"lsgm {name}", description="")
    assert (asked.task, asked.tier, asked.device) == ("glyphs", "smoke", "cpu")
    assert asked.out == tmp_path / "results" / job.name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("glyphs", "--set", "stage2.prior.lrr=1"), "lrr"),
        (("glyphs", "--set", "seed.x=1"), "leads through 'seed', which is"),
        (("glyphs", "--set", "stage1.ema"), "give KEY=VALUE"),
        (("glyphs", "glyphs"), "two jobs would be called glyphs"),
        (("glyphs", "--seeds", "one"), "seed 'one' is no whole number"),
        (("glyphs", "--nodes", "2"), "give --executor slurm"),
        (("glyphs", "--measure", "fid"), "give some of eval, nll, nfe"),
        ((), "name recipes to sweep"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_job(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        jobs_of(tmp_path, *words)
    assert not list(tmp_path.iterdir())


def test_jobs_run_side_by_side_are_preempted_and_queued_again_and_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    submitit = pytest.importorskip("submitit", reason="the extra slurm is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    ends = {"long": (100, 0), "short": (2, 0), "bad": (1, 3)}
    jobs = []
    for name, (end, status) in ends.items():
        counts = [[str(tmp_path / name), "1", "0"], [str(tmp_path / f"{name}-2"), str(end), str(status)]]
        jobs.append(Light(name, counts, tmp_path / f"{name}.json"))
    executor = submitit.AutoExecutor(tmp_path / "jobs", cluster="local")
    executor.update_parameters(timeout_min=2)
    first = executor.submit(jobs[0])
    while not (tmp_path / "long-2").exists():
        time.sleep(0.02)
    # As a scheduler does that wants the machine back: it tells the job, a child of what stands for it here.
    children = Path(f"/proc/{first.job_id}/task/{first.job_id}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGUSR2)
    sweep._run_here(executor, jobs[1:], 2)
    assert first.result() == 0
    assert (tmp_path / "long-2").read_text().split() == [str(number) for number in range(1, 101)]
    assert "Requeued job" in (first.stderr() or "") + (first.stdout() or "")
    notes = {job.name: told(job.note, job.commands) for job in jobs}
    said = [(notes[name]["state"], notes[name]["done"]) for name in ends]
    assert said == [("finished", 2), ("finished", 2), ("failed", 1)]
    assert notes["bad"]["status"] == 3
    assert "bad: ended with status 3" in capsys.readouterr().err


def test_a_slurm_array_asks_for_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    for name, text in {
        "srun": "exit 0",
        "sbatch": 'cat "$1" > "$HOME/asked"; echo Submitted batch job 17',
    }.items():
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\n{text}\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setenv("HOME", str(tmp_path))
    words = ["--executor", "slurm", "--partition", "gpu", "--gpus", "8", "--processes", "8", "--nodes", "2"]
    words += ["--hours", "3", "--jobs", "2", "--slurm", "account=mine", "--out", str(tmp_path / "out")]
    assert sweep.run(["glyphs", "--seeds", "1,2", *words]) == 0
    asked = (tmp_path / "asked").read_text()
    for line in ("array=0-1%2", "partition=gpu", "gpus-per-node=8", "nodes=2", "time=180", "account=mine"):
        assert f"#SBATCH --{line}" in asked, asked
    assert "signal=USR2@180" in asked


def test_a_sweep_trains_says_how_far_it_is_and_is_not_trained_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("submitit", reason="the extra slurm is not installed")
    images = tiny.folder_of_images(tmp_path / "images")
    recipe = tiny.toml(tmp_path / "small.toml", {"data": {"dataset": str(images), "image_size": 8}})
    words = [str(recipe), "--seeds", "5", "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert sweep.run(words) == 0
    assert "| small-seed5 | finished |" in capsys.readouterr().out
    assert read_state(find_checkpoint(tmp_path / "out" / "small-seed5"))["seed"] == 5
    assert sweep.run(words) == 0
    assert "1 of 1 jobs are finished already" in capsys.readouterr().err
    assert sweep.run(["--out", str(tmp_path / "out"), "--status"]) == 0
    assert "step 12, finished | 1 of 1 |" in capsys.readouterr().out
