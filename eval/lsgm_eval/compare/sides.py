"""One of two runs: a training run's directory, a checkpoint, a folder of results, or all in one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lsgm.errors import CheckpointError, DataError, UserError, did_you_mean
from lsgm.files.names import shown
from lsgm.files.regular import listed
from lsgm.progress import say
from lsgm.results import Row
from lsgm.results.files import read_rows
from lsgm.runs.checkpoint import read_state
from lsgm.runs.directory import Run, read_metrics
from lsgm_eval.run.manifest import MadeCall, read_call

__all__ = [
    "Row",
    "RunSide",
    "RunTraining",
    "choose_models",
    "open_side",
    "read_training",
    "trained_as",
]

STATE = "state.json"
VALIDATION = "val_"
RESULTS = "results.jsonl"
MOST = 20
"""Names that a sentence lists."""


@dataclass(frozen=True)
class RunSide:
    """What a place holds."""

    place: Path
    training: RunTraining | None
    rows: tuple[Row, ...]
    """Of single models; differences of two models are left out."""

    @cached_property
    def by_model(self) -> dict[str, list[Row]]:
        """The rows of every model."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.model, []).append(row)
        return found

    @property
    def models(self) -> list[str]:
        """The models that have rows, in their order."""
        return list(self.by_model)

    @cached_property
    def manifests(self) -> dict[str, MadeCall]:
        """The manifests that rows name, by id; one that is gone is missing, a damaged one is said to be."""
        found = {}
        for name in dict.fromkeys(row.manifest for row in self.rows):
            try:
                read = read_call(self.place, name) if name else None
            except DataError as error:
                say(shown(f"{error}; without it, fewer things are compared"))
                continue
            if read is not None:
                found[str(name)] = read
        return found

    def of(self, model: str) -> list[Row]:
        """Return the rows of one model."""
        return self.by_model.get(model, [])

    def manifest_of(self, row: Row) -> MadeCall:
        """Return the manifest that a row names, empty where there is none."""
        return self.manifests.get(str(row.manifest)) or MadeCall()


@dataclass(frozen=True)
class RunTraining:
    """A training run; whatever is not known is None or empty."""

    folder: Path
    run_id: str | None
    config: Mapping[str, Any]
    """As nested tables."""
    dataset: Mapping[str, Any]
    """name, version, sha256."""
    revision: str | None
    """Of the code that trained last."""
    versions: Mapping[str, Any]
    hardware: Any
    state: Mapping[str, Any]
    """Of the newest checkpoint: step, images, seconds_by_stage."""
    validation: Mapping[str, Any]
    """The last terms on validation images, and the ``step`` they are of."""


def open_side(place: Path) -> RunSide:
    """Return what a folder holds.

    Raises UserError for a folder with neither a training run nor results, and what the readers of both say
    of damaged files.
    """
    if not os.path.isdir(place):
        raise UserError(f"{place} is no folder: give a training run, or a folder with {RESULTS}")
    _require_listed(place)
    training, results = read_training(place), place / RESULTS
    there = os.path.lexists(results)
    rows = read_rows(results, keep=True) if there else []
    if training is None and not rows:
        why = f"its {RESULTS} has no rows" if there else f"neither a training run nor {RESULTS}"
        raise UserError(
            f"there is nothing to compare in {place} ({why}): `lsgm train RECIPE --out DIR` makes a run, "
            "`lsgm eval TASK --model RUN --out DIR` makes results"
        )
    # A difference of two models is made anew from both.
    single = [row for row in rows if not row.metric.startswith("paired_")]
    return RunSide(place, training, tuple(single))


def choose_models(a: RunSide, b: RunSide, wanted: str = "") -> list[tuple[str, str]]:
    """Return which models of A are compared with which of B.

    ``wanted`` is a name that both have, or ``A=one,B=other``; without it those of equal names, else the one
    that each has. Empty where either holds no results. Raises UserError for unknown names, and where there
    is a choice to make.
    """
    if not (a.models and b.models):
        return []
    if wanted:
        return [_named(a, b, wanted)]
    common = [(name, name) for name in a.models if name in b.by_model]
    if common:
        return common
    if len(a.models) == len(b.models) == 1:
        return [(a.models[0], b.models[0])]
    raise UserError(
        f"no model of {a.place} ({_listed(a.models)}) bears the name of one of {b.place} "
        f"({_listed(b.models)}): name one of each, --model A={a.models[0]},B={b.models[0]}"
    )


