"""Checkpoints: a directory that appears whole by one rename, and is checked file by file when read.

``step-NNNNNNN/`` holds `model.safetensors` and `ema.safetensors` (both complete), `optimizer.pt`, and
`state.json`: format, step, stage, training seconds, shapes, size and sha256 of the other files, and the
caller's `meta` (what the model is made of). An exported checkpoint has averaged weights alone, in
`model.safetensors`, where the Hub looks for weights; those of early versions in `ema.safetensors`.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor, nn

from lsgm.errors import CheckpointError, ConfigError, DataError
from lsgm.files import write
from lsgm.files.arrays import BYTES, TensorEntry, TensorHeader, parse_header
from lsgm.files.limits import DOCUMENT
from lsgm.files.limits import WEIGHTS as LIMIT
from lsgm.files.names import shown
from lsgm.files.regular import absent, open_regular, read_bytes
from lsgm.files.text import parse_json
from lsgm.hub import ListedFile, fetch, hub_name
from lsgm.runs.optimizers import StoredFile, state_for
from lsgm.runs.records import CheckpointState
from lsgm.structure import from_dict

FORMAT = 1
"""Version of the layout; a reader refuses a newer one."""

WEIGHTS = {"raw": "model.safetensors", "ema": "ema.safetensors"}
"""The file of a run's checkpoint that each kind of weights is in."""

EXPORTED = "model.safetensors"
"""The file of averaged weights in an exported checkpoint."""

FLOATS = ("F64", "F32", "F16", "BF16")
"""What weights are, as the format of safetensors calls it."""
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip
"""Types that networks have, counts and masks included."""

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
            moments = io.BytesIO()
            torch.save(dict(optimizers), moments)
            contents = {WEIGHTS["raw"]: serialise(model), WEIGHTS["ema"]: serialise(ema)}
            contents[OPTIMIZER] = moments.getvalue()
            files = {name: write_described(temporary / name, content) for name, content in contents.items()}
            shapes = {key: list(value.shape) for key, value in model.items()}
            record = {"format": FORMAT, **state, "files": files, "shapes": shapes}
            write.write_synced(temporary / STATE, (json.dumps(record, indent=1) + "\n").encode())
    except OSError as error:
        raise CheckpointError(
            f"{final} could not be saved ({error.strerror or error}); the checkpoints before it are intact: "
            f"{write.remedy(error)} or choose another place, then run the same command again"
        ) from error
    return final


