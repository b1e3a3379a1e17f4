"""One of two runs: a training run's directory, a checkpoint, a folder of results, or all in one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from lsgm.errors import CheckpointError, DataError, UserError, did_you_mean
from lsgm.files.regular import listed
from lsgm.progress import warn
from lsgm.results import Row
from lsgm.results.files import read_rows
from lsgm.results.manifest import Manifest, manifest_of
from lsgm.runs.checkpoint import read_state
from lsgm.runs.directory import Run, read_metrics

STATE, RESULTS = "state.json", "results.jsonl"
VALIDATION = "val_"
MOST = 20
"""Names that a sentence lists."""


@dataclass(frozen=True, kw_only=True)
class RanOn:
    """The code and the machine of a call, of a training or of a measurement; what is not known is empty."""

    revision: str | None = None
    versions: Mapping[str, Any] = field(default_factory=dict)
    hardware: Any = None


@dataclass(frozen=True, kw_only=True)
class RunTraining(RanOn):
    """A training run, ``revision`` and the like being those of the call that trained last."""

    folder: Path
    run_id: str | None
    config: Mapping[str, Any]
    """As nested tables."""
    dataset: Mapping[str, Any]
    """name, version, sha256."""
    state: Mapping[str, Any]
    """Of the newest checkpoint: step, images, seconds_by_stage."""
    validation: Mapping[str, Any]
    """The last terms on validation images, and the ``step`` they are of."""


@dataclass(frozen=True)
class RunSide:
    """What a place holds."""

    place: Path
    training: RunTraining | None
    rows: tuple[Row, ...]
    """Of single models; differences of two models are left out."""
    _manifests: dict[str, Manifest | None] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def by_model(self) -> dict[str, list[Row]]:
        """The rows of every model, in the order of the file."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row.model, []).append(row)
        return found

    def manifest_of(self, row: Row) -> Manifest | None:
        """Return the manifest that a row names; None of one that is gone, or damaged, which is said once."""
        name = str(row.manifest)
        if name not in self._manifests:
            self._manifests[name] = None
            try:
                self._manifests[name] = manifest_of(row, self.place)
            except DataError as error:
                warn(f"{error}; without it, fewer things are compared")
        return self._manifests[name]

    def ran_on(self, row: Row) -> RanOn:
        """Return what is known of the call that measured a row."""
        made = self.manifest_of(row)
        known = {"versions": made.versions, "hardware": made.hardware} if made else {}
        return RanOn(revision=row.git_revision, **known)


def open_side(place: Path) -> RunSide:
    """Return what a folder holds.

    Raises UserError for a folder with neither a training run nor results, and what the readers of both say
    of damaged files.
    """
    if not os.path.isdir(place):
        raise UserError(f"{place} is no folder: give a training run, or a folder with {RESULTS}")
    # What lies in a folder that cannot be looked into would be said not to exist.
    for name in (".", "checkpoints", "manifests", "passes", "per-image"):
        listed(place / name, "*")
    training, results = _training_in(place), place / RESULTS
    there = os.path.lexists(results)
    rows = read_rows(results, keep=True) if there else []
    if training is None and not rows:
        why = f"its {RESULTS} has no rows" if there else f"neither a training run nor {RESULTS}"
        raise UserError(
            f"there is nothing to compare in {place} ({why}): `lsgm train RECIPE --out DIR` makes a run, "
            "`lsgm eval TASK --model RUN --out DIR` makes results"
        )
    # A difference of two models is made anew from both.
    return RunSide(place, training, tuple(row for row in rows if not row.metric.startswith("paired_")))


