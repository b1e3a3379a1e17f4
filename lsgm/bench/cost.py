"""``lsgm bench cost``: parameters of a recipe's networks and the operations of its training, by counting."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from lsgm.commands.options import Positional, arg, parse
from lsgm.config import require
from lsgm.costs import Cost, shown_flops, shown_hours, write_costs
from lsgm.kinds import recipe_from
from lsgm.recipe_files import find_recipes, load_recipe

__all__ = ["HELP", "Options", "run"]

HELP = "parameters and floating-point operations of recipes, counted and not run"

DESCRIPTION = """Count the parameters of a recipe's networks and the floating-point operations of its
training: convolutions, matrix products and attention of every pass, elementwise work left out. Nothing is
trained and no data are needed. The hours are for a rate, not for this machine."""

EXAMPLES = (
    "lsgm bench cost cifar10-fid mnist",
    "lsgm bench cost mine.toml --json",
    "lsgm bench cost --write      # renew what `lsgm ls recipes` shows",
)


@dataclass(frozen=True)
class Options:
    """Options of ``lsgm bench cost``."""

    recipes: Annotated[Positional[tuple[str, ...]], arg(metavar="RECIPE")] = ()
    """Names of recipes or paths of TOML files; every installed recipe unless given."""
    write: bool = False
    """Write the costs of all installed recipes into costs.json beside them."""
    json: bool = False
    """Print one JSON object per line."""

    def __post_init__(self) -> None:
        require(
            not (self.write and self.recipes), "--write is about all installed recipes; name none with it"
        )


def run(argv: list[str]) -> int:
    """Count, then print or write; the exit status is 0."""
    options = parse(Options, argv, prog="lsgm bench cost", description=DESCRIPTION, examples=EXAMPLES)
    installed = find_recipes()
    names = options.recipes or tuple(installed)
    recipes = {name: recipe_from(load_recipe(name), f"recipe '{name}'") for name in names}
    from lsgm.bench.flops import cost_of

    costs = {name: cost_of(recipe) for name, recipe in recipes.items()}
    if options.write:
        for folder in sorted({file.parent for file in installed.values()}):
            path = write_costs(
                folder, {n: cost for n, cost in costs.items() if installed[n].parent == folder}
            )
            print(f"wrote {path}")
    elif options.json:
        for name, cost in costs.items():
            print(json.dumps({"bench": "cost", "recipe": name, **asdict(cost)}, ensure_ascii=False))
    else:
        print(_page(costs))
    return 0


def _page(costs: Mapping[str, Cost]) -> str:
    heads = ("recipe", "parameters", "per step", "training", "time")
    lines = [heads, *((Path(name).stem, *_cells(cost)) for name, cost in costs.items())]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([rows[0], "|" + " --- |" * len(heads), *rows[1:]])


def _cells(cost: Cost) -> tuple[str, str, str, str]:
    parts = ", ".join(f"{part} {count / 1e6:.2f} M" for part, count in cost.parameters.items())
    steps = ", ".join(f"{stage} {shown_flops(flops)}" for stage, flops in cost.step_flops.items())
    return parts, steps, shown_flops(cost.flops), shown_hours(cost.flops)
