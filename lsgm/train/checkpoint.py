"""Checkpoints: a directory that appears whole by one rename, and is checked file by file when read.

``step-NNNNNNN/`` holds `model.safetensors` and `ema.safetensors` (both complete), `optimizer.pt`, and
`state.json`: format, step, stage, training seconds, shapes, size and sha256 of the other files, and the
caller's `meta` (what the model is made of).
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from lsgm.errors import CheckpointError
from lsgm.files import write

__all__ = [
    "FORMAT",
    "WEIGHTS",
    "checkpoints",
    "find_checkpoint",
    "is_checkpoint",
    "load_into",
    "load_optimizers",
    "load_weights",
    "prune",
    "read_optimizers",
    "read_state",
    "read_weights",
    "save_checkpoint",
    "serialise",
    "with_later_buffers",
]

FORMAT = 1
"""Version of the layout; a reader refuses a newer one."""

WEIGHTS = {"raw": "model.safetensors", "ema": "ema.safetensors"}
"""The file that each kind of weights is in."""

OPTIMIZER, STATE = "optimizer.pt", "state.json"


def save_checkpoint(
    parent: Path,
    state: Mapping[str, Any],
    model: Mapping[str, Tensor],
    ema: Mapping[str, Tensor],
    optimizers: Mapping[str, Any],
) -> Path:
    """Write ``parent/step-NNNNNNN`` (the number is ``state["step"]``) and return it.

    Raises CheckpointError where it cannot be written, a full disk for one; what was there before stays.
    """
    final = parent / f"step-{state['step']:07d}"
    try:
        with write.directory(final) as temporary:
            files: dict[str, dict[str, Any]] = {}
            for name, content in _contents(model, ema, optimizers):
                write.write_synced(temporary / name, content)
                files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            shapes = {key: list(value.shape) for key, value in model.items()}
            record = {"format": FORMAT, **state, "files": files, "shapes": shapes}
            write.write_synced(temporary / STATE, (json.dumps(record, indent=1) + "\n").encode())
    except OSError as error:
        raise CheckpointError(
            f"{final} could not be saved ({error.strerror or error}); the checkpoints before it are intact: "
            "make room or choose another place, then run the same command again"
        ) from error
    return final


def checkpoints(parent: Path) -> list[Path]:
    """Return the complete checkpoints in `parent`, the newest last."""
    found = [p for p in parent.glob("step-*") if p.name[5:].isdecimal() and p.is_dir()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def is_checkpoint(path: Path) -> bool:
    """Return whether a path is that of a checkpoint, damaged or not; a run may be called like one."""
    named = path.name.startswith("step-") and path.name[5:].isdecimal()
    return (path / STATE).is_file() or (named and not (path / "checkpoints").is_dir())


def find_checkpoint(path: Path | str) -> Path:
    """Return the checkpoint directory that `path` is, or the newest one of the run directory that it is."""
    path = Path(path)
    if is_checkpoint(path):
        return path
    found = checkpoints(path / "checkpoints")
    if not found:
        raise CheckpointError(f"{path} holds no checkpoint; give a run directory or one of its checkpoints")
    return found[-1]


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return `state.json`. Raises CheckpointError where it is missing, damaged or of a newer format."""
    path = checkpoint / STATE
    try:
        state = json.loads(path.read_bytes())
        version = int(state["format"])
    except OSError as error:
        raise CheckpointError(
            f"{path} cannot be read ({error.strerror}); give a complete checkpoint"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, "is not the JSON that was written") from error
    if version > FORMAT:
        raise CheckpointError(
            f"{path} has format {version} and this version reads up to {FORMAT}; update lsgm-bench to read it"
        )
    return dict(state)


def read_weights(checkpoint: Path, weights: Literal["ema", "raw"] = "ema") -> dict[str, Tensor]:
    """Return the averaged or the raw weights on the CPU.

    Raises CheckpointError where the file is damaged, or where the checkpoint was exported without it.
    """
    path, state = checkpoint / WEIGHTS[weights], read_state(checkpoint)
    if "exported" in state and path.name not in state["files"]:
        raise CheckpointError(
            f"{checkpoint} was exported with its averaged weights alone and has no {weights} ones; ask for "
            "the averaged weights, or give the run it was exported from"
        )
    try:
        return dict(safetensors.torch.load(_read(path, state)))
    except (SafetensorError, ValueError) as error:
        raise _damaged(path, f"is not a safetensors file ({error})") from error


