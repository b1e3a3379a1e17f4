"""Whole runs in every mode of stage 2: cut into pieces, on two processes, saved and loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from ladder import Ladder, double_prior
from torch import Tensor

from lsgm.config import DensityConfig
from lsgm.errors import ConfigError
from lsgm.generative import Pixels
from lsgm.kinds import recipe_from
from lsgm.model.lsgm import build_lsgm
from lsgm.recipes.recipe import JointStage, KLConfig, ObjectiveConfig
from lsgm.rng import StepNoise
from lsgm.runs.checkpoint import checkpoints, find_checkpoint, read_weights
from lsgm.runs.directory import read_metrics
from lsgm.runs.load import load_model
from lsgm.sde import VPSDE
from lsgm.train.loop import train_recipe
from lsgm.train.losses import FrozenVAELoss
from lsgm.train.stages import JointStep, make_objective

PENALTY = {"spectral": 1e-3, "gain": 1e-3}
RISING = {"start": 0.5, "end": 1.0, "portion": 0.8, "balance": True}
# fmt: off
MODES: dict[str, dict[str, Any]] = {
    "own": {"stage2": {"vae_times": "own", "vae_penalty": PENALTY, "prior_penalty": PENALTY}},
    "disjoint, averaged prior": {
        "stage2": {"vae_times": "disjoint", "ema_prior": True, "vae_importance_sampling": False}
    },
    "balanced": {"stage1": {"kl": RISING, "vae_penalty": PENALTY}, "stage2": {"kl": RISING}},
    "VAE stays": {"stage2": {"train_vae": False, "drop_inactive": True}},
    "VAE stays, cached": {"stage2": {"train_vae": False, "cached_draws": 2}, "data": {"flip": True}},
    "hierarchical, all at once": {
        "vae": {
            "kind": "nvae", "width": 4, "multipliers": [1, 1, 1], "blocks": 1, "scales": 2, "groups": 2,
            "latents": 2, "flows": 1, "input_skip": True, "pre_cells": 1, "post_cells": 1,
            "encoder_cells": 1, "decoder_cells": 1, "recompute": True,
        },
        "prior": {"network": {"recompute": True}},
        "stage1": {"kl": RISING, "vae_penalty": PENALTY},
        "stage2": {
            "vae_times": "disjoint", "ema_prior": True, "drop_inactive": True, "precision": "bfloat16",
            "kl": RISING, "vae_penalty": PENALTY, "prior_penalty": PENALTY,
        },
    },
    "prior first, velocity": {
        "prior": {"parameterisation": "velocity"},
        "prior_stage": {
            "steps": 6, "batch_size": 4, "ema": 0.8, "log_every": 1, "val_every": 3, "drop_inactive": True,
            "prior": {"lr": 5e-3}, "prior_penalty": PENALTY,
        },
        "data": {"flip": True},
    },
    "without control variate": {"prior": {"objective": {"control_variate": False}}},
    "largest variance from the data": {"prior": {"sde": {"kind": "ve", "sigma2_max": "data"}}},
}
# fmt: on


def recipe(mode: str, *, dropout: float = 0.1) -> Any:
    changes = {"prior": {"network": {"dropout": dropout}, "objective": {"weighting": "re"}}}
    tables = tiny.merged(changes, MODES[mode])
    if "vae" in tables:  # tiny's own is of the other kind
        others = {key: value for key, value in tiny.TABLES.items() if key != "vae"}
        return recipe_from(tiny.merged(others, tables), "the hierarchical recipe")
    return tiny.recipe(tables)


def rows(directory: Path) -> list[dict[str, Any]]:
    clock = ("seconds", "images_per_second")
    return [
        {k: v for k, v in row.items() if k not in clock} for row in read_metrics(directory / "metrics.jsonl")
    ]


def weights(directory: Path) -> list[bytes]:
    newest = find_checkpoint(directory)
    return [(newest / name).read_bytes() for name in ("model.safetensors", "ema.safetensors")]


@pytest.mark.parametrize("mode", MODES)
def test_a_run_in_pieces_is_the_whole_run_and_can_be_measured(tmp_path: Path, mode: str) -> None:
    whole = train_recipe(recipe(mode), tmp_path / "whole", images=tiny.bars())
    assert whole.finished
    while not train_recipe(recipe(mode), tmp_path / "cut", images=tiny.bars(), max_steps=4).finished:
        pass
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")
    assert "val_nelbo" in rows(tmp_path / "whole")[-1]
    model = load_model(tmp_path / "whole")
    levels = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
    assert torch.isfinite(model.density(levels, range(4), DensityConfig()).nats).all()


@pytest.mark.parametrize("mode", ["VAE stays", "VAE stays, cached"])
def test_a_vae_that_stays_is_in_the_checkpoint_as_it_was(tmp_path: Path, mode: str) -> None:
    train_recipe(recipe(mode), tmp_path, images=tiny.bars())
    first = read_weights(checkpoints(tmp_path / "checkpoints")[0], "ema")
    last = read_weights(checkpoints(tmp_path / "checkpoints")[-1], "ema")
    names = [name for name in last if name.startswith("vae.")]
    assert names
    assert all(torch.equal(last[name], first[name]) for name in names)


def test_the_largest_variance_survives_the_checkpoint(tmp_path: Path) -> None:
    """The latents of stage 1 lie further apart than the class's default of 0.99."""
    mode = "largest variance from the data"
    train_recipe(recipe(mode), tmp_path, images=tiny.bars())
    sde = load_model(tmp_path).prior.sde  # type: ignore[attr-defined]
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


TWO = [
    "disjoint, averaged prior",
    "balanced",
    "VAE stays",
    "VAE stays, cached",
    "prior first, velocity",
    "hierarchical, all at once",
]


def comparable(mode: str) -> Any:
    """Return a recipe without what differs between processes: dropout's stream, bfloat16's rounding."""
    exact = recipe(mode, dropout=0.0)
    return replace(exact, stage2=replace(exact.stage2, precision="float32"))


def worker(folder: Path) -> None:
    """What each of two processes does."""
    for index, mode in enumerate(TWO):
        train_recipe(comparable(mode), folder / str(index), images=tiny.bars())


def test_two_processes_give_the_loss_curve_of_one_in_every_mode(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = str(Path(tiny.__file__).parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "LSGM_PROGRESS": "0"}
    done = subprocess.run(
        [*launch, __file__, str(tmp_path / "two")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for index, mode in enumerate(TWO):
        train_recipe(comparable(mode), tmp_path / "one" / str(index), images=tiny.bars())
        one, two = (rows(tmp_path / name / str(index)) for name in ("one", "two"))
        for a, b in zip(one, two, strict=True):
            assert a.keys() == b.keys()
            for key in a.keys() - {"stage"}:
                # float32 sums in another order, grown over twelve steps of Adam.
                assert b[key] == pytest.approx(a[key], rel=2e-4, abs=1e-5), (mode, key)


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