def write_described(path: Path, content: bytes) -> dict[str, Any]:
    """Write a file of a checkpoint; return what `state.json` says of it."""
    write.write_synced(path, content)
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def checkpoints(parent: Path) -> list[Path]:
    """Return the complete checkpoints in `parent`, the newest last."""
    found = [p for p in parent.glob("step-*") if p.name[5:].isdecimal() and p.is_dir()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def is_checkpoint(path: Path) -> bool:
    """Return whether a path is that of a checkpoint, damaged or not; a run may be called like one."""
    named = path.name.startswith("step-") and path.name[5:].isdecimal()
    return (path / STATE).is_file() or (named and not (path / "checkpoints").is_dir())


def located(path: Path | str) -> Path:
    """Return a path of this machine as it is, and where a model of the Hub (``hf://owner/name``) now lies.

    Raises CheckpointError as `lsgm.hub.fetch` does.
    """
    name = hub_name(path)
    return Path(path) if name is None else fetch(name, STATE, _listed)


def _listed(folder: Path) -> dict[str, ListedFile]:
    """Return the weights that a folder of the Hub must hold, as its `state.json` describes them."""
    state = read_state(folder)
    files, name = state.get("files") or {}, weights_file(state)
    if "exported" not in state or name not in files:
        raise CheckpointError(f"{folder / STATE} is not of an exported checkpoint; push one")
    return {name: ListedFile(files[name]["bytes"], files[name]["sha256"])}


def find_checkpoint(path: Path | str) -> Path:
    """Return the checkpoint directory that `path` is, or the newest one of the run directory that it is.

    ``hf://owner/name[@revision]`` is one of the Hub (`located`).
    """
    path = located(path)
    if is_checkpoint(path):
        return path
    found = checkpoints(path / "checkpoints")
    if not found:
        raise CheckpointError(f"{path} holds no checkpoint; give a run directory or one of its checkpoints")
    return found[-1]


def weights_file(state: Mapping[str, Any], weights: Literal["ema", "raw"] = "ema") -> str:
    """Return the name of the file of averaged or raw weights in the checkpoint that ``state`` describes."""
    if weights == "ema" and "exported" in state and WEIGHTS["ema"] not in state.get("files", {}):
        return EXPORTED
    return WEIGHTS[weights]


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Return `state.json`, which is what `CheckpointState` says; keys of later versions are in it as well.

    Raises CheckpointError where it is missing, damaged or of a newer format.
    """
    path = checkpoint / STATE
    if absent(path):
        raise CheckpointError(f"{path} cannot be read, as it is not there; give a complete checkpoint")
    content = read_bytes(path, DOCUMENT, CheckpointError)
    try:
        state = parse_json(content, STATE)
        if not isinstance(state, dict):
            raise DataError("it is no JSON object")
        if type(version := state.get("format")) is int and version > FORMAT:
            raise CheckpointError(
                f"{path} has format {version} and this version reads up to {FORMAT}; update lsgm-bench to "
                "read it"
            )
        from_dict(CheckpointState, state, STATE, unknown="ignore", null=True)
    except (ConfigError, DataError) as error:
        reason = str(error).removeprefix(STATE).lstrip(": ").partition(";")[0]
        raise _damaged(path, f"is not the JSON that was written ({reason})") from error
    return state


def read_entries(checkpoint: Path, weights: Literal["ema", "raw"] = "ema") -> Mapping[str, TensorEntry]:
    """Return type and shape of every tensor in a file of weights, of which nothing else is read.

    Raises CheckpointError as `read_weights` does.
    """
    return _header(*_weights_file(checkpoint, weights)).entries


def read_weights(checkpoint: Path, weights: Literal["ema", "raw"] = "ema") -> dict[str, Tensor]:
    """Return the averaged or the raw weights on the CPU: floating-point numbers of 16 to 64 bits, and counts.

    Raises CheckpointError where the file is damaged, where it holds no tensor, one of another type or a
    number that is not finite, and where the checkpoint was exported without it. What is returned is of the
    very bytes whose sha256 was taken.
    """
    path, state = _weights_file(checkpoint, weights)
    # The header is looked at before the bytes are read, and again in the bytes whose hash was taken.
    start = _header(path, state).start
    content = _read(path, state)
    begin = io.BytesIO(memoryview(content)[:start])
    header = _readable(parse_header(begin, path, CheckpointError, len(content)), path)
    memory = memoryview(content)[header.start :]
    found = {name: _tensor(entry, memory) for name, entry in header.entries.items()}
    for name, value in found.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(
                f"{path}: '{shown(name)}' has numbers that are not finite, which no model can use; take a "
                "checkpoint before it"
            )
    return found


def _weights_file(checkpoint: Path, weights: Literal["ema", "raw"]) -> tuple[Path, dict[str, Any]]:
    state = read_state(checkpoint)
    path = checkpoint / weights_file(state, weights)
    if "exported" in state and weights == "raw":
        raise CheckpointError(
            f"{checkpoint} was exported with its averaged weights alone and has no raw ones; ask for "
            "the averaged weights, or give the run it was exported from"
        )
    if path.name not in state.get("files", {}):
        raise _damaged(checkpoint / STATE, f"says nothing of {path.name}")
    return path, state


def _header(path: Path, state: Mapping[str, Any]) -> TensorHeader:
    with _opened(path, state) as file:
        return _readable(parse_header(file, path, CheckpointError), path)


def _readable(header: TensorHeader, path: Path) -> TensorHeader:
    """Return the header of a file of weights. Raises CheckpointError for types that no network here has."""
    if not header.entries:
        raise CheckpointError(f"{path} holds no tensor, and so no model; restore it from a copy")
    for name, entry in header.entries.items():
        if entry.dtype not in DTYPES:
            raise CheckpointError(
                f"{path}: '{shown(name)}' is of type {entry.dtype}, and weights are {', '.join(FLOATS)}; "
                "convert it from its source again"
            )
    return header


def _tensor(entry: TensorEntry, memory: memoryview) -> Tensor:
    begin, end = entry.data_offsets
    if begin == end:
        return torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
    piece: Any = memory[begin:end]
    if begin % BYTES[entry.dtype]:  # numbers lie where the processor may read them
        piece = bytearray(piece)
    return torch.frombuffer(piece, dtype=DTYPES[entry.dtype]).reshape(entry.shape)


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], origin: Path) -> None:
    """Copy tensors into a module after checking every key and shape; `origin` is the file to name.

    Buffers that a module has come to have since the file was written begin as it says itself.
    """
    module.load_state_dict(_fitting(module, tensors, origin))


def refuse_other(module: nn.Module, entries: Mapping[str, TensorEntry], origin: Path) -> None:
    """Raise CheckpointError where a file's tensors, of which only the header was read, are not the module's.

    The module may be on the meta device, so that nothing is allocated for what does not fit.
    """
    described = {
        name: torch.empty(e.shape, dtype=DTYPES[e.dtype], device="meta") for name, e in entries.items()
    }
    _fitting(module, described, origin)


def _fitting(module: nn.Module, tensors: Mapping[str, Tensor], origin: Path) -> dict[str, Tensor]:
    """Return all tensors of a module. Raises CheckpointError, naming the first that differs."""
    tensors, own = with_later_buffers(module, tensors), module.state_dict()
    if problem := _difference(own, tensors) or _other_type(own, tensors):
        raise CheckpointError(
            f"{origin} belongs to another model: {problem}; use the configuration that it was trained with"
        )
    return tensors


def with_later_buffers(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with what submodules' `later_buffers` say for those that an older file lacks."""
    later = {
        f"{name}.{key}" if name else key: value
        for name, part in module.named_modules()
        for key, value in getattr(part, "later_buffers", dict)().items()
    }
    return later | dict(tensors)


def load_optimizers(
    checkpoint: Path,
    optimizers: Mapping[str, torch.optim.Optimizer],
    names: Mapping[int, str],
    largest_step: int,
) -> None:
    """Restore the optimisers, by the names of their groups, once the whole file is known to fit them.

    ``names`` are the parameters' names by their ``id``, ``largest_step`` the steps that the stage has made.
    Raises CheckpointError.
    """
    path = checkpoint / OPTIMIZER
    params = [
        p for optimizer in optimizers.values() for group in optimizer.param_groups for p in group["params"]
    ]
    room = 3 * sum(p.numel() * p.element_size() for p in params) + 2**14 * len(params) + 2**24
    saved = _saved_optimizers(checkpoint, room)
    if not isinstance(saved.content, Mapping) or set(saved.content) != set(optimizers):
        there = sorted(map(str, saved.content)) if isinstance(saved.content, Mapping) else "no table of them"
        raise CheckpointError(
            f"{path} has the parameter groups {there} and this stage has {sorted(optimizers)}; "
            "use the configuration that it was trained with"
        )
    states = {}
    for name, optimizer in optimizers.items():
        try:
            states[name] = state_for(name, optimizer, saved, names, largest_step)
        except ValueError as error:
            raise CheckpointError(
                f"{path} does not fit group '{name}': {shown(str(error))}; use the configuration it was "
                f"trained with, or delete {checkpoint} to go on from the one before"
            ) from error
    for name, optimizer in optimizers.items():
        optimizer.load_state_dict(states[name])


def require_optimizers(checkpoint: Path) -> None:
    """Raise CheckpointError for a damaged `optimizer.pt`, and for a checkpoint that no training wrote."""
    _saved_optimizers(checkpoint, LIMIT.value)


def _saved_optimizers(checkpoint: Path, room: int) -> StoredFile:
    """Return the optimisers' states, of which no tensor is built yet; the file has at most ``room`` bytes."""
    path, state = checkpoint / OPTIMIZER, read_state(checkpoint)
    if path.name in state.get("files", {}):
        size = state["files"][path.name]["bytes"]
        if size > room:
            raise _damaged(
                path, f"has {size:,} bytes, and the optimisers of this model need {room:,} at most"
            )
        try:
            saved = StoredFile(bytes(_read(path, state)))
        except ValueError as error:
            raise _damaged(path, f"is not a file of optimiser states ({shown(str(error))})") from error
        if saved.content:
            return saved
    raise CheckpointError(
        f"{checkpoint} has no optimiser states, because no training wrote it; start another run from its "
        "weights with --init-from"
    )


def prune(parent: Path, keep: int) -> None:
    """Remove all checkpoints but the newest `keep` and the last one of each finished stage."""
    for path in checkpoints(parent)[:-keep]:
        with contextlib.suppress(CheckpointError):  # what is damaged is not ours to throw away
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


def _other_type(own: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> str:
    """Return what is first found to differ in the sort of numbers; floating-point ones are of one sort."""
    for key, value in own.items():
        there = tensors[key].dtype
        alike = there.is_floating_point if value.is_floating_point() else there == value.dtype
        if not alike:
            return f"'{key}' is {_word(there)} there and {_word(value.dtype)} here"
        narrowed = value.is_floating_point() and torch.finfo(there).max > torch.finfo(value.dtype).max
        if narrowed and not tensors[key].is_meta and not bool(tensors[key].to(value.dtype).isfinite().all()):
            return f"'{key}' has numbers that {_word(value.dtype)} does not hold"
    return ""


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def serialise(tensors: Mapping[str, Tensor]) -> bytes:
    """Return the bytes of a safetensors file: the same for the same tensors, whatever device they are on."""
    # safetensors refuses tensors that share memory (tied weights); copies of their own are always right.
    own = {key: value.detach().to("cpu", copy=True).contiguous() for key, value in tensors.items()}
    return bytes(safetensors.torch.save(own, metadata={"format": "pt"}))


@contextmanager
def _opened(path: Path, state: Mapping[str, Any]) -> Iterator[io.BufferedReader]:
    """Yield a file of a checkpoint that has the size that `state.json` says. Raises CheckpointError."""
    if absent(path):
        raise _damaged(path, "cannot be read, as it is not there")
    with open_regular(path, CheckpointError) as file:
        size, expected = os.fstat(file.fileno()).st_size, state["files"][path.name]["bytes"]
        if size != expected:
            what = f"is truncated: {size} of"
            what = what if size < expected else f"is not the file that was written: {size} in place of"
            raise _damaged(path, f"{what} {expected} bytes are there")
        LIMIT.hold(path, size, CheckpointError)
        try:
            yield file
        except OSError as error:
            raise _damaged(path, f"cannot be read ({error.strerror})") from error


def _read(path: Path, state: Mapping[str, Any]) -> bytearray:
    """Return a file's bytes after checking them against the size and sha256 in `state.json`."""
    expected = state["files"][path.name]
    with _opened(path, state) as file:
        content = bytearray(expected["bytes"])
        if file.readinto(content) != len(content):
            raise _damaged(path, "became shorter while it was read")
    if hashlib.sha256(content).hexdigest() != expected["sha256"]:
        raise _damaged(path, "is damaged: its sha256 is not the one in state.json")
    return content


def _damaged(path: Path, what: str) -> CheckpointError:
    if path.parent.parent.name == "snapshots":  # of the Hub's cache
        return CheckpointError(f"{path} {what}; remove {path.parents[2]}, and it is fetched again")
    return CheckpointError(
        f"{path} {what}; restore it from a copy, or delete {path.parent} to go on from the one before"
    )
