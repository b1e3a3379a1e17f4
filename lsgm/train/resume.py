"""How a run goes on: compared is what decides its result, not how that is spelt.

A run was begun with a recipe, some data and perhaps the weights of another run. Asked for again, it goes on

- whatever its data are called or wherever they lie now: their pixels' hash decides;
- whatever is logged, validated, saved and kept how often, and however its networks are computed;
- with other settings of stages that have not begun, of which nothing is in its weights yet;
- with a larger budget of the stage it is in or ended in. Schedules then run as they began: learning rates and
  annealing stay at their ends from the former budget on (`StageConfig.horizon`), so that a run of N steps
  that is given M is, bit for bit, the run that was begun with ``steps = M`` and ``horizon = N``.

Anything else is another run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lsgm.config import OptimConfig, StageConfig
from lsgm.errors import CheckpointError, ConfigError, DataError
from lsgm.hub import hub_name
from lsgm.kinds import recipe_from
from lsgm.recipes import ORIGINS
from lsgm.runs.checkpoint import find_checkpoint, read_state, require_optimizers, weights_file
from lsgm.runs.directory import Run
from lsgm.structure import completed_as_then, differences, to_dict, worded
from lsgm.train.stage import StageSpec

Changes = dict[str, tuple[Any, Any]]
"""Key -> what it was and what it is now."""

CONTENT = frozenset({"data.dataset", "data.image_size", "data.convert"})
"""Which pixels a run is trained on; their hash says whether they are the same."""

MECHANICS = frozenset(
    {
        "log_every",
        "val_every",
        "checkpoint_every",
        "keep",
        "compile",
        "cuda_graphs",
        "memory_format",
        "sharded",
    }
)
"""What a stage does beside its steps, or how it computes them: roundings apart, as on another device."""

BUDGET = ("steps", "seconds", "horizon")


@dataclass(frozen=True)
class Begun:
    """What the run in a directory was begun with, as its newest checkpoint or else its config.toml says."""

    run: Run
    recipe: Any
    tables: Mapping[str, Any]
    """The recipe as config.toml has it: without the keys that have come to be since the run was begun."""
    newest: Path | None
    """The newest checkpoint."""
    state: Mapping[str, Any] | None
    """What it says."""
    origins: Mapping[str, Any]

    @classmethod
    def of(cls, run: Run) -> Begun | None:
        """Return what a directory holds; None where there is no run, and for a recipe that no longer reads.

        The checkpoint counts for more than config.toml, which somebody may have edited since.
        """
        newest = run.newest()
        if not run.config_path.exists() and newest is None:
            return None
        saved = run.config() if run.config_path.exists() else {}
        state = None if newest is None else read_state(newest)
        tables = {name: value for name, value in saved.items() if name not in ORIGINS}
        trained = (state or {}).get("meta", {}).get("recipe") or tables
        tables = tables or trained
        try:
            recipe = recipe_from(trained, str(run.config_path), saved=True)
        except ConfigError:  # another version's: `Run.start` says which key differs
            return None
        origins = {name: saved[name] for name in ORIGINS if name in saved}
        return cls(run, recipe, tables, newest, state, origins)

    def completed(self, recipe: Any) -> Any:
        """Return a recipe asked for today with what was the case then for keys that did not exist.

        A run ends as it began, whatever a default has become.
        """
        return recipe_from(completed_as_then(recipe, self.tables), str(self.run.config_path))

    @property
    def reached(self) -> str:
        """The name of the stage that the newest checkpoint is in; empty where there is none."""
        return str(self.state["stage"]) if self.state else ""

    def another(self, key: str, before: Any, now: Any, why: str = "") -> ConfigError:
        """Return the error for a key that makes another run."""
        here = self.run.directory
        weights = f", with --init-from {here} from the weights of this one" if self.state else ""
        return ConfigError(
            f"{here} was started with {key} = {worded(before)}, not {worded(now)}; "
            + (f"{why}: leave it as it was, or " if why else "")
            + f"give another directory to start another run{weights}"
        )


def goes_on(
    recipe: Any, begun: Begun, specs: Sequence[StageSpec], dataset: Mapping[str, Any]
) -> tuple[Any, Changes]:
    """Return the recipe with which a run goes on, and in what it differs from the one it was begun with.

    ``specs`` are the stages of ``recipe``, ``dataset`` has the keys name, version and sha256. Raises
    ConfigError naming the first key that makes another run, both values and what to do, DataError for data
    that are others, and CheckpointError where a run is to be given more that has no optimisers to go on with.
    """
    stages = _stages_of(recipe, specs)
    if type(recipe) is type(begun.recipe):
        reached = _place(begun.reached, specs)
        kept = {
            field: _on_schedule(begun, field, getattr(recipe, field), over=place < reached)
            for field, place in stages.items()
            if place <= reached
        }
        recipe = dataclasses.replace(recipe, **kept)
    changes = differences(to_dict(begun.recipe), to_dict(recipe))
    _same_data(begun, changes, dataset)
    for key, (before, now) in changes.items():
        stage, _, name = key.partition(".")
        to_come = stage in stages and stages[stage] > _place(begun.reached, specs)
        of_stage = stage in stages and name in (*MECHANICS, *BUDGET)
        if not (to_come or of_stage or key in CONTENT or name == "recompute"):
            raise begun.another(key, before, now)
    if begun.newest is not None and is_extended(changes):
        require_optimizers(begun.newest)  # a run that has none is refused before anything of it is touched
    return recipe, changes


def _on_schedule(begun: Begun, field: str, now: StageConfig, *, over: bool) -> StageConfig:
    """Return the configuration of a stage that has begun on its schedule of then, under its budget of now.

    Raises ConfigError where it is given less, another unit or another schedule, and where the stage is over,
    because the next one has begun, and is given more.
    """
    then: StageConfig = getattr(begun.recipe, field)
    unit = "steps" if then.seconds is None else "seconds"
    before, after = getattr(then, unit), getattr(now, unit)
    if (then.seconds is None) != (now.seconds is None):
        why = f"a budget in {unit} stays one in {unit}"
        raise begun.another(f"{field}.seconds", then.seconds, now.seconds, why)
    if after < before:
        why = "a stage that has begun can be given more, not less"
        raise begun.another(f"{field}.{unit}", before, after, why)
    if after > before and over:
        why = f"that stage is over and '{begun.reached}' has begun from its weights"
        raise begun.another(f"{field}.{unit}", before, after, why)
    if now.horizon is not None and now.schedule != then.schedule:
        why = "a schedule stays as it was when its stage began"
        raise begun.another(f"{field}.horizon", then.horizon, now.horizon, why)
    horizon = None if then.schedule == now.budget else float(then.schedule)
    # Steps beside a budget in seconds count for nothing.
    steps = now.steps if then.seconds is None else then.steps
    return dataclasses.replace(now, steps=steps, horizon=horizon)


def _stages_of(recipe: Any, specs: Sequence[StageSpec]) -> dict[str, int]:
    """Return the recipe's fields that configure a stage, with the stages' places in their order."""
    return {
        field.name: place
        for field in dataclasses.fields(recipe)
        for place, spec in enumerate(specs)
        if spec.config is getattr(recipe, field.name)
    }


def _place(name: str, specs: Sequence[StageSpec]) -> int:
    """Return the place of the stage of that name; -1 where there is none."""
    return next((place for place, spec in enumerate(specs) if spec.name == name), -1)


def _same_data(begun: Begun, changes: Changes, dataset: Mapping[str, Any]) -> None:
    """Raise DataError where the newest checkpoint's pixels are others, naming the settings that differ."""
    said = (begun.state or {}).get("meta", {}).get("dataset", "")
    if said.count("@") != 2 or said.endswith(f"@{dataset.get('sha256')}"):
        return
    name, version, sha256 = said.split("@")
    named = "".join(
        f"{key} was {worded(before)} and is {worded(now)}; "
        for key, (before, now) in changes.items()
        if key in CONTENT
    )
    raise DataError(
        f"{begun.run.directory} was trained on data with sha256 {sha256} ({name} {version}), and the data "
        f"here have {dataset.get('sha256')} ({dataset.get('name')} {dataset.get('version')}); {named}"
        "restore the data or start another run"
    )