def trained_as(side: RunSide, model: str) -> RunTraining | None:
    """Return how a model was trained: by the side's own folder, else by where its results say it lay.

    A folder that holds another run by now is not taken for it.
    """
    if side.training is not None:
        return side.training
    for row in side.of(model):
        for entry in side.manifest_of(row).models:
            if entry.path and entry.sha256 == row.checkpoint_sha256:
                try:
                    found = read_training(_run_of(Path(entry.path)))
                except UserError:
                    continue  # what lies there by now is no run that can be read
                if found is not None and found.run_id == entry.run_id:
                    return found
    return None


def read_training(place: Path) -> RunTraining | None:
    """Return how the run in a folder was trained, or the checkpoint that the folder is; None of others.

    Raises ConfigError or CheckpointError where its files are damaged.
    """
    run = Run(place)
    if os.path.lexists(run.config_path):
        return _of_run(run)
    return _of_checkpoint(place) if os.path.lexists(place / STATE) else None


def _of_run(run: Run) -> RunTraining:
    about = run.manifest() if os.path.lexists(run.manifest_path) else {}
    calls = [about, *(about.get("resumed") or [])]
    newest = run.newest()  # None where it stopped before its first checkpoint, or was cleared of them
    try:
        state: Mapping[str, Any] = {} if newest is None else read_state(newest)
    except CheckpointError as error:
        say(shown(f"{error}; without it, fewer things are compared"))
        state = {}
    told = [row for row in read_metrics(run.metrics_path) if any(key.startswith(VALIDATION) for key in row)]
    last = told[-1] if told else {}
    return RunTraining(
        run.directory,
        about.get("run_id"),
        run.config(),
        about.get("dataset") or {},
        calls[-1].get("git_revision"),
        calls[-1].get("versions") or {},
        calls[-1].get("hardware"),
        state,
        {
            key.removeprefix(VALIDATION): value
            for key, value in last.items()
            if key == "step" or key.startswith(VALIDATION)
        },
    )


def _of_checkpoint(place: Path) -> RunTraining:
    """Return what a checkpoint says by itself; one that was exported brings its run's history along."""
    state = read_state(place)
    meta, exported = state.get("meta") or {}, state.get("exported") or {}
    name, version, digest = (*str(meta.get("dataset") or "").split("@"), "", "")[:3]
    dataset = {"name": name, "version": version, "sha256": digest} if name else {}
    revisions = exported.get("git_revisions") or [None]
    return RunTraining(
        place,
        exported.get("run_id"),
        meta.get("recipe") or {},
        dataset,
        revisions[-1],
        exported.get("versions") or {},
        exported.get("hardware"),
        state,
        exported.get("validation") or {},
    )


def _require_listed(place: Path) -> None:
    """Raise DataError for a folder that cannot be looked into, or has one below it that cannot.

    What lies there would be said not to exist.
    """
    for folder in (place, *(place / name for name in ("checkpoints", "manifests", "passes", "per-image"))):
        listed(folder, "*")


def _listed(names: Sequence[str]) -> str:
    """Return names with commas between them; of many the first."""
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more


def _named(a: RunSide, b: RunSide, wanted: str) -> tuple[str, str]:
    first, found, second = wanted.partition(",B=")
    if found and first.startswith("A="):
        names = (first.removeprefix("A="), second)
    elif found or wanted.startswith(("A=", "B=")):
        raise UserError(f"--model is '{wanted}': give NAME, or A=NAME,B=NAME")
    else:
        names = (wanted, wanted)
    for side, name in zip((a, b), names, strict=True):
        if name not in side.models:
            hint = did_you_mean(name, side.models) or f"; it has {_listed(side.models)}"
            raise UserError(f"{side.place} has no results of a model '{name}'{hint}")
    return names


def _run_of(path: Path) -> Path:
    """Return the run that a checkpoint lies in, or the folder itself."""
    run = path.parent.parent
    return run if path.parent.name == "checkpoints" and os.path.isfile(run / "config.toml") else path
