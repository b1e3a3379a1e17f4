"""Runs and checkpoints that were begun before there was a control variate go on as they began."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import tiny
import tomli_w
import torch
from safetensors.torch import load_file, save_file

from lsgm.config import DensityConfig
from lsgm.errors import ConfigError
from lsgm.kinds import recipe_from
from lsgm.recipes.recipe import LSGMRecipe
from lsgm.runs.checkpoint import find_checkpoint, read_weights
from lsgm.runs.load import load_model
from lsgm.structure import as_then, from_dict
from lsgm.train.loop import train_recipe

OFF = {"prior": {"objective": {"control_variate": False}}}


def without_new_keys(tables: dict[str, Any]) -> dict[str, Any]:
    """Return settings as they were written before."""
    tables = json.loads(json.dumps(tables))
    del tables["prior"]["objective"]["control_variate"]
    del tables["prior"]["parameterisation"]
    del tables["prior_stage"]
    return tables


def made_older(run: Path) -> None:
    """Take out of a run all that has come to be since."""
    config = run / "config.toml"
    config.write_text(tomli_w.dumps(without_new_keys(tomllib.loads(config.read_text()))))
    for checkpoint in (run / "checkpoints").iterdir():
        state = json.loads((checkpoint / "state.json").read_text())
        state["meta"]["recipe"] = without_new_keys(state["meta"]["recipe"])
        for name in ("model.safetensors", "ema.safetensors"):
            tensors = load_file(checkpoint / name)
            save_file({key: x for key, x in tensors.items() if ".reference." not in key}, checkpoint / name)
            content = (checkpoint / name).read_bytes()
            sha256 = hashlib.sha256(content).hexdigest()
            state["files"][name] = {"bytes": len(content), "sha256": sha256}
        (checkpoint / "state.json").write_text(json.dumps(state))


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A run stopped in stage 2, as an older version would have left it."""
    run = tmp_path / "run"
    assert not train_recipe(tiny.recipe(OFF), run, images=tiny.bars(), max_steps=8).finished
    made_older(run)
    return run


def test_a_run_goes_on_without_a_control_variate(older: Path, tmp_path: Path) -> None:
    """By today's recipe, whose default is another; its weights are those of a whole run without."""
    assert train_recipe(tiny.recipe(), older, images=tiny.bars()).finished
    train_recipe(tiny.recipe(OFF), tmp_path / "whole", images=tiny.bars())
    found, wanted = (read_weights(find_checkpoint(run), "raw") for run in (older, tmp_path / "whole"))
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if ".reference." not in name:
            assert torch.equal(found[name], value), name


def test_another_setting_of_its_recipe_is_still_another_run(older: Path) -> None:
    with pytest.raises(ConfigError, match=r"stage2.batch_size = 8, not 16"):
        train_recipe(tiny.recipe({"stage2": {"batch_size": 16}}), older, images=tiny.bars())


def test_it_may_be_gone_on_with_again_and_again(older: Path) -> None:
    assert not train_recipe(tiny.recipe(), older, images=tiny.bars(), max_steps=1).finished
    assert not train_recipe(tiny.recipe(), older, images=tiny.bars(), max_steps=1).finished
    assert train_recipe(tiny.recipe(), older, images=tiny.bars()).finished


def test_a_recipe_of_another_kind_is_another_run_in_those_words(older: Path) -> None:
    vae = recipe_from({"kind": "vae", "seed": 3, "vae": tiny.TABLES["vae"]}, "a VAE")
    with pytest.raises(ConfigError, match="was started with kind = 'lsgm', not 'vae'"):
        train_recipe(vae, older, images=tiny.bars())


def test_its_model_is_measured_against_standard_normal_latents(older: Path) -> None:
    model = load_model(older)
    levels = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    density = model.density(levels, range(2), DensityConfig())
    assert bool(torch.isfinite(density.nats).all())
    reference = model.prior.reference  # type: ignore[attr-defined]
    assert int(reference.seen) == 0
    assert float(reference.mean.abs().max()) == 0
    assert bool((reference.var == 1).all())


def test_saved_settings_mean_what_they_meant_then() -> None:
    recipe = from_dict(LSGMRecipe, as_then(LSGMRecipe, {"kind": "lsgm"}), "a run")
    assert recipe.prior.objective.control_variate is False
    assert LSGMRecipe().prior.objective.control_variate is True
    said = {"prior": {"objective": {"control_variate": True}}}
    assert from_dict(LSGMRecipe, as_then(LSGMRecipe, said), "a run") == LSGMRecipe()
