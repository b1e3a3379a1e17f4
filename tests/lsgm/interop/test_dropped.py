"""Dropped channels, which no file of the authors' names, are told by what their training left of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from upstream import stage2, without_optimisers

from lsgm import cli
from lsgm.errors import CheckpointError
from lsgm.interop.nvlabs.convert import convert
from lsgm.interop.nvlabs.read import official_of

LONG = {"adam": "torch", "steps": 600}
"""Long enough at a rate of 1e-2 for torch's Adam to lift a logit of -15 above -10."""


def active(content: dict[str, Any]) -> list[bool]:
    """The mask of an imported file; the averaged weights have the same."""
    native = convert(official_of(content, Path("checkpoint.pt")))
    assert torch.equal(native.raw["prior.active"], native.ema["prior.active"])
    return [bool(value) for value in native.raw["prior.active"].flatten()]


def logits(content: dict[str, Any]) -> list[float]:
    return [float(value) for value in content["dae_state_dict"]["mixing_logit"].flatten()]


@pytest.mark.parametrize("penalty", [0.0, 0.01])
@pytest.mark.parametrize("adam", ["apex", "torch"])
@pytest.mark.parametrize("steps", [20, 200])
def test_channels_whose_weights_never_saw_the_data_are_masked(adam: str, steps: int, penalty: float) -> None:
    content = stage2(adam=adam, steps=steps, dropped=(1, 3), weight_decay_norm_dae=penalty)
    assert active(content) == [True, False, True, False]


@pytest.mark.parametrize("penalty", [0.0, 0.01])
@pytest.mark.parametrize("averaged", [False, True])
def test_decay_that_lifts_the_logit_does_not_hide_them(averaged: bool, penalty: float) -> None:
    """The specimen: torch's Adam takes steps of nearly its whole rate, of the decay alone."""
    content = stage2(**LONG, dropped=(1, 3), weight_decay_norm_dae=penalty)
    content = without_optimisers(content) if averaged else content
    assert min(logits(content)) > -10.0
    assert active(content) == [True, False, True, False]


def test_averages_that_lag_behind_have_faded_too() -> None:
    """As at the published rates: 3e-4 and a decay of 0.9999 stand to each other as 1e-2 and 0.997."""
    content = without_optimisers(stage2(adam="torch", steps=930, dropped=(1, 3), ema_decay=0.997))
    assert min(logits(content)) > -10.0
    assert active(content) == [True, False, True, False]


def test_a_low_logit_that_was_learned_is_no_dropped_channel() -> None:
    content = stage2(steps=200, dropped=(3,))
    content["dae_state_dict"]["mixing_logit"][0, 0] = -12.0
    assert active(content) == [True, True, True, False]


def test_nothing_is_masked_where_nothing_was_dropped() -> None:
    assert active(stage2(**LONG)) == [True] * 4
    assert active(stage2(steps=20, drop_inactive_var=False, dropped=(1,))) == [True] * 4


def test_moments_tell_where_logits_cannot() -> None:
    content = stage2(steps=60, dropped=(2,), mixing_logit_init=-12.0)
    assert active(content) == [True, True, False, True]
    with pytest.raises(CheckpointError, match="'mixing_logit_init' is -12"):
        active(without_optimisers(content))


def test_channels_that_a_resumed_run_sees_again_are_left_to_the_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = stage2(steps=200, resumed=100, dropped=(1,))
    assert active(content) == [True] * 4
    torch.save(content, tmp_path / "checkpoint.pt")
    assert cli.main(["import", "nvlabs", str(tmp_path / "checkpoint.pt"), str(tmp_path / "run")]) == 0
    assert "seen again: 1 of 4 channels of z_0, dropped at first" in capsys.readouterr().out


@pytest.mark.parametrize("moment", [None, torch.zeros(3), torch.zeros(8, 4, 3, 3), torch.tensor(torch.nan)])
def test_without_telling_moments_the_logit_decides(moment: Any) -> None:
    content = stage2(steps=20, dropped=(1,))
    index = list(content["dae_state_dict"]).index("all_modules.2.weight")
    content["dae_optimizer"]["state"][index]["exp_avg_sq"] = moment
    assert active(content) == [True, False, True, True]


@pytest.mark.parametrize(("adam", "rule"), [("apex", "adamw"), ("torch", "adam")])
def test_the_optimiser_that_stepped_it_is_the_one_that_goes_on(adam: str, rule: str) -> None:
    """Apex's decouples weight decay, torch's adds it to the gradient: their group says which it was."""
    stage = convert(official_of(stage2(adam=adam, steps=3), Path("f"))).recipe.stage2
    assert (stage.prior.name, stage.prior.eps, stage.prior.weight_decay) == (rule, 1e-4, 3e-4)
    assert (stage.vae.name, stage.vae.eps, stage.vae.weight_decay) == (rule, 1e-3, 3e-4)


def test_a_newer_torch_says_itself_which_rule_it_follows() -> None:
    content = stage2(adam="torch", steps=3)
    content["dae_optimizer"]["param_groups"][0]["decoupled_weight_decay"] = True
    assert official_of(content, Path("f")).rule == "adamw"


def test_without_an_optimiser_the_published_runs_is_taken() -> None:
    native = convert(official_of(without_optimisers(stage2(adam="torch", steps=3)), Path("f")))
    assert native.recipe.stage2.prior.name == "adamw"


@pytest.mark.parametrize(("dropped", "said"), [((), True), ((1,), False)])
def test_a_run_that_was_to_drop_channels_and_shows_none_is_said(
    dropped: tuple[int, ...], said: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(stage2(steps=20, dropped=dropped), tmp_path / "checkpoint.pt")
    assert cli.main(["import", "nvlabs", str(tmp_path / "checkpoint.pt"), str(tmp_path / "run")]) == 0
    assert ("inactive: 0 of 4 channels" in capsys.readouterr().out) is said
