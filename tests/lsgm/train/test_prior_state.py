"""What a stage finds in the latents before its first step survives save, resume and evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from lsgm.model.diffusion import ScoreBasedModel
from lsgm.runs.load import load_model
from lsgm.score import ScoreModel
from lsgm.train import stages
from lsgm.train.loop import train_recipe

BOTH = ("ema", "raw")


def interrupted_and_resumed(changes: dict[str, Any], directory: Path, steps: int) -> None:
    """Train a recipe in two goes, the first of which ends after ``steps`` steps."""
    recipe, images = tiny.recipe(changes), tiny.bars()
    assert not train_recipe(recipe, directory, images=images, max_steps=steps).finished
    assert train_recipe(recipe, directory, images=images).finished


def prior_in(directory: Path, weights: str) -> ScoreModel:
    model = load_model(directory, weights=weights)  # type: ignore[arg-type]
    assert isinstance(model, ScoreBasedModel)
    return model.prior


def test_dropped_channels_stay_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def first_channel(*_: object) -> Tensor:
        asked.append(True)
        return torch.tensor([True, False])

    monkeypatch.setattr(stages, "inactive_channels", first_channel)
    interrupted_and_resumed({"stage2": {"drop_inactive": True}}, tmp_path / "run", steps=8)
    assert len(asked) == 1
    for weights in BOTH:
        prior = prior_in(tmp_path / "run", weights)
        assert prior.active.flatten().tolist() == [False, True]
        z, t = torch.randn(2, 2, 4, 4), torch.tensor([0.3, 0.8])
        noisy = torch.cat([torch.randn(2, 1, 4, 4), z[:, 1:]], dim=1)
        assert torch.equal(prior.eps(z, t)[:, 1], prior.eps(noisy, t)[:, 1])


def test_the_largest_variance_is_that_of_the_training_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "largest_squared_distance", lambda *_: 37.5)
    changes = {"prior": {"sde": {"kind": "ve", "sigma2_max": "data"}}}
    interrupted_and_resumed(changes, tmp_path / "run", steps=8)
    for weights in BOTH:
        assert prior_in(tmp_path / "run", weights).sde.prior_var == 37.5