@dataclass(frozen=True)
class Origin:
    """Whose weights a fresh run starts from: the option that says so, the path, and the weights' hash."""

    option: str
    path: Path

    @cached_property
    def sha256(self) -> str | None:
        """The weights' hash, looked at when it is asked for; None where nothing is at the path any more."""
        try:
            state = read_state(find_checkpoint(self.path))
            return str(state["files"][weights_file(state)]["sha256"])
        except (CheckpointError, KeyError):
            return None

    @property
    def word(self) -> str:
        """The path as it is typed: that of a model on the Hub has two slashes."""
        return str(hub_name(self.path) or self.path)

    def as_dict(self) -> dict[str, Any]:
        """Return what the manifest says."""
        return {"option": self.option, "path": self.word, "sha256": self.sha256}


def same_origin(begun: Begun, asked: Origin | None) -> tuple[dict[str, str], Changes]:
    """Return what config.toml says of the origin from now on, and what of it differs from before.

    A run with a checkpoint needs its origin no more, which may be gone, and need not be named again; a path
    that leads to the same place, or to the same weights, is the same origin. Raises ConfigError for another.
    """
    saved = next(iter(begun.origins.items()), None)
    if asked is None:
        if saved is not None and begun.state is None:
            raise begun.another(saved[0], saved[1], None)
        return dict(begun.origins), {}
    name, path = asked.option, asked.word
    if saved is None or saved[0] != name:
        raise begun.another(name, None, path)
    before = str(saved[1])
    recorded = begun.run.manifest().get("origin", {}) if begun.run.manifest_path.exists() else {}
    alike = before == path or Path(before).expanduser().resolve() == asked.path.resolve()
    if not alike:
        known = recorded.get("sha256") or Origin(name, Path(before)).sha256
        if asked.sha256 is None or asked.sha256 != known:
            raise begun.another(name, before, path)
    return {name: path}, {name: (before, path)} if before != path else {}


def tell(run: Run, recipe: Any, changes: Changes) -> list[str]:
    """Return the sentences that say with what else a run goes on, and where its schedules stand."""
    if not changes:
        return []
    others = ", ".join(
        f"{key} = {worded(now)} (was {worded(before)})" for key, (before, now) in changes.items()
    )
    said = [f"{run.directory} goes on with {others}"]
    for field in dict.fromkeys(key.partition(".")[0] for key in changes if key.endswith(".horizon")):
        stage = getattr(recipe, field)
        rates = ", ".join(
            f"{f.name} {getattr(stage, f.name).lr_min:g}"
            for f in dataclasses.fields(stage)
            if isinstance(getattr(stage, f.name), OptimConfig)
        )
        unit = "step" if stage.seconds is None else "second"
        said.append(
            f"the schedules of {field} end at its {unit} {stage.schedule:g}, as they began; from there on "
            f"the learning rate stays at its last value ({rates}), and annealing at its end"
        )
    return said


def is_extended(changes: Changes) -> bool:
    """Return whether a run has been given more than its newest checkpoint was made for."""
    return any(key.rpartition(".")[2] in ("steps", "seconds") for key in changes)
