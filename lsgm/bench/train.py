"""Seconds of a training step by phase, stage by stage: the real engine in a run directory thrown away."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lsgm.bench.measuring import read_recipes, spread_of
from lsgm.config import StageConfig, require
from lsgm.data import ImageSet
from lsgm.errors import ConfigError
from lsgm.options import parse
from lsgm.progress import bar
from lsgm.train import StepTimer
from lsgm.train.signals import PHASES
from lsgm.train.training import train_recipe

__all__ = [
    "HELP",
    "WARM_UP",
    "Options",
    "make_room",
    "markdown",
    "run",
    "spread",
    "stage_names",
    "table",
    "time_stage",
    "write_page",
]

WARM_UP = 3
"""Steps that do not count: compilation, caches, first allocations."""


class _ShownTimer(StepTimer):
    """A step timer that also keeps each step's seconds and moves a progress bar."""

    def __init__(self, progress: Any, *, skip: int) -> None:
        super().__init__(skip=skip)
        self.each: list[float] = []
        self._progress = progress

    def mark(self, phase: str) -> None:
        """End a phase, and with the last one the step."""
        super().mark(phase)
        if phase != PHASES[-1]:
            return
        self._progress.update()
        if self.steps > len(self.each):
            self.each.append(sum(self.seconds.values()) - sum(self.each))


def stage_names(recipe: Any) -> list[str]:
    """Return the names of a recipe's stages that train at all, in order."""
    fields = [(field.name, getattr(recipe, field.name)) for field in dataclasses.fields(recipe)]
    return [name for name, value in fields if isinstance(value, StageConfig) and value.steps > 0]


def time_stage(
    recipe: Any, stage: str, images: ImageSet, *, steps: int, device: torch.device, label: str
) -> dict[str, Any]:
    """Train one stage alone for ``WARM_UP + steps`` steps and return its row.

    The stage keeps its schedules, batch and precision; validations and checkpoints on the way are switched
    off. Rates count the time between the start of a step and the end of its optimisers.
    """
    alone = _only(recipe, stage, WARM_UP + steps)
    with bar(total=WARM_UP + steps, desc=f"{label} {stage}", unit="step") as progress:
        timer = _ShownTimer(progress, skip=WARM_UP)
        # The engine's own bar would stand beside this one, and its closing sentence would advise going on
        # with a run that is about to vanish.
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            outcome = train_recipe(
                alone,
                Path(folder) / "run",
                device=device,
                images=images,
                timer=timer,
                max_steps=WARM_UP + steps,
            )
    if outcome.interrupted:
        raise KeyboardInterrupt
    config: StageConfig = getattr(recipe, stage)
    return {
        "what": "stage",
        "recipe": label,
        "stage": stage,
        "batch_size": config.batch_size,
        "precision": config.precision,
        "compile": config.compile,
        "steps": timer.steps,
        "steps_per_second": timer.steps_per_second,
        "images_per_second": timer.steps_per_second * config.batch_size,
        **spread_of([1e3 * seconds for seconds in timer.each]).as_row("step_ms"),
        **{f"share_{phase}": share for phase, share in timer.shares().items()},
    }


def _only(recipe: Any, stage: str, steps: int) -> Any:
    """Return the recipe with one stage left, which neither ends, validates nor saves within ``steps``."""
    changes: dict[str, StageConfig] = {}
    for name in stage_names(recipe):
        config: StageConfig = getattr(recipe, name)
        if name != stage:
            changes[name] = dataclasses.replace(config, steps=0)
            continue
        changes[name] = dataclasses.replace(
            config,
            seconds=None,
            steps=max(config.steps, steps + 1),
            val_every=steps + 1,
            checkpoint_every=1e9,
        )
    return dataclasses.replace(recipe, **changes)


# The training benchmark's rows as a Markdown page

Row = Mapping[str, Any]

_PHASES = ("data", "forward", "backward", "optimiser")


def markdown(stages: Sequence[Row], passes: Sequence[Row], *, about: str, warm_up: int) -> str:
    """Return the page: the machine, the table of stages, and that of backward passes where there is one."""
    parts = ["# What training costs", about, "## Steps", table(_STAGE_HEADS, map(_stage, stages))]
    parts.append(
        f"{stages[0]['steps']} steps of each stage in the training engine, after {warm_up} not counted. "
        "Rates are means, step times medians with quartiles, shares those of the summed time. Clipping, the "
        "moving average and the finite check count as optimiser; validation and checkpoints are left out."
    )
    if passes:
        parts += ["## One backward pass for both objectives", table(_PASS_HEADS, map(_pass, passes))]
        parts.append(
            f"Forward and backward of a joint step, medians of {passes[0]['rounds']} rounds with quartiles, "
            "taken in turn on one model and batch, not compiled. *Two* is algorithm 3 of arXiv:2106.05931 as "
            "it is written; *two, cut* stops the second pass at the prior's parameters. Ratios are medians "
            "within rounds. The last column is the largest difference of any gradient in float64, relative "
            "to the largest gradient of its part."
        )
    return "\n\n".join(parts) + "\n"


_STAGE_HEADS = ("recipe", "stage", "batch", "precision", "steps/s", "images/s", "step, ms", *_PHASES)
_PASS_HEADS = (
    "recipe",
    "weighting",
    "batch",
    "precision",
    "one, ms",
    "two, ms",
    "two, cut, ms",
    "two / one",
    "two, cut / one",
    "difference",
)


def _stage(row: Row) -> list[str]:
    return [
        row["recipe"],
        row["stage"],
        str(row["batch_size"]),
        row["precision"] + (", compiled" if row["compile"] else ""),
        f"{row['steps_per_second']:.3g}",
        f"{row['images_per_second']:.3g}"
        if row["images_per_second"] < 1000
        else f"{row['images_per_second']:.0f}",
        spread(row, "step_ms", 0),
        *(f"{row[f'share_{phase}']:.0%}" for phase in _PHASES),
    ]


def _pass(row: Row) -> list[str]:
    times = [spread(row, f"{name}_ms", 0) for name in ("one", "two", "two_cut")]
    ratios = [spread(row, f"{name}_over_one", 2) for name in ("two", "two_cut")]
    head = [row["recipe"], row["weighting"], str(row["batch_size"]), row["precision"]]
    return [*head, *times, *ratios, f"{row['largest_difference']:.0e}"]


def spread(row: Row, name: str, digits: int) -> str:
    """Return the median of a row's value with its quartiles."""
    low, middle, high = row[f"{name}_q1"], row[name], row[f"{name}_q3"]
    # Two digits more where the whole is a few milliseconds.
    digits += 2 if name.endswith("_ms") and middle < 10 else 0
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def table(heads: Sequence[str], rows: Any) -> str:
    """Return a Markdown table, its first two columns to the left."""
    body = [list(cells) for cells in rows]
    # A bar inside a recipe's path would end its cell.
    lines = [" | ".join(cell.replace("|", "\\|") for cell in cells) for cells in [list(heads), *body]]
    rule = " | ".join("---" if index < 2 else "---:" for index in range(len(heads)))
    return "\n".join(f"| {line} |" for line in [lines[0], rule, *lines[1:]])


# ``lsgm bench train``: steps per second by stage, where a step's time goes, one backward pass or two

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
    from lsgm.bench.measuring import describe, machine
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
    from lsgm.bench.passes import compare_passes
    from lsgm.train.training import load_images

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
