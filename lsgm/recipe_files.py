"""Recipes: TOML files that packages offer through the entry-point group ``lsgm.recipes``. Free of torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lsgm.discovery import offers, package_folder
from lsgm.errors import ConfigError, did_you_mean
from lsgm.files import text
from lsgm.files.shown import shown
from lsgm.structure import from_dict, to_dict

__all__ = ["ORIGINS", "find_recipes", "from_dict", "load_recipe", "read_toml", "to_dict"]


ORIGINS = ("init_from", "init_vae_from")
"""What a run's config.toml says beside its recipe: whose weights the run was begun from."""


def find_recipes() -> dict[str, Path]:
    """Return the installed recipes, name -> file, in alphabetical order."""
    found: dict[str, Path] = {}
    for point in offers("lsgm.recipes").values():
        folder = package_folder(point.value)
        for file in sorted(folder.glob("*.toml")) if folder else ():
            found.setdefault(file.stem, file)
    return dict(sorted(found.items()))


def load_recipe(name_or_path: str | Path) -> dict[str, Any]:
    """Return the tables of a recipe, given the name of an installed one or the path of a TOML file.

    Raises ConfigError for an unknown name, a missing file and text that is not TOML.
    """
    name = str(name_or_path)
    if isinstance(name_or_path, Path) or name.endswith(".toml") or "/" in name:
        return read_toml(Path(name))
    recipes = find_recipes()
    if name not in recipes:
        hint = did_you_mean(name, recipes) or "; `lsgm ls recipes` shows the ones there are"
        raise ConfigError(f"there is no recipe '{name}'{hint}")
    return read_toml(recipes[name])


def read_toml(path: Path) -> dict[str, Any]:
    """Return the tables of a TOML file; ConfigError names the file and, for bad syntax, the line."""
    if not os.path.lexists(path):
        raise ConfigError(
            f"there is no file {shown(str(path))}; give the path of a TOML file or a recipe's name"
        )
    return text.read_toml(path, ConfigError, "give a TOML file")
