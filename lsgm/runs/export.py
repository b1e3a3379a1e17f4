"""From a run to a small folder that describes itself: averaged weights, `state.json`, card and config.

The folder is a checkpoint, which every command takes as it is. It has neither optimisers nor raw weights, so
nothing can go on from it bit for bit, and none of its texts names a path or the machine. Its files have the
names by which the Hugging Face Hub shows them; `state.json` is what commands read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal

import torch
from torch import Tensor

from lsgm.errors import CheckpointError, UserError, did_you_mean
from lsgm.files import write
from lsgm.files.limits import DOCUMENT
from lsgm.files.regular import read_bytes
from lsgm.hub import hub_name
from lsgm.results.files import read_rows
from lsgm.runs.checkpoint import (
    EXPORTED,
    FORMAT,
    STATE,
    checkpoints,
    find_checkpoint,
    read_state,
    serialise,
    weights_file,
    write_described,
)
from lsgm.runs.derived import refuse_existing
from lsgm.runs.directory import Run, read_metrics
from lsgm.runs.hub_card import check_license, is_ours, render_config, render_readme
from lsgm.runs.load import averaged_weights, described, measurable, open_checkpoint, run_name
from lsgm.runs.records import Position

CARD, CONFIG = "README.md", "config.json"
EARLIER_CARD = "MODEL_CARD.md"
"""What the card of a folder was called before the Hub showed it."""

Dtype = Literal["bfloat16", "float32"]


def rounded(tensors: Mapping[str, Tensor], dtype: Dtype) -> dict[str, Tensor]:
    """Return tensors with the float32 arrays among them rounded to nearest: bfloat16 errs by 2^-8 at most.

    An array is long in at least two dimensions. Biases, gains, running statistics and norms of weights are
    not: they are few, and multiply whole activations. Integers, masks and float64 stay what they are.
    """
    if dtype == "float32":
        return dict(tensors)

    def is_array(value: Tensor) -> bool:
        return value.dtype == torch.float32 and sum(size > 1 for size in value.shape) >= 2

    return {key: value.bfloat16() if is_array(value) else value for key, value in tensors.items()}


def checkpoint_to_export(path: Path, stage: str = "") -> Path:
    """Return the checkpoint that ``path`` is, or the newest of that run; with ``stage``, of that stage of it.

    Raises CheckpointError where there is none, or where it is an exported one.
    """
    checkpoint = find_checkpoint(path)
    if stage:
        ends = stage_ends(checkpoint)
        if stage not in ends:
            hint = did_you_mean(stage, ends) or f"; there is {', '.join(ends)}"
            raise CheckpointError(f"{path} holds no checkpoint of a stage '{stage}'{hint}")
        checkpoint = ends[stage]
    if "exported" in read_state(checkpoint):
        raise CheckpointError(f"{checkpoint} is an exported checkpoint already; copy the folder as it is")
    return checkpoint


def export(
    checkpoint: Path,
    out: Path,
    *,
    dtype: Dtype = "bfloat16",
    name: str = "",
    limits: Sequence[str] = (),
    license: str = "",
) -> dict[str, Any]:
    """Write a checkpoint's averaged weights and what is known of them into ``out``; return its `state.json`.

    The model's name is ``name``, else that of the run, with the stage where that is not the end of the run.
    ``limits`` are sentences for the card on what the model is not good for, ``license`` is the Hub's name of
    the terms under which others may use it. The same checkpoint gives the same bytes. Raises CheckpointError
    where the checkpoint does not load, and where ``out`` exists or cannot be written; then nothing of it is
    there.
    """
    refuse_existing(out)
    state = _state(checkpoint, dtype, name)
    state["exported"] |= {"limits": list(limits), "license": check_license(license)}
    return write_folder(out, state, rounded(averaged_weights(checkpoint), dtype))


def write_folder(out: Path, state: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write weights, `state.json` with their hash, card and config into ``out``; return the state as written.

    Raises CheckpointError where ``out`` cannot be written; then nothing of it is there.
    """
    try:
        with write.directory(out) as temporary:
            written = write_described(temporary / EXPORTED, serialise(tensors))
            state = {**state, "files": {EXPORTED: written}}
            write.write_synced(temporary / STATE, (json.dumps(state, indent=1) + "\n").encode())
            write.write_synced(temporary / CONFIG, render_config(state))
            write.write_synced(temporary / CARD, render_readme(state, _shown(out)).encode())
    except OSError as error:
        raise CheckpointError(
            f"{out} could not be written ({error.strerror or error}); {write.remedy(error)} or choose "
            "another place"
        ) from error
    return dict(state)


