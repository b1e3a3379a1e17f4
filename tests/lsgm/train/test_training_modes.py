"""Whole runs in every mode of stage 2: cut into pieces, on two processes, saved and loaded."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from beside import two
from ladder import Ladder, double_prior
from modes import MODES, SHARED, recipe, share
from torch import Tensor
from train_toy import timeless, weights

from lsgm.config import DensityConfig
from lsgm.errors import ConfigError
from lsgm.generative import Pixels
from lsgm.model.lsgm import build_lsgm
from lsgm.recipes.recipe import JointStage, KLConfig, ObjectiveConfig
from lsgm.rng import StepNoise
from lsgm.runs.checkpoint import checkpoints, read_weights
from lsgm.runs.load import load_model
from lsgm.sde import VPSDE
from lsgm.train.loop import train_recipe
from lsgm.train.losses import FrozenVAELoss
from lsgm.train.stages import JointStep, make_objective


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return what trains a mode without a pause, once."""

    @cache
    def train(mode: str) -> Path:
        folder = tmp_path_factory.mktemp("whole") / "run"
        assert train_recipe(recipe(mode), folder, images=tiny.bars()).finished
        return folder

    return train


@pytest.mark.parametrize("mode", MODES)
def test_a_run_in_pieces_is_the_whole_run_and_can_be_measured(
    whole: Callable[[str], Path], tmp_path: Path, mode: str
) -> None:
    piece = len(timeless(whole(mode))) // 3
    while not train_recipe(recipe(mode), tmp_path / "cut", images=tiny.bars(), max_steps=piece).finished:
        pass
    assert weights(tmp_path / "cut") == weights(whole(mode))
    assert timeless(tmp_path / "cut") == timeless(whole(mode))
    assert "val_nelbo" in timeless(whole(mode))[-1]
    model = load_model(whole(mode))
    levels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    assert torch.isfinite(model.density(levels, range(4), DensityConfig()).nats).all()


@pytest.mark.parametrize("mode", ["VAE stays", "VAE stays, cached"])
def test_a_vae_that_stays_is_in_the_checkpoint_as_it_was(whole: Callable[[str], Path], mode: str) -> None:
    found = checkpoints(whole(mode) / "checkpoints")
    first, last = read_weights(found[0], "ema"), read_weights(found[-1], "ema")
    names = [name for name in last if name.startswith("vae.")]
    assert names
    assert all(torch.equal(last[name], first[name]) for name in names)


def test_the_largest_variance_survives_the_checkpoint(whole: Callable[[str], Path]) -> None:
    """The latents of stage 1 lie further apart than the class's default of 0.99."""
    sde = load_model(whole("largest variance from the data")).prior.sde  # type: ignore[attr-defined]
    assert sde.sigma2_max > 2.0


def frozen_ladder() -> tuple[FrozenVAELoss, Any]:
    vae: Any = Ladder().double()
    prior = double_prior(VPSDE())
    objective = make_objective(ObjectiveConfig(weighting="un"), prior)
    return FrozenVAELoss(vae, prior, objective, KLConfig()), vae


LEVELS = (torch.arange(96) * 37 % 5 < 2).to(torch.uint8).reshape(6, 1, 4, 4)


def noise() -> StepNoise:
    return StepNoise(0, 0, global_batch=6)


def test_the_running_statistics_of_a_vae_that_stays_do_not_move() -> None:
    """In train mode they would, as they do in the authors' code."""
    loss, vae = frozen_ladder()
    loss.train()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    loss(LEVELS, noise(), 0.5).total.backward()
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())
    assert all(parameter.grad is None for parameter in vae.parameters())
    assert all(parameter.grad is not None for parameter in loss.prior.parameters())
    vae.train()
    vae.encode(LEVELS, noise().normal)
    assert not torch.equal(vae.norm.running_mean, before["norm.running_mean"])


def test_ready_latents_give_the_loss_of_the_images_that_they_are_of() -> None:
    loss, vae = frozen_ladder()
    loss.train()

    class Replay(StepNoise):
        """A step's noise after that of the encoder."""

        def __init__(self) -> None:
            super().__init__(0, 0, global_batch=6)
            self.latents = torch.cat([draw.z for draw in vae.encode(LEVELS, self.normal)[:2]], dim=1)

    replay = Replay()
    ready = loss(replay.latents.detach(), replay, 0.5)
    assert torch.equal(ready.total, loss(LEVELS, noise(), 0.5).total)
    assert set(ready.terms) == {"cross_entropy", "score_loss"}
    loss.eval()
    assert {"reconstruction", "kl", "nelbo"} < set(loss(LEVELS, noise(), 1.0).terms)


def test_dropped_channels_are_those_without_information_and_only_when_the_stage_begins() -> None:
    networks = build_lsgm(tiny.recipe(), Pixels(1, 8, 8, "binary", 1))
    stage = JointStep(networks.vae, networks.prior, ObjectiveConfig(), JointStage(drop_inactive=True))
    looked: list[bool] = []

    def look(*_: Any) -> Tensor:
        looked.append(True)
        return torch.tensor([False, True])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lsgm.train.stages.inactive_channels", look)
        assert stage.prepare(None, fresh=False) is None  # type: ignore[arg-type]
        assert not looked
        stage.prepare(None, fresh=True)  # type: ignore[arg-type]
    assert networks.prior.logit is not None
    assert networks.prior.logit.flatten().tolist() == pytest.approx([-3.0, -15.0])
    assert networks.prior.active.flatten().tolist() == [True, False]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stage2": {"ema_prior": True}}, "ema-prior"),
        ({"stage2": {"cached_draws": 2}}, "cached-draws"),
        ({"stage2": {"train_vae": False, "vae_times": "own"}}, "vae-times"),
        ({"stage2": {"drop_inactive": True}, "prior": {"mixing_init": "none"}}, "mixing"),
        ({"prior_stage": {"steps": 2, "drop_inactive": True}, "prior": {"mixing_init": "none"}}, "mixing"),
        ({"prior_stage": {"seconds": 5.0}}, "prior-stage has a budget"),
        ({"prior": {"parameterisation": "velocity", "preconditioning": "edm"}}, "velocity"),
        ({"prior": {"sde": {"sigma2_max": "data"}}}, "sigma2-max"),
        ({"prior": {"objective": {"weighting": "un", "time_eps": 0.0}}}, "time-eps"),
        (
            {
                "prior": {"objective": {"weighting": "un", "time_eps": 0.0}},
                "stage2": {"vae_times": "own"},
            },
            "time-eps",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_is_written(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        train_recipe(tiny.recipe(changes), tmp_path / "run", images=tiny.bars())
    assert not (tmp_path / "run").exists()


def test_two_processes_give_the_loss_curve_of_one_in_every_mode(tmp_path: Path) -> None:
    two(share, tmp_path / "two", folder=tmp_path)
    share(tmp_path / "one")
    for index, mode in enumerate(SHARED):
        one, both = (timeless(tmp_path / name / str(index)) for name in ("one", "two"))
        for a, b in zip(one, both, strict=True):
            assert a.keys() == b.keys()
            # Channels in use are counted over the images of a part, which are others on two processes.
            for key in a.keys() - {"stage", "active_channels" if mode == "in parts" else ""}:
                # float32 sums in another order, grown over steps of Adam.
                assert b[key] == pytest.approx(a[key], rel=2e-4, abs=1e-5), (mode, key)
