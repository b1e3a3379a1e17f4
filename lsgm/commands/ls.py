"""``lsgm ls``: what there is of one sort: recipes, samplers, datasets, tasks, commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from lsgm.discovery import help_line, offers, package_folder
from lsgm.errors import ConfigError, did_you_mean
from lsgm.options import Positional, arg, parse
from lsgm.progress import aligned
from lsgm.recipes import (
    TrainingCost,
    find_recipes,
    read_costs,
    read_toml,
    shown_flops,
    shown_hours,
    shown_parameters,
)

HELP = "list recipes, samplers, datasets, tasks or commands"

Row = dict[str, Any]
"""Text is for the table; whatever else a row holds is for --json alone."""


@dataclass(frozen=True)
class LsOptions:
    """Options of ``lsgm ls``."""

    noun: Annotated[Positional[str], arg(metavar="NOUN")]
    """recipes, samplers, datasets, tasks or commands"""
    json: bool = False
    """Print one JSON object per line."""


def run(argv: list[str]) -> int:
    """Print one line for each thing of the sort asked for."""
    options = parse(
        LsOptions,
        argv,
        prog="lsgm ls",
        description="List what there is of one sort: recipes, samplers, datasets, tasks or commands.",
        examples=["lsgm ls recipes", "lsgm ls samplers --json"],
    )
    if options.noun not in _LISTS:
        hint = did_you_mean(options.noun, _LISTS) or f"; there are {', '.join(_LISTS)}"
        raise ConfigError(f"cannot list '{options.noun}'{hint}")
    rows = _LISTS[options.noun]()
    if options.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
    elif rows:
        heads = [head for head, value in rows[0].items() if isinstance(value, str)]
        print("\n".join(aligned([heads, *([row[head] for head in heads] for row in rows)])))
    else:
        print(f"no {options.noun} are installed")
    return 0


def _recipes() -> list[Row]:
    rows = []
    costs: dict[Path, dict[str, TrainingCost]] = {}
    for name, file in find_recipes().items():
        if file.parent not in costs:
            costs[file.parent] = read_costs(file.parent)
        cost = costs[file.parent].get(name)
        tables = read_toml(file)
        data = tables.get("data", {})
        rows.append(
            {
                "recipe": name,
                "kind": str(tables.get("kind", "?")),
                "dataset": str(data.get("dataset", "glyphs")) if isinstance(data, Mapping) else "?",
                "stages": ", ".join(_stages(tables)),
                "parameters": shown_parameters(cost.parameters) if cost else "",
                "training": shown_flops(cost.flops) if cost else "",
                "estimate": shown_hours(cost.flops) if cost else "",
                "cost": asdict(cost) if cost else None,
            }
        )
    return rows


def _stages(tables: Mapping[str, Any]) -> list[str]:
    """Return each table that carries a budget, with the budget."""
    found = []
    for name, table in tables.items():
        if not isinstance(table, Mapping):
            continue
        if "seconds" in table:
            found.append(f"{name} {table['seconds']:g} s")
        elif "steps" in table:
            found.append(f"{name} {table['steps']} steps")
    return found


def _samplers() -> list[Row]:
    from lsgm.sampling import samplers

    return [
        {
            "sampler": sampler.name,
            "NFE": "adaptive" if sampler.adaptive else sampler.nfe_formula,
            "order": "" if sampler.order is None else f"{sampler.order:g}",
            "paper": sampler.paper,
            "what": sampler.summary,
        }
        for sampler in samplers()
    ]


def _datasets() -> list[Row]:
    from lsgm.data.registry import DATASETS

    return [
        {
            "dataset": name,
            "pixels": dataset.pixels,
            "shape": "x".join(map(str, dataset.image_shape)),
            "what": dataset.summary,
        }
        for name, dataset in DATASETS.items()
    ]


def _tasks() -> list[Row]:
    rows = []
    for point in offers("lsgm.suites").values():
        folder = package_folder(point.value)
        for file in sorted(folder.glob("*.toml")) if folder else ():
            tables = read_toml(file)
            tiers = tables.get("tiers", {})
            rows.append(
                {
                    "task": f"{tables.get('name', file.stem)}@{tables.get('version', '?')}",
                    "dataset": str(tables.get("dataset", "")),
                    "tiers": ", ".join(tiers),
                    "what": str(tables.get("summary", "")),
                }
            )
    return rows


def _commands() -> list[Row]:
    return [
        {"command": name, "what": help_line(point.value)} for name, point in offers("lsgm.commands").items()
    ]


_LISTS: dict[str, Callable[[], list[Row]]] = {
    "recipes": _recipes,
    "samplers": _samplers,
    "datasets": _datasets,
    "tasks": _tasks,
    "commands": _commands,
}