def write_card(
    folder: Path, measured: Sequence[Path] = (), limits: Sequence[str] = (), license: str = ""
) -> Path:
    """Write an exported checkpoint's model card anew, with the rows of result files that measured it.

    ``limits`` take the place of the sentences that `state.json` keeps of what the model is not good for,
    ``license`` that of its licence. Rows of other weights are passed over. A card under its earlier name is
    superseded and removed. Raises CheckpointError where the folder is not an exported checkpoint or has a
    README.md of somebody else's, UserError for a result file that cannot be read or has no row of this one.
    """
    state = read_state(folder)
    if "exported" not in state:
        raise CheckpointError(
            f"{folder} was not exported; `lsgm export {folder} OUT` makes a folder with a card"
        )
    refuse_incomplete(folder, state)
    write.claim(folder)
    sha256 = state["files"][weights_file(state)]["sha256"]
    rows: list[dict[str, Any]] = []
    for path in measured:
        own = [row.as_dict() for row in read_rows(path) if row.checkpoint_sha256 == sha256]
        if not own:
            raise UserError(
                f"{path} has no row of the weights in {folder} (sha256 {sha256[:12]}); measure them first"
            )
        rows += own
    card = folder / CARD
    if card.exists() and not is_ours(read_bytes(card, DOCUMENT, CheckpointError).decode(errors="replace")):
        raise CheckpointError(f"{card} is not a card that `lsgm export` wrote; move it away first")
    kept = {"limits": list(limits), "license": check_license(license)}
    changed = {key: value for key, value in kept.items() if value}
    with write.writing(card):
        if changed:
            state["exported"] |= changed
            write.replace_file(folder / STATE, (json.dumps(state, indent=1) + "\n").encode())
        write.replace_file(folder / CONFIG, render_config(state))
        write.replace_file(card, render_readme(state, _shown(folder), rows).encode())
        (folder / EARLIER_CARD).unlink(missing_ok=True)
    return card


def _state(checkpoint: Path, dtype: Dtype, name: str) -> dict[str, Any]:
    """Return `state.json` but for the files, after loading the model that it describes."""
    opened = open_checkpoint(checkpoint, "ema")
    model, state = measurable(opened, "cpu", "ema"), opened.state
    run = run_name(checkpoint)
    chosen = name or (run if state["finished"] else f"{run}-{state['stage']}")
    if not re.fullmatch(r"[\w.+-]+", chosen):
        raise UserError(f"the name '{chosen}' does not do; give letters, digits, and . _ + - alone")
    return {
        "format": FORMAT,
        "name": chosen,
        **Position.of(state).as_dict(),
        "seed": state.get("seed"),
        "ema_updates": state.get("ema_updates", 0),
        "parameters": dict(model.parameters),
        "meta": without_paths(state["meta"]),
        "exported": {"dtype": dtype, "has_prior": model.has_prior, **describe_origin(checkpoint, state)},
    }


def _shown(folder: Path) -> str:
    """Return a folder as a card may name it: as seen from here where that is inside, else its own name."""
    here, place = Path.cwd().resolve(), folder.resolve()
    return place.relative_to(here).as_posix() if place.is_relative_to(here) else place.name


