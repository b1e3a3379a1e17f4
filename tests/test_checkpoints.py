"""The checkpoints kept in this repository: whole, small, and with a card that states their budget."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lsgm.runs.card import shipped_recipe
from lsgm.runs.checkpoint import read_state
from lsgm.runs.load import load_model
from lsgm_eval.gate.golden import read_golden

HOME = Path(__file__).resolve().parents[1] / "checkpoints"
FOLDERS = sorted(path.parent for path in HOME.rglob("state.json"))
LIMIT = 8_000_000
"""Bytes that a checkpoint may take."""
REFERENCE = ("glyphs-lsgm", "glyphs-sgm", "glyphs-vae")
"""The small checkpoints that tests and examples take."""
GOLDEN = {**{name: name for name in REFERENCE}, "glyphs-long": "glyphs-long/lsgm"}
"""The folders of the checkpoints that golden rows are kept of, by the model's name."""

pytestmark = pytest.mark.skipif(not FOLDERS, reason=f"{HOME.name}/ is not here: it is no part of a package")


LAYOUTS = (
    {"model.safetensors", "state.json", "README.md", "config.json"},
    # As `lsgm export` wrote them before the Hub's names were taken.
    {"ema.safetensors", "state.json", "MODEL_CARD.md"},
)


def name(folder: Path) -> str:
    return folder.relative_to(HOME).as_posix()


def weights_of(folder: Path) -> Path:
    """Return the one file of weights of an exported folder."""
    (found,) = folder.glob("*.safetensors")
    return found


def card_of(folder: Path) -> str:
    """Return the one card of an exported folder, without what stands above its heading for the Hub."""
    (found,) = folder.glob("*.md")
    text = found.read_text(encoding="utf-8")
    return text[text.index("# ") :] if text.startswith("---") else text


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_it_loads_and_is_the_file_that_was_exported(folder: Path) -> None:
    model, state = load_model(folder), read_state(folder)
    content = weights_of(folder).read_bytes()
    assert model.sha256 == hashlib.sha256(content).hexdigest()
    assert model.name == state["name"]
    assert dict(model.parameters) == state["parameters"]
    assert {path.name for path in folder.iterdir()} in LAYOUTS


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_its_card_states_budget_data_and_hash(folder: Path) -> None:
    state, card = read_state(folder), card_of(folder)
    assert card.startswith(f"# {state['name']}\n")
    assert state["files"][weights_of(folder).name]["sha256"] in card
    assert state["meta"]["dataset"].split("@")[-1] in card
    for stage in state["exported"]["stages"]:
        steps, seconds = stage["steps"], stage["seconds"]
        assert f"| `{stage['name']}` | {steps:,} | {stage['images']:,} | {seconds:,.0f} |" in card
    assert "hardware: not recorded" not in card
    assert "git revision: not recorded" not in card


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_what_is_kept_is_small(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= LIMIT


def test_all_that_is_kept_is_under_40_mb() -> None:
    assert sum(path.stat().st_size for path in HOME.rglob("*") if path.is_file()) <= 40_000_000


def test_the_reference_checkpoints_are_small_together() -> None:
    files = [path for name in REFERENCE for path in (HOME / name).iterdir()]
    assert len(files) == 9
    assert sum(path.stat().st_size for path in files) <= 3_000_000


@pytest.mark.parametrize("name", REFERENCE)
def test_a_reference_is_its_recipe_measured_with_its_limits_said(name: str) -> None:
    card = card_of(HOME / name)
    recipe = shipped_recipe(read_state(HOME / name)["meta"]["recipe"])
    assert recipe is not None
    assert f"The recipe `{recipe}`, nothing changed" in card
    assert read_state(HOME / name)["finished"]
    assert "nelbo_nats" in card.split("## Measured")[1]
    assert len(read_state(HOME / name)["exported"]["limits"]) >= 1


def test_golden_rows_are_kept_of_these_checkpoints_and_no_others() -> None:
    assert {path.stem for path in (HOME.parent / "reports" / "golden").glob("*.json")} == set(GOLDEN)


@pytest.mark.parametrize(("name", "folder"), GOLDEN.items())
def test_goldens_are_of_these_very_weights(name: str, folder: str) -> None:
    golden = read_golden(HOME.parent / "reports" / "golden" / f"{name}.json")
    files = read_state(HOME / folder)["files"]
    assert golden.checkpoint_sha256 == files[weights_of(HOME / folder).name]["sha256"]
    assert golden.model == name
    assert {row.kind for row in golden.rows.values()} == {"replay", "images", "estimate"}
