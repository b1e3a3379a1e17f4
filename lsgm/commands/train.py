"""``lsgm train``: train a recipe in a run directory; the same command again goes on where it stopped."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import UseAppendAction

from lsgm.config import StageConfig, require
from lsgm.errors import ConfigError
from lsgm.kinds import recipe_from
from lsgm.options import Positional, arg, parse
from lsgm.recipes import ORIGINS, find_recipes, load_recipe

HELP = "train a recipe; interrupt it, and the same command goes on"

DESCRIPTION = """Train a recipe (`lsgm ls recipes`) in a run directory.

Every value of the recipe is an option. Interrupt training at any moment; the same command goes on where the
last checkpoint stands, wherever its data and its directory lie by then. With more steps (or seconds, or a
further stage) it goes on beyond its end: the learning rate stays at its last value, lr-min. What would make
it another run is refused. `torchrun --nproc-per-node 2 -m lsgm train ...` trains on several processes."""

EXAMPLES = (
    "lsgm train glyphs",
    "lsgm train omniglot-tiny --out runs/mine --stage2.steps 4000",
    "lsgm train mnist-tiny --max-seconds 600      # a piece of a long run; repeat to go on",
    "lsgm train mnist-tiny --stage2.steps 9000    # more of a finished one",
    "lsgm train --recipe image-folder-64 --data ./photos",
    "lsgm train glyphs --out runs/more --init-from runs/glyphs --stage1.steps 0",
    "lsgm train cifar10-fid --accumulate auto     # the recipe's batch, in as many parts as memory wants",
    "lsgm train celebahq256-qualitative-stage3 --init-vae-from runs/celebahq256-qualitative",
)


@dataclass(frozen=True)
class TrainOptions:
    """What `lsgm train` takes besides the values of the recipe."""

    name: Annotated[Positional[str], arg(metavar="RECIPE")] = ""
    """Name of a recipe or path of a TOML file; the config.toml of a run goes on with that run."""
    recipe: str = ""
    """The same, as an option."""
    data: str = ""
    """Short for --data.dataset: a dataset's name, or a folder, zip, npz or npy of images."""
    convert: str = ""
    """Short for --data.convert: what is allowed for images that are not plain greyscale or RGB (all, ...)."""
    out: Path | None = None
    """Run directory; runs/RECIPE unless given, or the run itself where RECIPE is its config.toml."""
    batch_size: str = ""
    """Short for every stage's: a number of images, or auto, the largest power of two whose step fits into
    memory. What is found stands in the run's config.toml, and the run goes on with it."""
    accumulate: str = ""
    """Short for every stage's: a number of parts, or auto, the fewest whose steps fit into memory."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ...; auto takes the first GPU where there is one."""
    max_seconds: float | None = None
    """End this call at a complete checkpoint after so many seconds."""
    init_from: Path | None = None
    """Start a fresh run from the averaged weights of another one, or of hf://OWNER/NAME."""
    init_vae_from: Path | None = None
    """The same from those of its VAE alone, which must have the recipe's sizes; its prior may have others."""
    track: UseAppendAction[tuple[str, ...]] = ()
    """Follow the run from elsewhere too: tensorboard, wandb, mlflow or what a package adds; may be repeated.
    $LSGM_TRACK names some for every command, and none leaves them out."""
    tensorboard: bool = False
    """Short for --track tensorboard."""
    sheet: int = 36
    """Images that are drawn at every validation into OUT/sheets, for looking; 0 draws none."""

    def __post_init__(self) -> None:
        for name, value in self.everywhere().items():
            require(
                value == "auto" or (value.isascii() and value.isdecimal() and 0 < int(value) < 2**31),
                f"{name.replace('_', '-')} is '{value[:40]}'; give a number of at least 1, or auto",
            )
        require(self.sheet >= 0, f"sheet is {self.sheet}; give a number of images, or 0 for none")
        require(
            self.max_seconds is None or self.max_seconds > 0,
            f"max-seconds is {self.max_seconds}; it must be above 0",
        )
        require(
            self.init_from is None or self.init_vae_from is None,
            "--init-from loads the VAE too; give either that or --init-vae-from",
        )

    def everywhere(self) -> dict[str, str]:
        """Return what is given for every stage by the name of its setting."""
        given = {"batch_size": self.batch_size, "accumulate": self.accumulate}
        return {name: value for name, value in given.items() if value}


