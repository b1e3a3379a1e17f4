"""Pieces of weights on two processes (FSDP2): the run of whole ones, in files that know nothing of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from beside import two
from modes import SHARDED, go_on_in_pieces, in_pieces, share_pieces
from train_toy import timeless

from lsgm.errors import ConfigError
from lsgm.runs.checkpoint import find_checkpoint, read_state, read_weights
from lsgm.train.loop import train_recipe


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder in which two processes have trained every mode, in one piece and in pieces."""
    folder = tmp_path_factory.mktemp("pieces")
    two(share_pieces, folder, folder=folder)
    return folder


def assert_close(a: Path, b: Path) -> None:
    """Compare weights: float32 sums in another order, grown over steps of Adam at rates of 1e-3."""
    for kind in ("raw", "ema"):
        theirs = read_weights(find_checkpoint(b), kind)  # type: ignore[arg-type]
        for name, ours in read_weights(find_checkpoint(a), kind).items():  # type: ignore[arg-type]
            torch.testing.assert_close(theirs[name], ours, rtol=1e-3, atol=2e-5, msg=f"{b.name}: {name}")


@pytest.mark.parametrize("index", range(len(SHARDED)), ids=SHARDED)
def test_pieces_give_the_run_of_whole_weights(both: Path, index: int) -> None:
    whole, pieces = both / f"{index}-whole", both / f"{index}-pieces"
    for a, b in zip(timeless(whole), timeless(pieces), strict=True):
        assert a.keys() == b.keys()
        for key in a.keys() - {"stage"}:
            assert b[key] == pytest.approx(a[key], rel=2e-4, abs=1e-5), key
    assert_close(whole, pieces)


def test_the_number_of_processes_may_change_and_pieces_be_put_together(both: Path) -> None:
    """One step of the second stage by two processes in pieces, one by one process, one in pieces again."""
    mixed = both / "mixed"
    assert read_state(find_checkpoint(mixed))["step"] == 4
    train_recipe(in_pieces(SHARDED[0], sharded=False), mixed, images=tiny.bars(), max_steps=1)
    two(go_on_in_pieces, both, folder=both)
    assert read_state(find_checkpoint(mixed))["finished"]
    assert_close(both / "0-whole", mixed)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"vae_times": "own", "ema_prior": True}, "ema-prior needs the averaged prior in one piece"),
        ({"compile": True}, "sharded goes with neither compile nor float16"),
        ({"precision": "float16"}, "sharded goes with neither compile nor float16"),
    ],
)
def test_what_pieces_do_not_go_with_is_refused_at_once(stage: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tiny.recipe({"stage2": {"sharded": True, **stage}})
