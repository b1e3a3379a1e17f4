"""Recipes, which packages offer through the entry-point group ``lsgm.recipes``, and their costs. No torch."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lsgm.discovery import offers, package_folder
from lsgm.errors import ConfigError, did_you_mean
from lsgm.files import text
from lsgm.files.names import shown
from lsgm.files.text import read_table, record_of
from lsgm.files.write import replace_file, writing
from lsgm.structure import from_dict, to_dict

__all__ = [
    "COSTS",
    "CPU_RATE",
    "GPU_RATE",
    "ORIGINS",
    "TrainingCost",
    "find_recipes",
    "from_dict",
    "load_recipe",
    "read_costs",
    "read_toml",
    "shown_flops",
    "shown_hours",
    "shown_parameters",
    "to_dict",
    "write_costs",
]

ORIGINS = ("init_from", "init_vae_from")
"""What a run's config.toml says beside its recipe: whose weights the run was begun from."""

COSTS = "costs.json"
"""The file's name, in the folder of the recipes that it is about."""

CPU_RATE = 1e11
"""Operations a second that two CPU cores reach with convolutions in bfloat16, roughly."""
GPU_RATE = 1e14
"""The same of one large GPU with networks wide enough to fill it; narrow ones reach a fraction of it."""

CPU_HOURS = 12.0
"""A recipe that takes no longer than this at the CPU's rate has its hours shown at that rate."""


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


@dataclass(frozen=True)
class TrainingCost:
    """The cost of a recipe."""

    parameters: dict[str, int]
    """Trainable numbers of each part of the networks (vae, prior)."""
    step_flops: dict[str, int]
    """Floating-point operations of one step of each stage that trains, over its whole batch."""
    flops: float | None = None
    """The same of the whole training; none where a stage's budget is seconds."""

    def __post_init__(self) -> None:
        for count in (*self.parameters.values(), *self.step_flops.values(), self.flops or 0.0):
            if not (math.isfinite(count) and count >= 0):
                raise ConfigError(f"{count} is no cost; it must be a number of at least 0")


def read_costs(folder: Path) -> dict[str, TrainingCost]:
    """Return the costs that a folder's file tells, by the recipe's name; none where it has no file."""
    path = folder / COSTS
    if not path.is_file():
        return {}
    repair = "`lsgm bench cost --write` makes it anew"
    tables = read_table(path, ConfigError, repair)
    if wrong := [name for name, table in tables.items() if not isinstance(table, dict)]:
        raise ConfigError(f"{path}: '{shown(wrong[0])}' is not a table; {repair}")
    return {
        name: record_of(TrainingCost, table, f"{path}: {name}", ConfigError, repair)
        for name, table in tables.items()
    }


def write_costs(folder: Path, costs: Mapping[str, TrainingCost]) -> Path:
    """Write a folder's file; return its path."""
    path = folder / COSTS
    text = json.dumps({name: asdict(cost) for name, cost in sorted(costs.items())}, indent=1)
    with writing(path):
        replace_file(path, f"{text}\n".encode())
    return path


def shown_parameters(counts: Mapping[str, int]) -> str:
    """Return the numbers of parts for a table: ``vae 0.12 M, prior 1.30 M``."""
    return ", ".join(f"{part} {count / 1e6:.2f} M" for part, count in counts.items())


def shown_flops(flops: float | None) -> str:
    """Return a number of operations for a table: ``3.8e19 FLOP``."""
    if flops is None:
        return ""
    digits, exponent = f"{flops:.1e}".split("e")
    return f"{digits}e{int(exponent)} FLOP"


def shown_hours(flops: float | None) -> str:
    """Return the hours that so many operations take, and the rate they are for: ``106 h at 100 TFLOP/s``."""
    if flops is None:
        return ""
    on_cpu = flops / CPU_RATE / 3600 <= CPU_HOURS
    hours = flops / (CPU_RATE if on_cpu else GPU_RATE) / 3600
    rate = f"{CPU_RATE / 1e9:g} GFLOP/s" if on_cpu else f"{GPU_RATE / 1e12:g} TFLOP/s"
    return f"{hours:.0f} h at {rate}" if hours >= 10 else f"{hours:.2g} h at {rate}"