def run(argv: list[str]) -> int:
    """Train; the exit status is 0, or 130 and 143 after an interruption."""
    named = _recipe_name(argv)
    asks_help = bool({"-h", "--help"} & set(argv))
    name = named or ("glyphs" if asks_help else "")
    require(
        bool(name), "name a recipe to train, `lsgm train glyphs` for one; `lsgm ls recipes` shows them all"
    )
    tables = {key: value for key, value in load_recipe(name).items() if key not in ORIGINS}
    recipe = recipe_from(tables, f"recipe '{name}'")
    options = _parse(argv, recipe)
    _once(options, named)
    recipe = options.config
    given = {"dataset": options.data, "convert": options.convert}
    if short := {key: value for key, value in given.items() if value}:
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, **short))
    numbers: Any = {name: int(value) for name, value in options.everywhere().items() if value != "auto"}
    for field in dataclasses.fields(recipe) if numbers else ():
        if isinstance(stage := getattr(recipe, field.name), StageConfig):
            recipe = dataclasses.replace(recipe, **{field.name: dataclasses.replace(stage, **numbers)})
    return _train(recipe, options, named)


def _train(recipe: Any, options: Any, named: str) -> int:
    from lsgm import trackers
    from lsgm.devices import pick_device
    from lsgm.train.loop import train_recipe

    origins = {name: _place(getattr(options, name)) for name in ORIGINS}
    if not any(origins.values()):
        saved = load_recipe(named)
        origins = {name: _saved_place(saved, name, named) for name in ORIGINS}
    outcome = train_recipe(
        recipe,
        _usable(_place(options.out) or _default_out(Path(named))),
        device=pick_device(options.device),
        max_seconds=options.max_seconds,
        init_from=origins["init_from"],
        init_vae_from=origins["init_vae_from"],
        track=trackers.named([*options.track, *(["tensorboard"] if options.tensorboard else [])]),
        sheet=options.sheet,
        auto=[name for name, value in options.everywhere().items() if value == "auto"],
    )
    return outcome.exit_status


def _saved_place(saved: Mapping[str, Any], name: str, where: str) -> Path | None:
    """Return the path of an origin that a run's config.toml names. Raises ConfigError where it is no text."""
    path = saved.get(name)
    require(path is None or isinstance(path, str), f"{where}: '{name}' is no path; write it in quotes")
    return _place(path)


def _place(path: Path | str | None) -> Path | None:
    """Return a path with its variables and ~ read, which a shell leaves alone in ``--out=~/runs``."""
    return None if path is None else Path(os.path.expandvars(path)).expanduser()


def _usable(out: Path) -> Path:
    """Return the run directory. Raises ConfigError where no directory can be of that name."""
    try:
        about = os.stat(out)
    except FileNotFoundError:
        return out
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigError(f"--out {out} cannot be used ({why}); give another directory") from error
    require(stat.S_ISDIR(about.st_mode), f"--out {out} is not a directory; give another")
    return out


def _default_out(named: Path) -> Path:
    """Return where a recipe trains: in the run of which it is the config.toml, else in runs/RECIPE."""
    if named.name == "config.toml" and (named.parent / "checkpoints").is_dir():
        return named.parent
    return Path("runs") / named.stem


def _parse(argv: list[str], recipe: Any) -> Any:
    """Parse the command's own options and, beside them, every value of the recipe under its dotted name."""
    combined = dataclasses.make_dataclass(
        "Options",
        [("config", Annotated[type(recipe), arg(name="")])],
        bases=(TrainOptions,),
        frozen=True,
        kw_only=True,
    )
    default = combined(config=recipe)
    return parse(
        combined, argv, prog="lsgm train", description=DESCRIPTION, examples=EXAMPLES, default=default
    )


_VALUES = frozenset(
    f"--{field.name.replace('_', '-')}"
    for field in dataclasses.fields(TrainOptions)
    if field.name not in ("name", "tensorboard")
)
"""Options of the command itself that the next word is the value of."""


def _recipe_name(argv: list[str]) -> str:
    """Return the recipe's name: the option --recipe, else the first word that can be one."""
    for index, word in enumerate(argv):
        if word == "--recipe" and index + 1 < len(argv):
            return argv[index + 1]
        if word.startswith("--recipe="):
            return word.partition("=")[2]
    if argv and not argv[0].startswith("-"):
        return argv[0]
    return next((word for before, word in pairwise(argv) if _may_name(before, word)), "")


def _may_name(before: str, word: str) -> bool:
    """Return whether a word after another one names a recipe and is not the value of an option.

    Which of a recipe's options are switches is known only once there is a recipe: no value of one is a file
    of TOML, and where one is a recipe's name, `_once` says that the recipe must come first.
    """
    if before.replace("_", "-") in (*_VALUES, "--data.dataset"):
        return False
    return word.endswith(".toml") or word in find_recipes()


def _once(options: Any, named: str) -> None:
    """Raise ConfigError unless the recipe is named once, or twice in the same words."""
    words = [word for word in (options.name, options.recipe) if word]
    require(
        len(set(words)) < 2,
        f"two recipes are named, '{options.name}' and --recipe {options.recipe}; give one of them",
    )
    first = words[:1] == [named]
    require(first, f"'{named}' is the value of an option; name the recipe first, `lsgm train RECIPE`")
