"""Training from Python: the same runs as by the command, from the same settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import lsgm
from lsgm.errors import ConfigError
from lsgm.runs.load import load_model

SMALL = {
    "stage1.steps": 2,
    "stage1.seconds": None,
    "stage2.steps": 2,
    "stage2.seconds": None,
    "stage1.batch-size": 4,
    "stage2.batch_size": 4,
    "vae.width": 4,
    "prior.network.width": 8,
}


def test_settings_have_dotted_names() -> None:
    recipe = lsgm.recipe("glyphs", SMALL)
    assert (recipe.stage1.steps, recipe.stage1.seconds, recipe.stage2.batch_size) == (2, None, 4)
    assert recipe.prior.network.width == 8
    assert recipe.prior.sde == lsgm.recipe("glyphs").prior.sde


def test_a_fitted_model_is_that_of_its_run_and_the_same_call_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    model = lsgm.fit("glyphs", out, changes=SMALL, device="cpu")
    assert model.generative.sha256 == load_model(out).sha256
    assert model.sample(1, steps=1).images.dtype == torch.uint8
    again = lsgm.fit(lsgm.recipe("glyphs", SMALL), out, device="cpu")
    assert again.generative.sha256 == model.generative.sha256


def test_sheets_of_samples_lie_in_the_run_and_no_weight_hangs_on_them(tmp_path: Path) -> None:
    looked = lsgm.fit("glyphs", tmp_path / "looked", changes=SMALL, device="cpu", sheet=5)
    blind = lsgm.fit("glyphs", tmp_path / "blind", changes=SMALL, device="cpu", sheet=0)
    assert looked.generative.sha256 == blind.generative.sha256
    found = sorted(path.name for path in (tmp_path / "looked" / "sheets").iterdir())
    assert found == ["stage1-0000002.png", "stage2-0000004.png"]
    assert not (tmp_path / "blind" / "sheets").exists()
    # Those of the averaged weights, in rows of three.
    drawn = lsgm.sheet(looked.sample(5, steps=10).images, columns=3)
    assert Image.open(tmp_path / "looked/sheets/stage2-0000004.png").tobytes() == drawn.tobytes()


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        ("glyhps", {}, "did you mean 'glyphs'"),
        ("glyphs", {"changes": {"stage9.steps": 3}}, "stage9"),
        ("glyphs", {"changes": {"seed.steps": 3}}, "leads through 'seed', which is a value"),
        ("glyphs", {"data": "no-such-set"}, "no-such-set"),
        (3, {}, "a int is no recipe"),
        ("glyphs", {"track": ["wandbb"]}, "there is no tracker 'wandbb'; did you mean 'wandb'"),
    ],
)
def test_a_slip_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, given: object, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(lsgm.UserError, match=message):
        lsgm.fit(given, tmp_path / "run", device="cpu", **settings)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_a_recipe_of_ones_own_needs_a_place() -> None:
    recipe = lsgm.recipe("glyphs", SMALL)
    with pytest.raises(ConfigError, match="give out='runs/mine'"):
        lsgm.fit(recipe)
    with pytest.raises(ConfigError, match=r"give them to lsgm\.recipe"):
        lsgm.fit(recipe, "somewhere", changes={"seed": 1})


def test_only_what_can_be_found_may_be_auto(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="auto has no 'steps'; there is batch_size, accumulate"):
        lsgm.fit("glyphs", tmp_path / "run", auto=["steps"])
