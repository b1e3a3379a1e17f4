"""``lsgm bench train``: steps per second by stage, where a step's time goes, one backward pass or two."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsgm.bench.recipes import read_recipes
from lsgm.commands.options import parse
from lsgm.config import require
from lsgm.errors import ConfigError

__all__ = ["HELP", "Options", "make_room", "run", "write_page"]

HELP = "steps and images per second of each stage; one backward pass against two"

DESCRIPTION = """Train each stage of some recipes for a few steps in a temporary directory and say what a step
costs: steps and images per second, and the shares of data, forward, backward and optimiser. For an LSGM, also
time a joint step with one backward pass against the two of algorithm 3 of arXiv:2106.05931, after checking
that they give the same gradients. Nothing is kept but the numbers."""

EXAMPLES = (
    "lsgm bench train",
    "lsgm bench train --recipes glyphs,glyphs-sgm --steps 50 --out bench.md",
    "lsgm bench train --recipes omniglot,cifar10-fid --width 0.125 --batch 8 --steps 5",
    "lsgm bench train --recipes mine.toml --device cuda --json > bench.jsonl",
)


@dataclass(frozen=True)
class Options:
    """Options of ``lsgm bench train``."""

    recipes: str = "glyphs"
    """Names of recipes or paths of TOML files, between commas."""
    steps: int = 20
    """Steps of each stage, and rounds of the comparison, that count."""
    width: float = 1.0
    """Share of the networks' widths that is kept; depth, latents and resolutions stay."""
    batch: int | None = None
    """Images per step; the recipe's own number unless given."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""
    out: Path | None = None
    """Write the Markdown page here, and the rows beside it as .jsonl."""
    json: bool = False
    """Print the rows as JSON lines instead of the page."""

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"steps is {self.steps}; give at least 1")
        require(
            self.out is None or self.out.suffix != ".jsonl",
            f"--out is {self.out}, and the rows take that ending; name the page, bench.md for one",
        )


def run(argv: list[str]) -> int:
    """Measure, then print or write; the exit status is 0."""
    options = parse(Options, argv, prog="lsgm bench train", description=DESCRIPTION, examples=EXAMPLES)
    recipes = read_recipes(options.recipes, width=options.width, batch=options.batch)
    if options.out is not None:
        make_room(options.out)
    from lsgm.bench.machine import describe, machine
    from lsgm.bench.steps import WARM_UP
    from lsgm.bench.tables import markdown
    from lsgm.devices import pick_device

    device = pick_device(options.device)
    about = machine(device)
    stages, passes = _measure(recipes, options.steps, device)
    shown = {"bench": "train", "width": options.width}
    rows = [json.dumps({**shown, **row, **about}) for row in [*stages, *passes]]
    where = describe(about)
    if options.width != 1:
        where += f" Networks at {options.width:g} of their recipes' width."
    page = markdown(stages, passes, about=where, warm_up=WARM_UP)
    if options.out is not None:
        write_page(options.out, page)
        write_page(options.out.with_suffix(".jsonl"), "\n".join(rows) + "\n")
    print("\n".join(rows) if options.json else page.rstrip("\n"))
    return 0


def _measure(
    recipes: dict[str, Any], steps: int, device: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the rows of all stages and those of the backward passes."""
    from lsgm.bench.compare import compare_passes
    from lsgm.bench.steps import stage_names, time_stage
    from lsgm.training import load_images

    sets = {name: load_images(recipe) for name, recipe in recipes.items()}
    stages, passes = [], []
    for name, recipe in recipes.items():
        for stage in stage_names(recipe):
            stages.append(time_stage(recipe, stage, sets[name], steps=steps, device=device, label=name))
        row = compare_passes(recipe, sets[name], rounds=steps, device=device, label=name)
        passes += [row] if row is not None else []
    require(bool(stages), "every stage of every recipe has 0 steps; give at least one of them a budget")
    return stages, passes


def make_room(path: Path) -> None:
    """See that a file can be put there before minutes are spent on what it shall say."""
    require(
        not path.is_dir(), f"--out is {path}, which is a folder; give the path of a file, bench.md for one"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {path} ({error.strerror}); give --out another place") from error


def write_page(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    from lsgm.files.write import atomic_path

    try:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot write {path} ({error.strerror}); give --out another place") from error
