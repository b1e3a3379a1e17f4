"""``lsgm bench fold``: a VAE's forward pass with weight norm and batch norm folded away, and without."""

from __future__ import annotations

import json
from dataclasses import dataclass

from lsgm.bench.recipes import read_recipes
from lsgm.commands.options import parse
from lsgm.config import require

__all__ = ["HELP", "Options", "run"]

HELP = "forward time of a VAE with its normalisations folded into the convolutions, and without"

DESCRIPTION = """Time the forward pass of a recipe's VAE in eval mode as it was trained and after folding:
weight norm, and batch norm where that is exact, become part of the convolutions. Both are timed in turn on
one batch, after a check in float64 that they compute the same. Nothing is trained and no data are needed."""

EXAMPLES = (
    "lsgm bench fold --recipes omniglot --width 0.25 --batch 8",
    "lsgm bench fold --recipes cifar10-fid --device cuda --json",
)


@dataclass(frozen=True)
class Options:
    """Options of ``lsgm bench fold``."""

    recipes: str = "omniglot"
    """Names of recipes or paths of TOML files, between commas."""
    rounds: int = 10
    """Rounds that count; each times either way once."""
    width: float = 1.0
    """Share of the networks' widths that is kept."""
    batch: int = 16
    """Images in the batch."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""
    json: bool = False
    """Print the rows as JSON lines instead of the page."""

    def __post_init__(self) -> None:
        require(self.rounds >= 1, f"rounds is {self.rounds}; give at least 1")


def run(argv: list[str]) -> int:
    """Measure, then print; the exit status is 0."""
    options = parse(Options, argv, prog="lsgm bench fold", description=DESCRIPTION, examples=EXAMPLES)
    recipes = read_recipes(options.recipes, width=options.width, batch=options.batch)
    from lsgm.bench.folding import compare_folded, page
    from lsgm.bench.machine import describe, machine
    from lsgm.devices import pick_device

    device = pick_device(options.device)
    about = machine(device)
    rows = [
        {**row, "width": options.width}
        for name, recipe in recipes.items()
        for row in compare_folded(
            recipe, batch=options.batch, rounds=options.rounds, device=device, label=name
        )
    ]
    if options.json:
        print("\n".join(json.dumps({"bench": "fold", **row, **about}) for row in rows))
    else:
        print(page(rows, about=describe(about)))
    return 0
