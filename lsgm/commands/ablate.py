"""``lsgm ablate``: the ablations of a recipe, as the very commands one would type."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from lsgm.commands import steps
from lsgm.config import require
from lsgm.errors import ConfigError, UserError
from lsgm.files.write import claim, replace_file, writing
from lsgm.options import Positional, arg, parse
from lsgm.progress import warn
from lsgm.recipes import load_recipe
from lsgm.recipes.ablation import (
    SHARED,
    AblationCell,
    all_cells,
    cell_options,
    choose_studies,
    sde_of,
    study_lines,
    summary,
)
from lsgm.results.files import read_rows

HELP = "train and measure the paper's ablations from one shared VAE"

DESCRIPTION = """Train the cells of ablation studies from one shared VAE, measure them all, write the report.

Stage 1 is trained once. Every cell starts from its VAE and differs in what its study asks for and in nothing
else: networks, seeds, images and budget are the same. The studies are those of arXiv:2106.05931:
  sde-weighting-importance  SDE (vp, geometric, ve) x weighting (ll, un, re) x importance sampling (yes, no)
  frozen                    the VAE trained with the prior, or left as stage 1 made it
  mixed-score               the score with the Normal prior's part, or the network alone
and one of this project's own is
  control-variate           the VAE's cross entropy with its control variate, or as the paper has it

All SDEs start from the smallest noise of the recipe's. A cell that cannot exist or does not stay finite is
recorded with its reason, and the grid goes on. Each is measured beside vp-ll-is, which the studies share.

