"""What a checkpoint can say of its training to somebody who has not the run: budget, machine, validation."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from lsgm.errors import CheckpointError
from lsgm.runs.checkpoint import WEIGHTS, checkpoints, find_checkpoint, read_state
from lsgm.runs.directory import Run
from lsgm.runs.load import run_name
from lsgm.runs.metrics import read_metrics
from lsgm.runs.records import Position

__all__ = [
    "describe_origin",
    "hardware_line",
    "stage_ends",
    "without_paths",
]

DERIVED = ("recalibrated", "imported")
"""Keys of ``meta`` by which a checkpoint says that its own run directory has not trained it."""

_HOME = re.compile(r"~[\w.-]*[/\\]")


def describe_origin(checkpoint: Path, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return where a checkpoint was trained, how long, with what, and its last validation, as JSON values.

    ``stages`` holds name, steps, images and training seconds of each stage up to this checkpoint, None where
    the run no longer tells. What lies outside of a run, or was made by something else than training, has
    neither revisions nor hardware. ``earlier`` holds run, revisions and stages of the runs that it was begun
    from, first ones first, as far as they are still there. Nothing in it is a path of this machine. Raises
    CheckpointError and ConfigError for a damaged run.
    """
    _complete(dict(state))
    run = _run_of(checkpoint)
    trained_here = run is not None and not any(key in state["meta"] for key in DERIVED)
    manifest = run.manifest() if run is not None and trained_here else {}
    calls = _calls(manifest)
    return {
        "run": run_name(checkpoint),
        "run_id": manifest.get("run_id"),
        "checkpoint": checkpoint.resolve().name,
        "sha256": state["files"][WEIGHTS["ema"]]["sha256"],
        "started": manifest.get("time"),
        "git_revisions": _revisions(run) if calls else [],
        "hardware": _distinct(hardware_line(call["hardware"]) for call in calls if call.get("hardware")),
        "versions": manifest.get("versions", {}),
        "initialised_from": _initialised_from(run) if run is not None and trained_here else None,
        "earlier": _earlier(run) if run is not None and trained_here else [],
        "stages": _stages(checkpoint, state),
        "validation": _validation(run, state) if run is not None and trained_here else None,
    }


def stage_ends(checkpoint: Path) -> dict[str, Path]:
    """Return the newest checkpoint of each stage in the run that a checkpoint belongs to, in their order."""
    folder = checkpoint.resolve().parent
    found = checkpoints(folder) if folder.name == "checkpoints" else [checkpoint]
    return {read_state(path).get("stage", ""): path for path in found}


def hardware_line(hardware: Mapping[str, Any]) -> str:
    """Return a manifest's hardware in a few words, without the name or the system of the machine."""
    gpus = list(hardware.get("gpus") or [])
    parts = [f"{gpus.count(name)} x {name}" for name in dict.fromkeys(gpus)]
    parts.append(f"{hardware['cores']} CPU cores ({hardware['processor']})")
    if not gpus:
        parts.append(_counted(hardware["threads"], "thread"))
    return ", ".join([*parts, _counted(hardware["processes"], "process", "processes")])


def without_paths(value: Any) -> Any:
    """Return nested JSON values in which every absolute path has become its last part."""
    if isinstance(value, Mapping):
        return {key: without_paths(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item) for item in value]
    if isinstance(value, str):
        for path in (PurePosixPath(value), PureWindowsPath(value)):
            if path.is_absolute() or _HOME.match(value):
                return path.name
    return value


def _run_of(checkpoint: Path) -> Run | None:
    folder = checkpoint.resolve().parent
    run = Run(folder.parent)
    return run if folder.name == "checkpoints" and run.manifest_path.is_file() else None


def _stages(checkpoint: Path, state: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the budget of each stage up to a checkpoint; images are counted on over the stages of a run."""
    ends = {name: read_state(path) for name, path in stage_ends(checkpoint).items()}
    ends[state["stage"]] = dict(state)
    seconds: Mapping[str, float | None] = state["seconds_by_stage"] or {state["stage"]: None}
    rows: list[dict[str, Any]] = []
    before: int | None = 0
    for name, spent in seconds.items():
        end = ends.get(name)
        after = end.get("images") if end is not None else None
        images = after - before if after is not None and before is not None else None
        steps = end.get("stage_step") if end is not None else None
        rows.append({"name": name, "steps": steps, "images": images or None, "seconds": spent})
        before = after
    return rows


def _validation(run: Run, state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return step and ``val_`` values of the last row that validated this stage up to this step."""
    rows = [
        row
        for row in read_metrics(run.metrics_path)
        if row.get("stage") == state["stage"]
        and row["step"] <= state["step"]
        and any(key.startswith("val_") for key in row)
    ]
    if not rows:
        return None
    values = {
        key.removeprefix("val_"): value
        for key, value in rows[-1].items()
        if key.startswith("val_") and not isinstance(value, str)
    }
    return {"step": rows[-1]["step"], **values}


def _initialised_from(run: Run) -> str | None:
    origin = _origin(run)
    return None if origin is None else _name_of(origin)


def _origin(run: Run) -> Path | None:
    """Return the run or checkpoint whose weights a run was begun from."""
    config = run.config()
    origins = (config.get(key) for key in ("init_from", "init_vae_from"))
    return next((Path(origin) for origin in origins if isinstance(origin, str) and origin), None)


def _earlier(run: Run) -> list[dict[str, Any]]:
    """Return the runs behind a run with their budgets, without those that nobody finds any more."""
    found: list[dict[str, Any]] = []
    here, seen = run, {run.directory.resolve()}
    while (origin := _origin(here)) is not None:
        try:
            checkpoint = find_checkpoint(origin)
        except CheckpointError:
            break
        before = _run_of(checkpoint)
        if before is None or before.directory.resolve() in seen:
            break
        found.insert(
            0,
            {
                "run": _name_of(origin),
                "git_revisions": _revisions(before),
                "stages": _stages(checkpoint, _complete(read_state(checkpoint))),
            },
        )
        here = before
        seen.add(before.directory.resolve())
    return found


def _complete(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state that says where its run stands. Raises CheckpointError for another."""
    Position.of(state)
    return state


def _calls(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what a manifest says of the first call that trained a run, and of each that went on."""
    return [manifest, *(manifest.get("resumed") or [])] if manifest else []


def _revisions(run: Run | None) -> list[Any]:
    return [] if run is None else _distinct(call.get("git_revision") for call in _calls(run.manifest()))


def _name_of(origin: Path) -> str:
    """Return a checkpoint's name: the one it was exported under, if it is still there, else its run's."""
    try:
        exported_as = read_state(find_checkpoint(origin)).get("name")
    except CheckpointError:
        exported_as = None
    return exported_as or run_name(origin)


def _distinct(values: Iterable[Any]) -> list[Any]:
    return [value for value in dict.fromkeys(values) if value is not None]


def _counted(count: int, word: str, plural: str = "") -> str:
    return f"{count} {word if count == 1 else plural or word + 's'}"
