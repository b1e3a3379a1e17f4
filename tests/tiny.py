"""Tiny recipes on pictures of 8 x 8, for tests that train: a stage takes a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lsgm import cli
from lsgm.data import ImageSet, sha256_of
from lsgm.kinds import recipe_from
from lsgm.runs.checkpoint import (
    find_checkpoint,
    load_into,
    read_entries,
    read_state,
    read_weights,
    refuse_other,
    weights_file,
)
from lsgm.structure import to_dict

__all__ = [
    "TABLES",
    "TASK",
    "Command",
    "bars",
    "folder_of_images",
    "load_weights",
    "merged",
    "recipe",
    "toml",
    "train_command",
]

Command = Callable[..., tuple[int, str]]
"""Words of a command line to its exit status and what it said on standard error."""

TABLES: dict[str, Any] = {
    "kind": "lsgm",
    "seed": 3,
    "vae": {"width": 4, "multipliers": [1], "latent_channels": 2},
    "prior": {"network": {"width": 8, "multipliers": [1], "blocks": 1, "attention": [], "embedding": 8}},
    "stage1": {"steps": 6, "batch_size": 8, "log_every": 1, "val_every": 3, "ema": 0.9, "vae": {"lr": 3e-3}},
    "stage2": {"steps": 6, "batch_size": 8, "log_every": 1, "val_every": 3, "ema": 0.9},
}
"""An LSGM whose latents are 2 x 4 x 4."""

TASK = """
name = "bars"
version = 1
summary = "bars"
dataset = "bars"
spaces = [{ extractor = "glyphs", name = "glyphs" }]
"""
"""A task of the pictures of `bars`, without its tiers."""


def load_weights(module: torch.nn.Module, path: Path) -> dict[str, Any]:
    """Load the averaged weights of a checkpoint, or of a run's newest one; return its `state.json`."""
    checkpoint = find_checkpoint(path)
    state = read_state(checkpoint)
    refuse_other(module, read_entries(checkpoint), checkpoint / weights_file(state))
    load_into(module, read_weights(checkpoint), checkpoint / weights_file(state))
    return state


def merged(tables: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return nested tables with some values changed."""
    out = dict(tables)
    for key, value in changes.items():
        out[key] = merged(out.get(key, {}), value) if isinstance(value, dict) else value
    return out


def recipe(changes: dict[str, Any] | None = None) -> Any:
    """Return the tiny LSGM's recipe with some values changed."""
    return recipe_from(merged(TABLES, changes or {}), "the tiny recipe")


def toml(path: Path, changes: dict[str, Any]) -> Path:
    """Write the tiny recipe with some values changed."""
    import tomli_w

    path.write_text(tomli_w.dumps(to_dict(recipe(changes))))
    return path


def _pictures(count: int, seed: int, channels: int = 1) -> Tensor:
    """Grey pictures [N, C, 8, 8]: a dark bar of 3 x 3 at a random place on light paper."""
    generator = torch.Generator().manual_seed(seed)
    left, top = torch.randint(0, 6, (2, count, 1, 1), generator=generator)
    line = torch.arange(8)
    inside = (line >= left) & (line < left + 3) & (line[:, None] >= top) & (line[:, None] < top + 3)
    return torch.where(inside, 230, 20).to(torch.uint8)[:, None].repeat(1, channels, 1, 1)


def bars(count: int = 60) -> ImageSet:
    """Return binary pictures with their splits."""
    splits = {"train": _pictures(count, 1), "val": _pictures(20, 2), "test": _pictures(64, 3)}
    return ImageSet("bars", "1", sha256_of(*splits.values()), "binary", splits)


def folder_of_images(folder: Path, count: int = 40) -> Path:
    """Write grey PNGs of 8 x 8 into a folder and return it."""
    folder.mkdir(parents=True)
    for index, picture in enumerate(_pictures(count, 4)):
        Image.fromarray(np.asarray(picture[0])).save(folder / f"{index:03d}.png")
    return folder


def train_command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Return what runs ``lsgm train`` on the CPU in this process."""

    def run(*words: object) -> tuple[int, str]:
        capsys.readouterr()
        status = cli.main(["train", *map(str, words), "--device", "cpu"])
        return status, capsys.readouterr().err

    return run
