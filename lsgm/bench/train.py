"""What training costs: a step's seconds by phase, a joint step by all ways, where its time goes.

Each stage is trained by the real engine in a run directory that is thrown away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lsgm.bench import floor, ways
from lsgm.bench.cost import recipe_pixels, training_stages
from lsgm.bench.measuring import Columns, Row, columns, measured, quartiles, read_recipes, spread
from lsgm.bench.options import TrainBench
from lsgm.bench.passes import compare_passes, first_levels
from lsgm.bench.targets import verdicts
from lsgm.config import StageConfig, require
from lsgm.data import ImageSet, sha256_of
from lsgm.data.images import PixelKind
from lsgm.data.registry import DATASETS
from lsgm.errors import DataError
from lsgm.generative import Pixels
from lsgm.progress import bar, warn
from lsgm.recipes.recipe import LSGMRecipe
from lsgm.train.computing import low_precision
from lsgm.train.loop import load_images, pixels_of, train_recipe
from lsgm.train.signals import PHASES, StepTimer

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
    if outcome.exit_status:
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
        **quartiles("step_ms", [1e3 * seconds for seconds in timer.each]),
        **{f"share_{phase}": share for phase, share in timer.shares().items()},
    }


def _only(recipe: Any, stage: str, steps: int) -> Any:
    """Return the recipe with one stage left, which neither ends, validates nor saves within ``steps``."""
    changes: dict[str, StageConfig] = {}
    for name, config in training_stages(recipe).items():
        ends = {"steps": max(config.steps, steps + 1), "seconds": None}
        quiet = {"val_every": steps + 1, "checkpoint_every": 1e9}
        changes[name] = dataclasses.replace(config, **(ends | quiet if name == stage else {"steps": 0}))
    return dataclasses.replace(recipe, **changes)


_STAGES: Columns = {
    "recipe": "{recipe}",
    "stage": "{stage}",
    "batch": "{batch_size}",
    "precision": lambda row: row["precision"] + (", compiled" if row["compile"] else ""),
    "steps/s": "{steps_per_second:.3g}",
    "images/s": lambda row: (
        f"{row['images_per_second']:{'.3g' if row['images_per_second'] < 1000 else '.0f'}}"
    ),
    "step, ms": lambda row: spread(row, "step_ms", ".0f"),
    **{phase: f"{{share_{phase}:.0%}}" for phase in PHASES},
}
_PASSES: Columns = {
    "recipe": "{recipe}",
    "weighting": "{weighting}",
    "batch": "{batch_size}",
    "precision": "{precision}",
    "one, ms": lambda row: spread(row, "one_ms", ".0f"),
    "two, ms": lambda row: spread(row, "two_ms", ".0f"),
    "two, cut, ms": lambda row: spread(row, "two_cut_ms", ".0f"),
    "two / one": lambda row: spread(row, "two_over_one", ".2f"),
    "two, cut / one": lambda row: spread(row, "two_cut_over_one", ".2f"),
    "difference": "{largest_difference:.0e}",
}


def page(rows: Sequence[Row], *, about: str) -> str:
    """Return the page: the machine, a table of everything that was measured, and the targets."""
    of = {
        what: [row for row in rows if row["what"] == what] for what in ("stage", "backward", "way", "profile")
    }
    if (width := rows[0]["width"]) != 1:
        about += f" Networks at {width:g} of their recipes' width."
    parts = ["# What training costs", about]
    if stages := of["stage"]:
        parts += [
            "## Steps",
            columns(_STAGES, stages),
            f"{stages[0]['steps']} steps of each stage in the training engine, after {WARM_UP} not counted. "
            "Rates are means, step times medians with quartiles, shares those of the summed time. Clipping, "
            "the moving average and the finite check count as optimiser; validation and checkpoints are left "
            "out.",
        ]
    if passes := of["backward"]:
        parts += [
            "## One backward pass for both objectives",
            columns(_PASSES, passes),
            f"Forward and backward of a joint step, medians of {passes[0]['rounds']} rounds with quartiles, "
            "taken in turn on one model and batch, not compiled. *Two* is algorithm 3 of arXiv:2106.05931 as "
            "it is written; *two, cut* stops the second pass at the prior's parameters. Ratios are medians "
            "within rounds. The last column is the largest difference of any gradient in float64, relative "
            "to the largest gradient of its part.",
        ]
    if of["way"]:
        parts += [
            "## Ways to make a joint step",
            columns(ways.COLUMNS, of["way"], left=3),
            f"Whole steps on one batch, optimisers and average included, medians of {of['way'][0]['rounds']} "
            "rounds with quartiles, taken in turn. *Times as fast* is within rounds, over the first way. "
            "FLOP/s are of the convolutions and products of one backward pass; a way that compiles does so "
            "in its first step.",
        ]
    if of["profile"]:
        parts += [
            "## Where a step's time goes",
            columns(floor.COLUMNS, of["profile"], left=2),
            "Time of torch's operations by class, as its profiler has them. The floor is the step's "
            "operations at the better of the two rates, and its optimisers' traffic at the copy's.",
        ]
    if any("target" in row for row in rows):
        parts += ["## Targets", verdicts(rows, every=False)]
    return "\n\n".join(parts)


def run(options: TrainBench) -> int:
    """Measure, then print or write; the exit status is 0."""
    recipes = read_recipes(options.recipes, width=options.width, batch=options.batch)

    def rows(device: torch.device) -> list[dict[str, Any]]:
        found: dict[str, list[dict[str, Any]]] = {what: [] for what in options.measures}
        for name, recipe in recipes.items():
            images = images_of(recipe)
            stages = training_stages(recipe)
            require(bool(stages), f"every stage of '{name}' has 0 steps; give at least one of them a budget")
            how: dict[str, Any] = {"device": device, "label": name}
            if "stages" in found:
                found["stages"] += [
                    time_stage(recipe, stage, images, steps=options.steps, **how) for stage in stages
                ]
            if not (isinstance(recipe, LSGMRecipe) and recipe.stage2.train_vae):
                continue  # there is no joint step
            if "passes" in found and (row := compare_passes(recipe, images, rounds=options.steps, **how)):
                found["passes"].append(row)
            pixels = pixels_of(images, recipe.data.bits)
            levels = first_levels(recipe, images, recipe.stage2.batch_size, device)
            if "ways" in found:
                among = ways.chosen(options.ways, device, len(levels))
                found["ways"] += ways.compare_ways(
                    recipe, pixels, levels, among, rounds=options.steps, label=name
                )
            if "profile" in found:
                found["profile"].append(_profile(recipe, pixels, levels, options.steps, name))
        require(any(found.values()), "no recipe has a joint step, which passes, ways and profile are about")
        return [row for rows in found.values() for row in rows]

    return measured("train", options, rows, page)


def images_of(recipe: Any) -> ImageSet:
    """Return a recipe's dataset; where it is not at hand, noise of its shape: a step costs the same."""
    try:
        return load_images(recipe)
    except DataError as error:
        if recipe.data.dataset not in DATASETS:
            raise
        warn(f"{error}; random images stand in")
    pixels = recipe_pixels(recipe)
    count = max(stage.batch_size for stage in training_stages(recipe).values())
    generator = torch.Generator().manual_seed(recipe.seed)
    noise = torch.randint(0, 256, (count, *pixels.shape), generator=generator, dtype=torch.uint8)
    splits = {"train": noise, "val": noise[:4], "test": noise[:4]}
    kind: PixelKind = "binary" if pixels.kind == "binary" else "uint8"
    return ImageSet(recipe.data.dataset, "noise", sha256_of(*splits.values()), kind, splits)


def _profile(recipe: Any, pixels: Pixels, levels: Tensor, steps: int, label: str) -> dict[str, Any]:
    """Profile the step that training makes: in the stage's precision, as it is laid out on the device."""
    dtype, last = low_precision(recipe.stage2.precision, levels.device), levels.device.type == "cuda"
    way = ways.Way(str(dtype or torch.float32).removeprefix("torch."), dtype, last=last)
    stepper = ways.Stepper(recipe, pixels, levels, last=last)
    return floor.profile_step(recipe, stepper, way, steps=min(steps, 5), label=label)
