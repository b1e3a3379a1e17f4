"""The recipes that a benchmark is about: read before anything is measured, and made smaller where asked."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lsgm.config import StageConfig, require
from lsgm.errors import ConfigError
from lsgm.kinds import recipe_from
from lsgm.recipe_files import load_recipe

__all__ = ["narrowed", "read_recipes"]

_WIDTHS = ("width", "decoder_width")


def read_recipes(names: str, *, width: float = 1.0, batch: int | None = None) -> dict[str, Any]:
    """Return the recipes between commas, `narrowed`, by the name that a table shows.

    Raises ConfigError where one does not exist or is wrong, and where none is named.
    """
    found = {}
    for name in filter(None, map(str.strip, names.split(","))):
        short = Path(name).stem if name.endswith(".toml") else name
        recipe = recipe_from(load_recipe(name), f"recipe '{name}'")
        found[name if short in found else short] = narrowed(recipe, width, batch)
    if not found:
        raise ConfigError("--recipes names no recipe; `lsgm ls recipes` shows the ones there are")
    return found


def narrowed(recipe: Any, share: float, batch: int | None = None) -> Any:
    """Return a recipe whose networks have a share of their width, so that a smaller machine can run them.

    Every width is multiplied by ``share`` and rounded to what group normalisation divides: multiples of 4,
    above 128 of 32. Depth, latents and resolutions stay, and with them the ratio of the parts' costs, more
    or less. ``batch`` replaces the batch size of every stage.
    """
    require(0 < share <= 1, f"width is {share}; give a share of the recipes' own widths in (0, 1]")
    require(batch is None or batch >= 1, f"batch is {batch}; it must be at least 1")
    return _changed(recipe, share, batch)


def _changed(config: Any, share: float, batch: int | None) -> Any:
    changes: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name in _WIDTHS and isinstance(value, int) and share < 1:
            changes[field.name] = _width(value * share)
        elif dataclasses.is_dataclass(value):
            changes[field.name] = _changed(value, share, batch)
    if batch is not None and isinstance(config, StageConfig):
        changes["batch_size"] = batch
    return dataclasses.replace(config, **changes)


def _width(wanted: float) -> int:
    unit = 4 if wanted <= 128 else 32
    return max(unit, round(wanted / unit) * unit)