def refuse_incomplete(folder: Path, state: Mapping[str, Any]) -> None:
    """Raise CheckpointError where an exported checkpoint does not say all that a card prints."""
    Position.of(state)
    meta, exported, files = state.get("meta") or {}, state["exported"] or {}, state.get("files") or {}
    said = {
        "name": state.get("name"),
        "parameters": state.get("parameters"),
        f"files.{weights_file(state)}": files.get(weights_file(state)),
        "meta.recipe": meta.get("recipe"),
        "meta.pixels": meta.get("pixels"),
        "meta.dataset": meta.get("dataset"),
        **{f"exported.{key}": exported.get(key) for key in ("dtype", "run", "checkpoint", "sha256")},
        "exported.stages": exported.get("stages"),
    }
    if absent := [key for key, value in said.items() if not value]:
        raise CheckpointError(f"{folder / STATE} does not say '{absent[0]}'; export the run again")
    described(folder, state)


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
    Position.of(state)
    run = None if any(key in state["meta"] for key in DERIVED) else _run_of(checkpoint)
    manifest = run.manifest() if run else {}
    origin = _origin(run) if run else None
    hardware = (call["hardware"] for call in _calls(run) if call.get("hardware"))
    return {
        "run": run_name(checkpoint),
        "run_id": manifest.get("run_id"),
        "checkpoint": checkpoint.resolve().name,
        "sha256": state["files"][weights_file(state)]["sha256"],
        "started": manifest.get("time"),
        "git_revisions": _revisions(run),
        "hardware": list(dict.fromkeys(map(hardware_line, hardware))),
        "versions": manifest.get("versions", {}),
        "initialised_from": _name_of(origin) if origin else None,
        "earlier": _earlier(run) if run else [],
        "stages": _stages(checkpoint, state),
        "validation": _validation(run, state) if run else None,
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
        cpu = (state.get("cpu_seconds_by_stage") or {}).get(name)
        row = {"name": name, "steps": steps, "images": images or None, "seconds": spent, "cpu_seconds": cpu}
        rows.append(row)
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


def _origin(run: Run) -> Path | None:
    """Return the run or checkpoint whose weights a run was begun from."""
    config = run.config()
    origins = (config.get(key) for key in ("init_from", "init_vae_from"))
    return next((Path(origin) for origin in origins if isinstance(origin, str) and origin), None)


def _earlier(run: Run) -> list[dict[str, Any]]:
    """Return the runs behind a run with their budgets, without those that nobody finds any more."""
    found: list[dict[str, Any]] = []
    here, seen = run, {run.directory.resolve()}
    while (origin := _origin(here)) is not None and hub_name(origin) is None:
        try:
            checkpoint = find_checkpoint(origin)
        except CheckpointError:
            break
        before = _run_of(checkpoint)
        if before is None or before.directory.resolve() in seen:
            break
        Position.of(state := read_state(checkpoint))
        found.insert(
            0,
            {
                "run": _name_of(origin),
                "git_revisions": _revisions(before),
                "stages": _stages(checkpoint, state),
            },
        )
        here = before
        seen.add(before.directory.resolve())
    return found


def _calls(run: Run | None) -> list[Mapping[str, Any]]:
    """Return what a manifest says of the first call that trained a run, and of each that went on."""
    if run is None:
        return []
    manifest = run.manifest()
    return [manifest, *(manifest.get("resumed") or [])]


def _revisions(run: Run | None) -> list[Any]:
    found = dict.fromkeys(call.get("git_revision") for call in _calls(run))
    return [revision for revision in found if revision is not None]


def _name_of(origin: Path) -> str:
    """Return a checkpoint's name: the one it was exported under, if it is still there, else its run's."""
    if (there := hub_name(origin)) is not None:
        return str(there)
    try:
        exported_as = read_state(find_checkpoint(origin)).get("name")
    except CheckpointError:
        exported_as = None
    return exported_as or run_name(origin)


def _counted(count: int, word: str, plural: str = "") -> str:
    return f"{count} {word if count == 1 else plural or word + 's'}"
