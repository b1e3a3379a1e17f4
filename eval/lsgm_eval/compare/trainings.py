"""How a model was trained, as far as a run's directory, or a checkpoint alone, tells."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsgm.errors import CheckpointError
from lsgm.files.shown import shown
from lsgm.progress import say
from lsgm.train.checkpoint import read_state
from lsgm.train.metrics import read_metrics
from lsgm.train.rundir import Run

__all__ = ["Training", "read_training"]

STATE = "state.json"
VALIDATION = "val_"


@dataclass(frozen=True)
class Training:
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


def read_training(place: Path) -> Training | None:
    """Return how the run in a folder was trained, or the checkpoint that the folder is; None of others.

    Raises ConfigError or CheckpointError where its files are damaged.
    """
    run = Run(place)
    if os.path.lexists(run.config_path):
        return _of_run(run)
    return _of_checkpoint(place) if os.path.lexists(place / STATE) else None


def _of_run(run: Run) -> Training:
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
    return Training(
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


def _of_checkpoint(place: Path) -> Training:
    """Return what a checkpoint says by itself; one that was exported brings its run's history along."""
    state = read_state(place)
    meta, exported = state.get("meta") or {}, state.get("exported") or {}
    name, version, digest = (*str(meta.get("dataset") or "").split("@"), "", "")[:3]
    dataset = {"name": name, "version": version, "sha256": digest} if name else {}
    revisions = exported.get("git_revisions") or [None]
    return Training(
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
