"""The checkpoints kept in this repository: whole, small, and with a card that states their budget."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from lsgm.models.load import load_model
from lsgm.train import read_state

HOME = Path(__file__).resolve().parents[1] / "checkpoints"
FOLDERS = sorted(path for path in HOME.glob("*/*") if path.is_dir())
LIMIT = 8_000_000
"""Bytes that a checkpoint may take."""

pytestmark = pytest.mark.skipif(not FOLDERS, reason=f"{HOME.name}/ is not here: it is no part of a package")


def name(folder: Path) -> str:
    return folder.relative_to(HOME).as_posix()


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_it_loads_and_is_the_file_that_was_exported(folder: Path) -> None:
    model, state = load_model(folder), read_state(folder)
    content = (folder / "ema.safetensors").read_bytes()
    assert model.sha256 == hashlib.sha256(content).hexdigest()
    assert model.name == state["name"]
    assert dict(model.parameters) == state["parameters"]
    assert {path.name for path in folder.iterdir()} == {"ema.safetensors", "state.json", "MODEL_CARD.md"}


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_its_card_states_budget_data_and_hash(folder: Path) -> None:
    state, card = read_state(folder), (folder / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert card.startswith(f"# {state['name']}\n")
    assert state["files"]["ema.safetensors"]["sha256"] in card
    assert state["meta"]["dataset"].split("@")[-1] in card
    for stage in state["exported"]["stages"]:
        steps, seconds = stage["steps"], stage["seconds"]
        assert f"| `{stage['name']}` | {steps:,} | {stage['images']:,} | {seconds:,.0f} |" in card
    assert "hardware: not recorded" not in card
    assert "git revision: not recorded" not in card


@pytest.mark.parametrize("folder", FOLDERS, ids=name)
def test_what_is_kept_is_small(folder: Path) -> None:
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= LIMIT
