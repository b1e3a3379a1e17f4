"""``lsgm bench memory``: peak memory of a joint step with activations kept, and recomputed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lsgm.bench.recipes import read_recipes
from lsgm.commands.options import parse

__all__ = ["HELP", "Options", "run"]

HELP = "peak memory of a joint step with activations kept, and recomputed"

DESCRIPTION = """Run a joint step of a recipe's stage 2, forward and backward, in a fresh process each way:
with activations kept for the backward pass, and with the networks' `recompute`. On a GPU the peak is
that of torch's allocations, on a CPU that of the process's resident memory. No data are needed."""

EXAMPLES = (
    "lsgm bench memory --recipes omniglot --width 0.25 --batch 8",
    "lsgm bench memory --recipes cifar10-fid,mnist --device cuda --json",
)


@dataclass(frozen=True)
class Options:
    """Options of ``lsgm bench memory``."""

    recipes: str = "omniglot"
    """Names of recipes or paths of TOML files, between commas."""
    width: float = 1.0
    """Share of the networks' widths that is kept."""
    batch: int | None = None
    """Images per step; the recipe's own number unless given."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""
    json: bool = False
    """Print the rows as JSON lines instead of the page."""


def run(argv: list[str]) -> int:
    """Measure, then print; the exit status is 0."""
    options = parse(Options, argv, prog="lsgm bench memory", description=DESCRIPTION, examples=EXAMPLES)
    recipes = read_recipes(options.recipes, width=options.width, batch=options.batch)
    from lsgm.bench.machine import describe, machine
    from lsgm.bench.peaks import measure
    from lsgm.devices import pick_device

    device = pick_device(options.device)
    about = machine(device)
    rows = [
        {"what": "memory", "recipe": name, "width": options.width, **row}
        for name, recipe in recipes.items()
        for row in measure(recipe, device=str(device), label=name)
    ]
    if options.json:
        print("\n".join(json.dumps({"bench": "memory", **row, **about}) for row in rows))
    else:
        print(_page(rows, about=describe(about)))
    return 0


def _page(rows: Sequence[Mapping[str, Any]], *, about: str) -> str:
    from lsgm.bench.tables import table

    heads = ("recipe", "activations", "batch", "before, MiB", "peak, MiB", "rise, MiB", "step, s")
    cells = [
        [
            row["recipe"] + (f", width x {row['width']:g}" if row["width"] != 1 else ""),
            "recomputed" if row["recompute"] else "kept",
            str(row["batch_size"]),
            *(f"{row[f'{name}_bytes'] / 2**20:.0f}" for name in ("before", "peak", "rise")),
            f"{row['seconds']:.2f}",
        ]
        for row in rows
    ]
    note = (
        "Forward and backward of a joint step, no optimiser, each way in a process of its own. *Before* is "
        "what is held when the step begins, weights and gradients included; *rise* is the peak without it."
    )
    return "\n\n".join(["# What activations cost in memory", about, table(heads, cells), note])
