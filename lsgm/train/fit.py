"""Training from Python: a recipe by name or as a configuration, to a trained model."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lsgm.config import require
from lsgm.devices import pick_device
from lsgm.errors import ConfigError
from lsgm.kinds import recipe_from
from lsgm.recipes import load_recipe
from lsgm.trackers import named
from lsgm.train.fitting import AUTO
from lsgm.train.loop import train_recipe
from lsgm.trained import Model, load


def recipe(name: str | os.PathLike[str], changes: Mapping[str, Any] | None = None) -> Any:
    """Return a recipe (`lsgm ls recipes`), by its name or the path of its TOML file, as a frozen dataclass.

    ``changes`` are settings by their dotted names, as the options of `lsgm train` have them:
    ``{"stage1.steps": 200, "data.dataset": "./photos"}``. Raises ConfigError naming what is unknown or wrong.
    """
    tables = load_recipe(os.fspath(name))
    for dotted, value in (changes or {}).items():
        *path, last = dotted.replace("-", "_").split(".")
        table = tables
        for key in path:
            table = table.setdefault(key, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{name}: '{dotted}' leads through '{key}', which is a value and no table")
        table[last] = "none" if value is None else value  # as a TOML file says it
    return recipe_from(tables, str(name))


def fit(
    recipe: str | os.PathLike[str] | Any,
    out: str | os.PathLike[str] | None = None,
    *,
    changes: Mapping[str, Any] | None = None,
    data: str | os.PathLike[str] | None = None,
    device: str = "auto",
    max_seconds: float | None = None,
    init_from: str | os.PathLike[str] | None = None,
    init_vae_from: str | os.PathLike[str] | None = None,
    track: Sequence[str] = (),
    sheet: int = 36,
    auto: Sequence[str] = (),
) -> Model:
    """Train a recipe in a run directory and return the model; the same call again goes on where it stopped.

    Args:
        recipe: A name of `lsgm ls recipes`, the path of a TOML file, or what `lsgm.recipe` returns.
        out: The run directory; ``runs/NAME`` unless given, which a recipe without a name needs.
        changes: Settings by dotted names, ``{"stage2.steps": 4000}``.
        data: A dataset's name, or a folder, zip, npz or npy of images.
        device: ``cpu``, ``cuda`` or ``auto``.
        max_seconds: End this call at a complete checkpoint after so many seconds.
        init_from: A run whose averaged weights a fresh run starts from.
        init_vae_from: The same of its VAE alone.
        track: Trackers to follow the run: ``tensorboard``, ``wandb``, ``mlflow``, or what a package adds.
        sheet: Images that are drawn at every validation into ``out/sheets``, for looking; 0 draws none.
        auto: What is found for each stage by trying what fits into memory: ``batch_size``, or ``accumulate``.

    The returned model is that of the newest checkpoint, of whatever stage. Raises ConfigError, DataError,
    CheckpointError and TrainingError, each one sentence; KeyboardInterrupt after a checkpoint is saved.
    """
    settings = {**(changes or {}), **({} if data is None else {"data.dataset": os.fspath(data)})}
    config = _typed(recipe, settings)
    if out is None and config is recipe:
        raise ConfigError("a recipe of one's own has no name to call its run after; give out='runs/mine'")
    place = Path("runs") / Path(recipe).stem if out is None else Path(os.fspath(out))
    outcome = train_recipe(
        config,
        place.expanduser(),
        device=pick_device(device),
        max_seconds=max_seconds,
        init_from=None if init_from is None else Path(os.fspath(init_from)),
        init_vae_from=None if init_vae_from is None else Path(os.fspath(init_vae_from)),
        track=named(track),
        sheet=sheet,
        auto=_found(auto),
    )
    if outcome.exit_status:
        raise KeyboardInterrupt(f"training was interrupted; the same call goes on from {place}")
    return load(place, device=device)


def _found(names: Sequence[str]) -> Sequence[str]:
    """Return the names of what can be found. Raises ConfigError for another."""
    for name in names:
        require(name in AUTO, f"auto has no '{name}'; there is {', '.join(AUTO)}")
    return names


def _typed(given: Any, settings: Mapping[str, Any]) -> Any:
    """Return the recipe that a name, a path or a recipe itself means."""
    if isinstance(given, str | os.PathLike):
        return recipe(given, settings)
    if not dataclasses.is_dataclass(given):
        raise ConfigError(f"a {type(given).__name__} is no recipe; give a name, a path or lsgm.recipe(...)")
    if settings:
        raise ConfigError("changes and data are settings of a recipe by name; give them to lsgm.recipe")
    return given
