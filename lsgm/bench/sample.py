"""``lsgm bench sample``: images per second against batch size, and what a sampler adds to its network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsgm.commands.options import parse
from lsgm.config import SamplerConfig, require
from lsgm.errors import ConfigError

__all__ = ["HELP", "Options", "run"]

HELP = "images per second against batch size at equal evaluations; a sampler's own time per step"

DESCRIPTION = """Draw images by the networks of some recipes, with weights as they are initialised, all with
the same number of network evaluations: images per second against batch size, eager and compiled, the
decoder's pass timed apart. Then the time that a sampler spends outside the network: the same steps with a
score that costs nothing, as a share of the network's time at the first recipe of --overhead. Weights do not
change what a fixed number of evaluations costs."""

EXAMPLES = (
    "lsgm bench sample",
    "lsgm bench sample --recipes glyphs-small,glyphs-small-sgm --nfe 20 --batches 1,16,64",
    "lsgm bench sample --recipes mnist-small,mnist-small-sgm --device cuda --json --out bench.md",
)


@dataclass(frozen=True)
class Options:
    """Options of ``lsgm bench sample``."""

    recipes: str = "glyphs,glyphs-sgm"
    """Names of recipes or paths of TOML files with a diffusion, between commas."""
    sampler: str = "heun"
    """A fixed-step sampler of `lsgm ls samplers`."""
    nfe: int = 20
    """Network evaluations per image; the most steps that they pay for are taken."""
    batches: str = "1,8,64"
    """Images drawn together, between commas."""
    rounds: int = 5
    """Times that every way is timed, in turn."""
    compiled: bool = True
    """Also time networks under torch.compile, where that works."""
    overhead: str = "omniglot-small"
    """Recipe at whose size the samplers' own time is measured; empty: not at all."""
    samplers: str = "heun,euler,ancestral"
    """Samplers of which it is measured, between commas."""
    width: float = 1.0
    """Share of the networks' widths that is kept; depth, latents and resolutions stay."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""
    out: Path | None = None
    """Write the Markdown page here, and the rows beside it as .jsonl."""
    json: bool = False
    """Print the rows as JSON lines instead of the page."""

    def __post_init__(self) -> None:
        require(self.rounds >= 1, f"rounds is {self.rounds}; give at least 1")
        require(min(self.sizes) >= 1, "batches has a size below 1; give numbers of images of at least 1")
        require(
            self.out is None or self.out.suffix != ".jsonl",
            f"--out is {self.out}, and the rows take that ending; name the page, bench.md for one",
        )

    @property
    def sizes(self) -> list[int]:
        """The batch sizes as numbers. Raises ConfigError where they are none."""
        try:
            found = [int(part) for part in self.batches.split(",") if part.strip()]
        except ValueError:
            raise ConfigError(f"batches is '{self.batches}', not whole numbers between commas") from None
        require(bool(found), "batches lists no number; give at least one")
        return found


def fixed_steps(name: str, nfe: int) -> SamplerConfig:
    """Return a sampler with the most steps within ``nfe`` evaluations.

    Raises ConfigError for an adaptive one, whose evaluations nobody can ask for, and for too few.
    """
    from lsgm.samplers import find_sampler

    sampler = find_sampler(name)
    require(
        not sampler.adaptive,
        f"sampler '{name}' chooses its own evaluations; give one of fixed steps, heun for one",
    )
    return SamplerConfig(name=name, steps=sampler.steps_within(nfe, SamplerConfig(name=name)))


def run(argv: list[str]) -> int:
    """Measure, then print or write; the exit status is 0."""
    options = parse(
        Options,
        argv,
        prog="lsgm bench sample",
        description=DESCRIPTION,
        examples=EXAMPLES,
        may_be_empty=("--overhead", "--samplers"),
    )
    sampler = fixed_steps(options.sampler, options.nfe)
    names = [name.strip() for name in options.samplers.split(",") if name.strip()]
    others = [fixed_steps(name, options.nfe) for name in names]
    from lsgm.bench.machine import describe, machine
    from lsgm.bench.recipes import read_recipes
    from lsgm.bench.sample_page import page
    from lsgm.bench.sampling import overhead_rows, speed_rows
    from lsgm.bench.train import make_room, write_page
    from lsgm.devices import pick_device

    recipes = read_recipes(options.recipes, width=options.width)
    sized = read_recipes(options.overhead, width=options.width) if options.overhead else {}
    if options.out is not None:
        make_room(options.out)
    device = pick_device(options.device)
    about = machine(device)
    how: dict[str, Any] = {"rounds": options.rounds, "device": device}
    rows: list[dict[str, Any]] = []
    for name, recipe in recipes.items():
        rows += speed_rows(recipe, sampler, options.sizes, label=name, compiled=options.compiled, **how)
    for name, recipe in sized.items():
        rows += overhead_rows(recipe, others, options.sizes, label=name, **how)
    lines = [json.dumps({"bench": "sample", "width": options.width, **row, **about}) for row in rows]
    text = page(rows, about=describe(about))
    if options.out is not None:
        write_page(options.out, text)
        write_page(options.out.with_suffix(".jsonl"), "\n".join(lines) + "\n")
    print("\n".join(lines) if options.json else text.rstrip("\n"))
    return 0