def load_weights(
    module: nn.Module, checkpoint: Path | str, weights: Literal["ema", "raw"] = "ema"
) -> dict[str, Any]:
    """Load a checkpoint's (or a run's newest checkpoint's) weights into a module; return its `state.json`.

    Raises CheckpointError where the tensors are not the module's, naming the first that differs.
    """
    checkpoint = find_checkpoint(checkpoint)
    load_into(module, read_weights(checkpoint, weights), checkpoint / WEIGHTS[weights])
    return read_state(checkpoint)


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], origin: Path) -> None:
    """Copy tensors into a module after checking every key and shape; `origin` is the file to name.

    Buffers that a module has come to have since the file was written begin as it says itself.
    """
    tensors = with_later_buffers(module, tensors)
    if problem := _difference(module.state_dict(), tensors):
        raise CheckpointError(
            f"{origin} belongs to another model: {problem}; use the configuration that it was trained with"
        )
    module.load_state_dict(dict(tensors))


def with_later_buffers(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with what submodules' `later_buffers` say for those that an older file lacks."""
    later = {
        f"{name}.{key}" if name else key: value
        for name, part in module.named_modules()
        for key, value in getattr(part, "later_buffers", dict)().items()
    }
    return later | dict(tensors)


def load_optimizers(checkpoint: Path, optimizers: Mapping[str, torch.optim.Optimizer]) -> None:
    """Restore the optimisers, by the names of their groups. Raises CheckpointError."""
    path, saved = checkpoint / OPTIMIZER, read_optimizers(checkpoint)
    if set(saved) != set(optimizers):
        raise CheckpointError(
            f"{path} has the parameter groups {sorted(saved)} and this stage has {sorted(optimizers)}; "
            "use the configuration that it was trained with"
        )
    for name, optimizer in optimizers.items():
        try:
            optimizer.load_state_dict(saved[name])
        except (ValueError, KeyError) as error:
            raise CheckpointError(
                f"{path} does not fit group '{name}' ({error}); use the configuration it was trained with"
            ) from error


def read_optimizers(checkpoint: Path) -> dict[str, Any]:
    """Return the optimisers' states by the names of their groups.

    Raises CheckpointError for a damaged file, and for a checkpoint that no training wrote, which has none.
    """
    path, state = checkpoint / OPTIMIZER, read_state(checkpoint)
    saved: dict[str, Any] = {}
    if path.name in state["files"]:
        try:
            saved = torch.load(io.BytesIO(_read(path, state)), map_location="cpu", weights_only=True)
        except CheckpointError:
            raise
        except Exception as error:  # torch names no common class for what a broken file raises
            raise _damaged(path, "is not a file of optimiser states") from error
    if not saved:
        raise CheckpointError(
            f"{checkpoint} has no optimiser states, because no training wrote it; start another run from its "
            "weights with --init-from"
        )
    return saved


def prune(parent: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep` and the last one of each finished stage."""
    for path in checkpoints(parent)[:-keep]:
        if not read_state(path).get("stage_done", False):
            write.remove(path)


def _difference(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Return what is first found to differ in keys or shapes, or an empty string."""
    for key, value in own.items():
        if key not in tensors:
            return f"it lacks '{key}'"
        if tensors[key].shape != value.shape:
            return f"'{key}' is {list(tensors[key].shape)} there and {list(value.shape)} here"
    foreign = next((key for key in tensors if key not in own), None)
    return "" if foreign is None else f"it has '{foreign}', which this model has not"


def _contents(
    model: Mapping[str, Tensor], ema: Mapping[str, Tensor], optimizers: Mapping[str, Any]
) -> list[tuple[str, bytes]]:
    buffer = io.BytesIO()
    torch.save(dict(optimizers), buffer)
    return [
        (WEIGHTS["raw"], serialise(model)),
        (WEIGHTS["ema"], serialise(ema)),
        (OPTIMIZER, buffer.getvalue()),
    ]


def serialise(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of a safetensors file: the same for the same tensors, whatever device they are on."""
    # safetensors refuses tensors that share memory (tied weights); copies of their own are always right.
    own = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in tensors.items()}
    return bytes(safetensors.torch.save(own, metadata={"format": "pt"}))


def _read(path: Path, state: Mapping[str, Any]) -> bytes:
    """Return a file's bytes after checking them against the size and sha256 in `state.json`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise _damaged(path, f"cannot be read ({error.strerror})") from error
    expected = state.get("files", {}).get(path.name, {})
    if len(content) != expected.get("bytes"):
        raise _damaged(path, f"is truncated: {len(content)} of {expected.get('bytes')} bytes are there")
    if hashlib.sha256(content).hexdigest() != expected.get("sha256"):
        raise _damaged(path, "is damaged: its sha256 is not the one in state.json")
    return content


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} {what}; restore it from a copy, or delete {path.parent} to go on from the one before"
    )
