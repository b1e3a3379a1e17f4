"""Checkpoints that describe models of strangers: no size takes memory, and nothing untrained is measured."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from lsgm.devices import peak_bytes, reset_peak
from lsgm.errors import CheckpointError, ConfigError, UserError
from lsgm.generative import Pixels
from lsgm.kinds import recipe_from
from lsgm.recipes import load_recipe
from lsgm.runs.load import fresh_networks, initialise_from, initialise_vae_from, load_model, open_checkpoint

SHIPPED = Path(__file__).parents[3] / "checkpoints"
LARGEST = 2**31
"""Bytes by which no hostile checkpoint may make a process grow, whatever it held before."""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(SHIPPED / "glyphs-lsgm", tmp_path / "glyphs-lsgm"))


def reweigh(checkpoint: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    content = save(change(load((checkpoint / "ema.safetensors").read_bytes())))
    (checkpoint / "ema.safetensors").write_bytes(content)
    state = json.loads((checkpoint / "state.json").read_text())
    state["files"]["ema.safetensors"] = {
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    (checkpoint / "state.json").write_text(json.dumps(state))


def redescribe(checkpoint: Path, path: str, value: Any) -> None:
    """Set a value of state.json by its dotted path; None takes the key away."""
    state = json.loads((checkpoint / "state.json").read_text())
    table, *parts = state, *path.split(".")
    for part in parts[:-1]:
        table = table[part]
    table[parts[-1]] = value
    if value is None:
        del table[parts[-1]]
    (checkpoint / "state.json").write_text(json.dumps(state))


def refused(checkpoint: Path) -> str:
    before = reset_peak()
    with pytest.raises(CheckpointError) as caught:
        load_model(checkpoint)
    after = peak_bytes()
    assert before is None or after is None or after - before < LARGEST
    assert len(str(caught.value)) < 1000
    return str(caught.value)


def test_a_file_without_a_tensor_is_no_model(checkpoint: Path) -> None:
    reweigh(checkpoint, lambda tensors: {})
    assert "ema.safetensors holds no tensor, and so no model" in refused(checkpoint)


@pytest.mark.parametrize("part", ["vae", "prior"])
def test_a_part_that_is_used_must_have_its_weights(checkpoint: Path, part: str) -> None:
    reweigh(checkpoint, lambda found: {k: v for k, v in found.items() if not k.startswith(f"{part}.")})
    assert f"ema.safetensors has no tensor of the part '{part}'" in refused(checkpoint)


def test_what_only_training_needs_is_no_model(checkpoint: Path) -> None:
    reweigh(checkpoint, lambda found: {"vae_penalty.x": torch.ones(2)})
    assert "holds no part of a model" in refused(checkpoint)
    with pytest.raises(CheckpointError, match="holds no part of a model"):
        initialise_from(torch.nn.ModuleDict({"vae": torch.nn.Linear(1, 1)}), checkpoint)
    with pytest.raises(CheckpointError, match="holds no VAE"):
        initialise_vae_from(torch.nn.ModuleDict({"vae": torch.nn.Linear(1, 1)}), checkpoint)


def test_a_vae_of_an_lsgm_is_measured_without_its_prior(checkpoint: Path) -> None:
    reweigh(checkpoint, lambda found: {k: v for k, v in found.items() if k.startswith("vae.")})
    redescribe(checkpoint, "stage", "stage1")
    assert not load_model(checkpoint).has_prior


SIZES: dict[str, tuple[str, Any, str]] = {
    "width": ("meta.recipe.prior.network.width", 10**9, "width is 1000000000, .*LSGM_LARGEST_SIZE=10{9}"),
    "blocks": ("meta.recipe.prior.network.blocks", 10**6, "blocks is 1000000, .*LSGM_LARGEST_SIZE=1000000"),
    "many wide": ("meta.recipe.prior.network.width", 60_000, "at least .* numbers.*LSGM_LARGEST_MODEL"),
    "embedding": ("meta.recipe.prior.network.embedding", 2**40, "embedding is .*LSGM_LARGEST_SIZE"),
    "multipliers": ("meta.recipe.vae.multipliers", [1] * 100_000, "the number of multipliers is 100000"),
    "a multiplier": ("meta.recipe.vae.multipliers", [10**12], "multipliers is 1000000000000"),
    "latents": ("meta.recipe.vae.latent_channels", 10**9, "latent-channels is 1000000000"),
    "halving": ("meta.recipe.vae.multipliers", [1] * 60, "cannot halve"),
    "height": ("meta.pixels.height", 10**9, "height is 1000000000"),
    "a picture": ("meta.pixels", {"channels": 3, "height": 60000, "width": 60000, "kind": "discrete"},
                  "LSGM_LARGEST_IMAGE=10800000000"),
    "no pixels": ("meta.pixels.height", 0, "images are 1 x 0 x 28"),
    "bits": ("meta.pixels.bits", 64, "bits is 64"),
    "a sort of pixels": ("meta.pixels.kind", "octal", "must be one of 'binary', 'discrete'"),
    "pixels as text": ("meta.pixels.height", "28", "must be a whole number"),
    "batch": ("meta.recipe.stage1.batch_size", 10**9, "LSGM_LARGEST_BATCH"),
    "draws": ("meta.recipe.stage2.cached_draws", 10**9, "LSGM_MOST_DRAWS"),
    "a side of images": ("meta.recipe.data.image_size", 10**9, "data.image-size is 1000000000"),
    "a side of 5,000 digits": ("meta.recipe.data.image_size", "9" * 5000, "give a side, height x width"),
    "a side in other digits": ("meta.recipe.data.image_size", "²²", "give a side, height x width"),
    "a kind": ("meta.recipe.kind", "x" * 10**5, "no model kind"),
    "a kind as a list": ("meta.recipe.kind", ["lsgm"], "'kind' is missing"),
    "a table as false": ("meta.recipe.prior", False, "must be a table"),
    "a stage as a number": ("meta.recipe.stage2", 0, "must be a table"),
    "beta": ("meta.recipe.prior.sde.beta_end", 1e999, "beta-end is inf; give a finite number"),
    "a logit": ("meta.recipe.prior.mixing_init", 1e308, "give a logit from -1000 to 1000"),
    "sigma": ("meta.recipe.prior.objective.sigma_data", 1e999, "sigma-data is inf"),
    "no recipe": ("meta.recipe", None, "does not say what model it holds"),
    "no meta": ("meta", None, "does not say what model it holds"),
    "another model": ("meta.recipe.prior.network.width", 64, "belongs to another model"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SIZES)
def test_a_model_of_absurd_sizes_is_one_sentence_that_names_the_number(checkpoint: Path, kind: str) -> None:
    path, value, said = SIZES[kind]
    redescribe(checkpoint, path, value)
    with pytest.raises(CheckpointError, match=said):
        load_model(checkpoint)
    refused(checkpoint)


def test_layers_are_counted_while_they_come_to_be(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    redescribe(checkpoint, "meta.recipe.prior.network.blocks", 50_000)
    monkeypatch.setenv("LSGM_MOST_LAYERS", "300")
    assert "the networks have at least 301 layers, and 300 at most are built" in refused(checkpoint)


def test_a_limit_is_raised_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_from(load_recipe("glyphs"), "glyphs")
    pixels = Pixels(1, 28, 28, "binary", 1)
    monkeypatch.setenv("LSGM_LARGEST_MODEL", "1000")
    with pytest.raises(ConfigError, match="LSGM_LARGEST_MODEL"):
        fresh_networks(recipe, pixels)
    monkeypatch.setenv("LSGM_LARGEST_MODEL", "1000000")
    fresh_networks(recipe, pixels)


def test_looking_at_networks_first_leaves_their_weights_as_they_were() -> None:
    recipe = recipe_from(load_recipe("glyphs"), "glyphs")
    before = torch.get_rng_state()
    first, second = (fresh_networks(recipe, Pixels(1, 28, 28, "binary", 1)).state_dict() for _ in range(2))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(value.is_meta for value in first.values())


def test_the_shipped_checkpoints_open() -> None:
    for name in ("glyphs-vae", "glyphs-sgm", "glyphs-frozen"):
        assert open_checkpoint(SHIPPED / name, "ema").networks


@pytest.mark.parametrize(
    "path", ["name", "parameters", "meta.dataset", "exported.run", "exported.stages", "images"]
)
def test_a_card_is_not_made_of_a_state_that_does_not_say_all(checkpoint: Path, path: str) -> None:
    from lsgm.runs.export import write_card

    redescribe(checkpoint, path, None)
    before = (checkpoint / "MODEL_CARD.md").read_bytes()
    with pytest.raises(UserError, match=f"does not say '{path}'"):
        write_card(checkpoint)
    assert (checkpoint / "MODEL_CARD.md").read_bytes() == before


def test_a_card_shows_a_strangers_words_as_what_they_are(checkpoint: Path) -> None:
    from lsgm.runs.export import write_card

    redescribe(checkpoint, "name", "model\n# Mine")
    redescribe(checkpoint, "exported.limits", ["a\n\n## b", "‮c"])
    card = write_card(checkpoint).read_text()
    assert "\n# Mine" not in card
    assert "\n## b" not in card
    assert "‮" not in card


@pytest.mark.parametrize(
    "path", ["name", "exported.run", "exported.started", "exported.checkpoint", "meta.dataset"]
)
def test_a_strangers_words_are_no_html_links_nor_pictures_on_a_card(checkpoint: Path, path: str) -> None:
    from lsgm.runs.export import write_card

    redescribe(checkpoint, path, r"` <img src=x> \<b> ![y](http://elsewhere/p.png) `")
    card = write_card(checkpoint).read_text()
    assert "elsewhere" in card
    unescaped = re.sub(r"\\.", "", card)  # what a backslash stands before is itself
    assert "<img" not in unescaped
    assert "<b>" not in unescaped
    assert not re.search(r"\[y\]", unescaped)
