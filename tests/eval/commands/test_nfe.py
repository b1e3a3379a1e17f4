"""`lsgm nfe` as a user meets it, on an LSGM and its VAE that nobody has trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from eval.cost_curve.curve_models import Ink

from lsgm.errors import ConfigError, UserError
from lsgm.generative import GenerativeModel, Pixels
from lsgm.kinds import find_kind
from lsgm.runs.load import fresh_networks
from lsgm_eval import models
from lsgm_eval.commands.nfe import NfeOptions, run
from lsgm_eval.run import plan

TASK = """
name = "bars"
version = 1
summary = "bars"
dataset = "bars"
spaces = [{ extractor = "ink" }]
[tiers.quick]
n_samples = 40
nelbo_images = 20
ode_images = 0
"""
SMALL = ["--samplers", "heun,euler@logsnr", "--nfe", "2,6", "--tol", "1e-1", "--batch-size", "20"]


def untrained(spec: str, device: Any = "cpu") -> GenerativeModel:
    """The tiny model: its VAE alone where the spec says so."""
    kind, recipe = find_kind("lsgm"), tiny.recipe()
    networks = fresh_networks(recipe, Pixels(1, 8, 8, "binary")).eval().requires_grad_(False)
    state = {"name": spec, "sha256": spec, "stage": "stage1" if spec == "vae" else "stage2"}
    return kind.measurable(recipe, networks, state)


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    bars = tiny.bars()
    monkeypatch.setattr(plan, "load", lambda name, **options: bars)
    monkeypatch.setattr(plan, "load_extractor", lambda spec, shape, device=None: Ink())
    monkeypatch.setattr(models, "open_model", untrained)
    path = tmp_path / "bars.toml"
    path.write_text(TASK)
    return ["--task", str(path), "--out", str(tmp_path / "out"), "--device", "cpu"]


def test_rows_of_all_points_go_to_standard_output(
    task: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model", "lsgm", "--model", "vae", *task, *SMALL]
    assert run([*words, "--json"]) == 0
    captured = capsys.readouterr()
    rows = [json.loads(line) for line in captured.out.splitlines()]
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) == len(rows)
    points = {row["sampler"]: row for row in rows if row["metric"] == "frechet_ink"}
    assert set(points) == {
        None, "heun(steps=1)", "heun(steps=3)", "euler(steps=2, grid=logsnr)", "euler(steps=6, grid=logsnr)",
        "dopri5(rtol=0.1, atol=0.1)",
    }  # fmt: skip
    level, heun = points[None], points["heun(steps=3)"]
    assert level["flops_per_image"] == level["decoder_flops_per_image"] == heun["decoder_flops_per_image"]
    evaluation = (heun["flops_per_image"] - heun["decoder_flops_per_image"]) / 6
    assert points["heun(steps=1)"]["flops_per_image"] == pytest.approx(
        level["flops_per_image"] + 2 * evaluation
    )
    assert 0 < heun["decoder_seconds"] < heun["seconds"]
    assert {row["metric"] for row in rows if row["group"] == "reach"} >= {"nfe_to_reach", "speedup_flops"}
    assert (tmp_path / "out" / "report.md").exists()


def test_without_json_there_are_two_tables(task: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--model", "lsgm", *task, *SMALL, "--reach", "1000"]) == 0
    out = capsys.readouterr().out
    points, derived = out.split("\n\n")
    assert points.splitlines()[0].split()[:3] == ["model", "sampler", "metric"]
    assert any(line.rstrip().endswith("flops") for line in points.splitlines())
    assert "frechet_ink<=1000" in derived


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--samplers", "hoin"], "unknown sampler 'hoin'"),
        (["--nfe", "1"], "takes at least 2 evaluations, not 1"),
        (["--tol", "0"], "tolerances above 0"),
        (["--metric", "fud"], "no metric 'fud' to sweep; did you mean 'fid'|no metric 'fud'"),
        (["--images", "10"], "at least 40 images"),
        (["--time-budget", "0"], "seconds above 0"),
        (["--model", "lsgm"], "two models are called 'lsgm'"),
        (["--tier", "huge"], "no tier 'huge'"),
    ],
)
def test_a_mistake_is_one_sentence(task: list[str], words: list[str], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        run(["--model", "lsgm", *task, *SMALL, *words])


def test_models_and_task_must_be_named(task: list[str]) -> None:
    with pytest.raises(ConfigError, match="nothing to measure; name a run with --model"):
        run(task)
    with pytest.raises(ConfigError, match="--task is missing"):
        run(["--model", "lsgm"])


def test_torchrun_takes_none_of_its_options_for_its_own() -> None:
    """It completes shortened options, also those behind the program: `--n` would not get through."""
    from torch.distributed.run import parse_args

    words = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(NfeOptions)]
    told = parse_args(["--nproc-per-node", "2", "-m", "lsgm", "nfe", *words])
    assert told.training_script_args == ["nfe", *words]
