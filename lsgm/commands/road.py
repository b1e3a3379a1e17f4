"""``lsgm road``: the whole way from a recipe to a report, as the very commands one would type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from lsgm.commands.steps import step
from lsgm.errors import CheckpointError, ConfigError
from lsgm.options import Positional, arg, parse
from lsgm.recipes import find_recipes, load_recipe

HELP = "train an LSGM and its baselines, evaluate all three, write the report"

DESCRIPTION = """Train the LSGM of a recipe, then a data-space score model (RECIPE-sgm) and the VAE with its
Normal prior (RECIPE-vae) for the same number of training seconds; evaluate all three and write the report.

Every step is a command that is printed before it runs. Interrupt at any moment: the same command goes on."""

EXAMPLES = (
    "lsgm road glyphs",
    "lsgm road mnist-tiny --tier smoke --out runs/first",
)


@dataclass(frozen=True)
class RoadOptions:
    """Options of `lsgm road`."""

    recipe: Annotated[Positional[str], arg(metavar="RECIPE")] = "glyphs"
    """Name of the LSGM's recipe."""
    out: Path | None = None
    """Folder for the runs and the report; runs/eval-RECIPE unless given."""
    tier: str = "quick"
    """How much is evaluated: smoke, quick or full."""
    extractor: str = ""
    """Feature space of the distances in the place of the task's, such as torchscript:FILE."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""


def run(argv: list[str]) -> int:
    """Go the whole way; the exit status is that of the first step that fails."""
    options = parse(RoadOptions, argv, prog="lsgm road", description=DESCRIPTION, examples=EXAMPLES)
    task = _task_of(options.recipe)
    out = options.out or Path("runs") / f"eval-{options.recipe}"
    device = ["--device", options.device]
    models = [out / "lsgm", out / "sgm", out / "vae"]
    if status := _run("train", options.recipe, "--out", models[0], *device):
        return status
    seconds = f"{_training_seconds(models[0]):.3f}"
    # Not the importance-weighted bound, which is as long as the rest together: `lsgm nll` has it.
    only = _flags("--only", ["quality", "nelbo", "ode", "curve"])
    only += _flags("--extractor", [options.extractor] if options.extractor else [])
    steps = (
        ["train", f"{options.recipe}-sgm", "--out", models[1], "--stage.seconds", seconds, *device],
        ["train", f"{options.recipe}-vae", "--out", models[2], "--stage1.seconds", seconds, *device],
        ["eval", task, *only, "--tier", options.tier, "--out", out, *device, *_flags("--model", models)],
        ["report", out],
    )
    for words in steps:
        if status := _run(*words):
            return status
    return 0


def _task_of(recipe: str) -> str:
    """Return the task that measures a recipe: it has its dataset's name."""
    wanted = (recipe, f"{recipe}-sgm", f"{recipe}-vae")
    known = find_recipes()
    if absent := [name for name in wanted if name not in known]:
        raise ConfigError(
            f"there is no recipe '{absent[0]}'; a road needs RECIPE, RECIPE-sgm and RECIPE-vae, as glyphs has"
        )
    from lsgm.kinds import recipe_from

    return str(recipe_from(load_recipe(recipe), f"recipe '{recipe}'").data.dataset)


def _training_seconds(run_directory: Path) -> float:
    """Return the seconds spent in the training steps of all stages, as the last checkpoint counts them."""
    from lsgm.runs.checkpoint import find_checkpoint, read_state

    checkpoint = find_checkpoint(run_directory)
    seconds: dict[str, float] | None = read_state(checkpoint).get("seconds_by_stage")
    if not seconds:
        raise CheckpointError(f"{checkpoint} does not say how long it was trained; restore it from a copy")
    return sum(seconds.values())


def _flags(option: str, values: Sequence[object]) -> list[object]:
    return [word for value in values for word in (option, value)]


def _run(*words: object) -> int:
    return step([str(word) for word in words])
