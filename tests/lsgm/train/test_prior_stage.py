"""The stage in which the prior alone learns, between the VAE's and the joint one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from lsgm.model.diffusion import ScoreBasedModel
from lsgm.runs.checkpoint import checkpoints, read_state, read_weights
from lsgm.runs.directory import read_metrics
from lsgm.runs.load import load_model
from lsgm.train import prepare, stages
from lsgm.train.loop import train_recipe

FIRST = {"prior_stage": {"steps": 5, "batch_size": 8, "ema": 0.5, "log_every": 1, "prior": {"lr": 1e-2}}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of three stages."""
    directory = tmp_path_factory.mktemp("runs") / "run"
    assert train_recipe(tiny.recipe(FIRST), directory, images=tiny.bars()).finished
    return directory


def ends(run: Path) -> dict[str, Path]:
    return {read_state(path)["stage"]: path for path in checkpoints(run / "checkpoints")}


def test_it_comes_between_the_others_with_a_budget_of_its_own(run: Path) -> None:
    rows = read_metrics(run / "metrics.jsonl")
    names = [row["stage"] for row in rows if "total" in row]
    assert names == ["stage1"] * 6 + ["prior_stage"] * 5 + ["stage2"] * 6
    assert list(ends(run)) == ["stage1", "prior_stage", "stage2"]
    state = read_state(ends(run)["stage2"])
    assert list(state["seconds_by_stage"]) == ["stage1", "prior_stage", "stage2"]
    rates = [row["lr/prior"] for row in rows if row["stage"] == "prior_stage"]
    assert 5e-3 < max(rates) <= 1e-2  # a cosine of five steps
    assert all("lr/vae" not in row for row in rows if row["stage"] == "prior_stage")


def test_the_vae_stays_as_it_is_and_the_prior_learns(run: Path) -> None:
    before, after = (read_weights(ends(run)[stage], "ema") for stage in ("stage1", "prior_stage"))
    assert all(torch.equal(after[name], value) for name, value in before.items())
    fresh = tiny.recipe(FIRST)
    from lsgm.runs.load import fresh_networks

    networks = fresh_networks(fresh, tiny_pixels())
    moved = [
        name
        for name, value in networks.state_dict().items()
        if name.startswith("prior.network") and not torch.equal(after[name], value)
    ]
    assert moved


def tiny_pixels() -> Any:
    from lsgm.train.loop import pixels_of

    return pixels_of(tiny.bars(), 8)


def test_its_checkpoint_is_an_lsgm(run: Path) -> None:
    model = load_model(ends(run)["prior_stage"])
    assert isinstance(model, ScoreBasedModel)
    assert model.has_prior


def test_without_steps_there_is_no_such_stage(tmp_path: Path) -> None:
    train_recipe(tiny.recipe(), tmp_path / "run", images=tiny.bars())
    assert list(ends(tmp_path / "run")) == ["stage1", "stage2"]


def test_the_latents_moments_are_those_of_its_latents(run: Path) -> None:
    """Running moments of the cosine coefficients; five batches of eight tell them roughly."""
    weights = read_weights(ends(run)["prior_stage"], "raw")
    assert int(weights["prior.reference.seen"]) == 5
    assert float(weights["prior.reference.mean"].abs().max()) > 0


@pytest.mark.parametrize(("room", "kept"), [(10.0, 3), (2.4, 2), (0.5, 0)])
def test_as_many_latents_are_kept_as_memory_has_room_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    room: float,
    kept: int,
) -> None:
    images = tiny.bars()
    once = 4 * len(images.split("train")) * 2 * 4 * 4
    monkeypatch.setattr(prepare, "free_bytes", lambda _: int(room * once / prepare.SHARE))
    made: list[int] = []
    of = stages.LatentCache.of
    monkeypatch.setattr(stages.LatentCache, "of", lambda *a: made.append(a[-1]) or of(*a))
    recipe = tiny.recipe(tiny.merged(FIRST, {"prior_stage": {"cached_draws": 3}, "stage2": {"steps": 0}}))
    assert train_recipe(recipe, tmp_path / "run", images=images).finished
    assert made == ([kept] if kept else [])
    said = capsys.readouterr().err
    assert ("no room" in said) == (kept < 3)