All of glyphs-small, and of mnist-tiny, take about 30 minutes of one core. Every step is a command that is
printed before it runs. Interrupt at any moment: the same command goes on."""

EXAMPLES = (
    "lsgm ablate glyphs-small",
    "lsgm ablate mnist-tiny --study frozen,mixed-score --tier smoke",
    "lsgm ablate glyphs-small --stage1.steps 3000 --stage2.steps 5000 --out runs/longer --jobs 2",
)


class Size(NamedTuple):
    """How much of a recipe fits into half an hour of one core; None: what the recipe or the tier has."""

    stage1: int | None = None
    """Steps of the shared stage."""
    stage2: int | None = None
    """Steps of each cell."""
    images: int | None = None
    """Images whose bound is measured."""


SIZES: Mapping[str, Size] = {"glyphs-small": Size(1500, 900), "mnist-tiny": Size(1400, 450, 2000)}


@dataclass(frozen=True)
class Budget:
    """How long a stage is trained."""

    steps: int | None = None
    """Optimiser steps."""
    seconds: float | None = None
    """Seconds of training instead."""

    def __post_init__(self) -> None:
        require(self.steps is None or self.steps > 0, f"steps is {self.steps}; a stage needs at least 1")
        require(self.seconds is None or self.seconds > 0, f"seconds is {self.seconds}; give more than 0")
        require(self.steps is None or self.seconds is None, "give a stage's steps or its seconds, not both")


@dataclass(frozen=True)
class AblateOptions:
    """Options of `lsgm ablate`."""

    recipe: Annotated[Positional[str], arg(metavar="RECIPE")] = "glyphs-small"
    """An LSGM's recipe with the vp SDE: its name, or the path of a TOML file."""
    study: str = "all"
    """sde-weighting-importance, frozen, mixed-score, several with commas between them, or all."""
    out: Path | None = None
    """Folder for the runs and the report; runs/ablate-RECIPE unless given."""
    stage1: Budget = field(default_factory=Budget)
    """The VAE that all cells start from: 1500 steps for glyphs-small, 1400 for mnist-tiny, else those of the
    recipe."""
    stage2: Budget = field(default_factory=Budget)
    """Each cell: 900 steps for glyphs-small, 450 for mnist-tiny, else the recipe's."""
    ve_sigma2_max: float | Literal["data"] = "data"
    """Largest variance of the ve SDE; "data" finds the largest squared distance between two latents, up to a
    minute in each of its cells. It is near 1200 for glyphs-small and mnist-tiny."""
    tier: str = "quick"
    """How much is evaluated: smoke, quick or full."""
    images: int | None = None
    """Bound this many test images instead of the tier's; 2000 for mnist-tiny unless given."""
    jobs: int = 1
    """Cells that are trained at the same time, each in a process with its share of the cores."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""

    def __post_init__(self) -> None:
        require(self.jobs >= 1, f"jobs is {self.jobs}; it must be at least 1")
        require(self.images is None or self.images >= 2, f"images is {self.images}; an error needs 2 of them")


def run(argv: list[str]) -> int:
    """Train and measure the grid; the exit status is that of the first step that ends it."""
    options = parse(AblateOptions, argv, prog="lsgm ablate", description=DESCRIPTION, examples=EXAMPLES)
    grid = _Grid(options)
    if status := grid.train() or grid.measure():
        return status
    status = steps.step(["report", str(grid.out)])
    print("\n".join(grid.tables()))
    return status


class _Grid:
    """The cells of some studies: the commands that make and measure them, and why some have no model."""

    def __init__(self, options: AblateOptions) -> None:
        self.options = options
        self.studies = choose_studies(options.study)
        self.cells = all_cells(self.studies)
        self.recipe = _recipe(options.recipe)
        self.out = claim(options.out or Path("runs") / f"ablate-{Path(options.recipe).stem}")
        self.size = SIZES.get(options.recipe, Size())
        self.images = options.images or (self.size.images if options.tier == "quick" else None)
        """Images whose bound is measured; None for the tier's."""
        self.failed: dict[str, str] = {}
        self.device = ("--device", options.device)
        changes = {cell: cell_options(cell, self.recipe, options.ve_sigma2_max) for cell in self.cells}
        origin = ("--init-vae-from", self.out / "vae", "--stage1.steps", 0, *self._budget("stage2"))
        self.trainings = {
            cell: _words("train", options.recipe, "--out", self._model(cell), *origin, *words, *self.device)
            for cell, words in changes.items()
        }

    def train(self) -> int:
        """Train the VAE that all cells start from, then these; return the status that ends it, or 0."""
        for cell in self.cells:
            self._note(cell, _impossible(cell, self.recipe))
        vae = ("--out", self.out / "vae", *self._budget("stage1"), "--stage2.steps", 0)
        if status := steps.step(_words("train", self.options.recipe, *vae, *self.device)):
            return status
        commands = {cell: words for cell, words in self.trainings.items() if cell.name not in self.failed}
        jobs = self.options.jobs
        try:
            for cell, status, why in (
                steps.one_by_one(commands) if jobs == 1 else steps.side_by_side(commands, jobs)
            ):
                if status and not why:
                    return status
                self._note(cell, why)
        finally:
            self._write()
        return 0

    def measure(self) -> int:
        """Measure each cell beside the shared one, so that differences are paired and only those of interest.

        Returns the status that ends it, or 0.
        """
        there = [cell for cell in self.cells if cell.name not in self.failed]
        if not there:
            raise UserError("no cell stayed finite, so there is nothing to measure; lower the learning rates")
        first = SHARED if SHARED in there else there[0]
        for words in self._measurements([first]):
            if status := steps.step(words):
                return status
        for cell in there:
            try:
                for words in self._measurements([first, cell]) if cell != first else ():
                    steps.announce(words)
                    if status := steps.run_command(words):
                        return status
            except UserError as error:
                self._note(cell, f"could not be measured: {error}")
        self._write()
        return 0

    def tables(self) -> list[str]:
        """Return the studies as tables for the terminal."""
        tier = self.options.tier
        tiers = {tier, tier if self.images is None else f"{tier}-limit-{self.images}"}
        found = read_rows(self.out / "results.jsonl")
        rows = [row.as_dict() for row in found if row.task.partition("/")[2] in tiers]
        return [line for study in self.studies for line in ["", *study_lines(study, rows, self.failed)]]

    def _measurements(self, cells: Sequence[AblationCell]) -> Iterator[list[str]]:
        task, tier = self.recipe.data.dataset, ["--tier", self.options.tier, "--out", self.out, *self.device]
        models = [self._model(cell) for cell in cells]
        only = ["--only", "quality"] + (["--only", "nelbo"] if self.images is None else [])
        named = [word for model in models for word in ("--model", model)]
        yield _words("eval", task, *only, *tier, "--report", "no", *named)
        if self.images is not None:
            limit = ("--method", "nelbo", "--limit", self.images)
            yield _words("nll", *models, "--task", task, *limit, *tier)

    def _model(self, cell: AblationCell) -> Path:
        """Return a cell's run directory, whose name is the model's."""
        return self.out / "models" / cell.name

    def _budget(self, stage: Literal["stage1", "stage2"]) -> list[object]:
        """Return the option that sets a stage's length: as asked for, the command's own, or none."""
        asked: Budget = getattr(self.options, stage)
        if asked.seconds is not None:
            return [f"--{stage}.seconds", asked.seconds]
        steps = asked.steps or getattr(self.size, stage)
        return [f"--{stage}.steps", steps] if steps else []

    def _note(self, cell: AblationCell, why: str) -> None:
        if why:
            self.failed[cell.name] = why
            warn(f"no {cell.name}: {why}")

    def _write(self) -> None:
        path = self.out / "ablation.json"
        text = json.dumps(summary(self.options.recipe, self.studies, self.failed), indent=1) + "\n"
        with writing(path):
            replace_file(path, text.encode())


def _recipe(name: str) -> Any:
    """Return the typed recipe. Raises ConfigError where it is not an LSGM's."""
    from lsgm.kinds import recipe_from

    recipe = recipe_from(load_recipe(name), f"recipe '{name}'")
    require(recipe.kind == "lsgm", f"recipe '{name}' is of kind {recipe.kind}; an ablation needs an LSGM's")
    return recipe


def _impossible(cell: AblationCell, recipe: Any) -> str:
    """Return why a cell's objective does not exist, or an empty string."""
    from lsgm.objective.bound import Objective
    from lsgm.sde import make_sde

    config, time_eps = sde_of(cell, recipe)
    try:
        Objective.make(
            make_sde(config),
            weighting=cell.weighting,
            importance_sampling=cell.importance_sampling,
            time_eps=time_eps,
        )
    except ConfigError as error:
        return str(error)
    return ""


def _words(*words: object) -> list[str]:
    return [str(word) for word in words]