def choose_models(a: RunSide, b: RunSide, wanted: str = "") -> list[tuple[str, str]]:
    """Return which models of A are compared with which of B.

    ``wanted`` is a name that both have, or ``A=one,B=other``; without it those of equal names, else the one
    that each has. Empty where either holds no results. Raises UserError for unknown names, and where there
    is a choice to make.
    """
    ours, theirs = list(a.by_model), list(b.by_model)
    if not (ours and theirs):
        return []
    if wanted:
        first, found, second = wanted.partition(",B=")
        apart = bool(found) and first.startswith("A=")
        if not apart and (found or wanted.startswith(("A=", "B="))):
            raise UserError(f"--model is '{wanted}': give NAME, or A=NAME,B=NAME")
        names = (first.removeprefix("A="), second) if apart else (wanted, wanted)
        for side, name in zip((a, b), names, strict=True):
            if name not in side.by_model:
                known = list(side.by_model)
                hint = did_you_mean(name, known) or f"; it has {_listed(known)}"
                raise UserError(f"{side.place} has no results of a model '{name}'{hint}")
        return [names]
    if common := [(name, name) for name in ours if name in b.by_model]:
        return common
    if len(ours) == len(theirs) == 1:
        return [(ours[0], theirs[0])]
    raise UserError(
        f"no model of {a.place} ({_listed(ours)}) bears the name of one of {b.place} ({_listed(theirs)}): "
        f"name one of each, --model A={ours[0]},B={theirs[0]}"
    )


def _listed(names: Sequence[str]) -> str:
    """Return names with commas between them; of many the first."""
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return ", ".join(names[:MOST]) + more


def trained_as(side: RunSide, model: str) -> RunTraining | None:
    """Return how a model was trained: by the side's own folder, else by where its results say it lay.

    A folder that holds another run by now is not taken for it.
    """
    if side.training is not None:
        return side.training
    for row in side.by_model.get(model, []):
        made = side.manifest_of(row)
        for entry in made.models if made else ():
            if not entry.path or entry.sha256 != row.checkpoint_sha256:
                continue
            path = Path(entry.path)
            run = path.parent.parent
            within = path.parent.name == "checkpoints" and os.path.isfile(run / "config.toml")
            try:
                found = _training_in(run if within else path)
            except UserError:
                continue  # what lies there by now is no run that can be read
            if found is not None and found.run_id == entry.run_id:
                return found
    return None


def _training_in(place: Path) -> RunTraining | None:
    """Return how the run in a folder was trained, or the checkpoint that the folder is; None of others.

    Raises ConfigError or CheckpointError where its files are damaged.
    """
    run = Run(place)
    if os.path.lexists(run.config_path):
        return _of_run(run)
    return _of_checkpoint(place) if os.path.lexists(place / STATE) else None


def _of_run(run: Run) -> RunTraining:
    about = run.manifest() if os.path.lexists(run.manifest_path) else {}
    last = [about, *(about.get("resumed") or [])][-1]
    newest = run.newest()  # None where it stopped before its first checkpoint, or was cleared of them
    try:
        state: Mapping[str, Any] = {} if newest is None else read_state(newest)
    except CheckpointError as error:
        warn(f"{error}; without it, fewer things are compared")
        state = {}
    told = [row for row in read_metrics(run.metrics_path) if any(key.startswith(VALIDATION) for key in row)]
    return RunTraining(
        revision=last.get("git_revision"),
        versions=last.get("versions") or {},
        hardware=last.get("hardware"),
        folder=run.directory,
        run_id=about.get("run_id"),
        config=run.config(),
        dataset=about.get("dataset") or {},
        state=state,
        validation={
            key.removeprefix(VALIDATION): value
            for key, value in (told[-1] if told else {}).items()
            if key == "step" or key.startswith(VALIDATION)
        },
    )


def _of_checkpoint(place: Path) -> RunTraining:
    """Return what a checkpoint says by itself; one that was exported brings its run's history along."""
    state = read_state(place)
    meta, exported = state.get("meta") or {}, state.get("exported") or {}
    name, version, digest = (*str(meta.get("dataset") or "").split("@"), "", "")[:3]
    return RunTraining(
        revision=(exported.get("git_revisions") or [None])[-1],
        versions=exported.get("versions") or {},
        hardware=exported.get("hardware"),
        folder=place,
        run_id=exported.get("run_id"),
        config=meta.get("recipe") or {},
        dataset={"name": name, "version": version, "sha256": digest} if name else {},
        state=state,
        validation=exported.get("validation") or {},
    )
