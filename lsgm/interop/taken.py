"""What is taken of a checkpoint that somebody else wrote, and the run that is made of it.

Plain tensors of the right kind of number, counts, and what is kept for the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from lsgm.errors import CheckpointError, UserError
from lsgm.files.limits import HEADER, Limit
from lsgm.files.names import shown
from lsgm.files.regular import open_regular
from lsgm.generative import Pixels
from lsgm.pickled.machine import Made
from lsgm.runs.derived import write_derived_run
from lsgm.runs.load import checkpoint_meta
from lsgm.runs.records import Position
from lsgm.structure import LARGEST, to_dict

R = TypeVar("R")
"""The type of a recipe."""


def read_safetensors(path: Path, error: type[UserError], limit: Limit | None = None) -> dict[str, Tensor]:
    """Return a file's tensors by name, mapped into memory.

    The library checks that they lie within the file, side by side. Raises ``error`` where the path is no
    regular file, its list of tensors is larger than `HEADER`, the file than ``limit``, or it is damaged.
    """
    name = shown(str(path))
    with open_regular(path, error) as file:
        listed = int.from_bytes(file.read(8), "little")
        size = file.seek(0, 2)
    # More than the file holds is damage, which the library says.
    HEADER.hold(f"the list of tensors of {name}", listed if listed <= size else 0, error)
    if limit is not None:
        limit.hold(name, size, error)
    try:
        return dict(safetensors.torch.load_file(path))
    # TypeError, KeyError and the like for types of numbers that torch, or this version of it, has not.
    except (
        SafetensorError,
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        RuntimeError,
    ) as problem:
        why = shown(" ".join(str(problem).split()))[:200]
        raise error(f"{name} is truncated or damaged ({why}); copy it again from where it came") from problem


WRAPPERS = ("module.", "_orig_mod.")
"""What DataParallel, DistributedDataParallel and torch.compile put before every name."""

MOST_WRAPPERS = 8
"""Around one model."""

REAL = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Types of weights; eight bits and fewer need scales, which no file here has."""

LONGEST = 1000
"""Characters of a text, and entries of a list, that are kept for the record."""

OTHERS = {"sparse": "a sparse", "qtensor": "a quantised", "nested": "a nested", "meta": "an empty (meta)"}
"""Tensors that are no plain ones, by what names them."""


def brief(value: Any, depth: int = 3) -> str:
    """Return a value as a complaint shows it: on one line, and short whatever it is."""
    if isinstance(value, (list, tuple)):
        inner = [brief(item, depth - 1) for item in value[:8]] if depth else ["..."]
        text = ", ".join(inner + ["..."] * (len(value) > 8))
        text = f"[{text}]" if isinstance(value, list) else f"({text}{',' * (len(value) == 1)})"
    elif isinstance(value, int) and abs(value) > LARGEST:
        text = f"a number of {value.bit_length()} bits"
    elif isinstance(value, str):
        text = shown(repr(value[:80]))
    elif isinstance(value, (int, float, type(None))):
        text = repr(value)
    elif isinstance(value, Tensor):
        text = f"a tensor {list(value.shape)}"
    else:
        text = "a table" if isinstance(value, Mapping) else "an object"
    return text if len(text) <= 100 else f"{text[:99]}..."


def named(name: object) -> str:
    """Return a name out of a file as a complaint shows it."""
    return shown(str(name)[:200])


def weights_of(state: Any, part: str, other: Callable[[str], CheckpointError]) -> dict[str, Tensor]:
    """Return a state dict's tensors by name, without what wrappers of the model have put before every name.

    Raises the error that ``other`` makes of a clause where ``part`` of the file is no such table.
    """
    if not isinstance(state, Mapping) or not state:
        raise other(f"it has no '{part}'" if state is None else f"its '{part}' is no state dict")
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        if not isinstance(name, str):
            raise other(f"its '{part}' has the name {brief(name)}, which is no text")
        out[name] = plain_tensor(value, f"'{named(name)}' in its '{part}'", other).detach()
    for _ in range(MOST_WRAPPERS):
        wrapper = next((each for each in WRAPPERS if all(name.startswith(each) for name in out)), None)
        if wrapper is None:
            break
        out = {name.removeprefix(wrapper): value for name, value in out.items()}
    return out


def plain_tensor(value: Any, what: str, other: Callable[[str], CheckpointError]) -> Tensor:
    """Return a tensor whose numbers are all in the file. Raises the error of ``other`` for anything else."""
    if isinstance(value, Made):
        kind = next((kind for word, kind in OTHERS.items() if word in value.name), None)
        if kind is not None:
            raise other(f"{what} is {kind} tensor, and only plain ones are read")
    if not isinstance(value, Tensor):
        raise other(f"{what} is not a tensor")
    if value.is_sparse or value.layout != torch.strided or value.is_quantized or value.is_meta:
        raise other(f"{what} is no plain tensor, and only these are read")
    # Numbers that stand in several places at once: a file of kilobytes can claim terabytes like that.
    reach = 1 + sum((side - 1) * step for side, step in zip(value.shape, value.stride(), strict=True))
    if value.numel() > reach:
        raise other(f"{what} is {list(value.shape)}, of fewer numbers than that")
    return value


def real(tensor: Tensor, name: str) -> Tensor:
    """Return a tensor of floating-point numbers. Raises CheckpointError, which names it, for another."""
    if tensor.dtype not in REAL:
        raise CheckpointError(
            f"the checkpoint's tensor '{named(name)}' is of {str(tensor.dtype).removeprefix('torch.')}, and "
            "weights are floating-point numbers of 16 bits or more; get the file from its authors again"
        )
    return tensor


def fitting(tensor: Tensor, like: Tensor, name: str) -> Tensor:
    """Return a tensor as numbers of the type of ``like``.

    Raises CheckpointError where it is of another kind (whole numbers for weights, or the reverse), and where
    its numbers are not finite, or are no longer once they are of that type.
    """
    if like.is_floating_point():
        cast = real(tensor, name).to(like.dtype)
        if not bool(cast.isfinite().all()):
            raise CheckpointError(
                f"the checkpoint's tensor '{named(name)}' has entries that are not finite, as a run has that "
                "diverged; give an earlier checkpoint of it"
            )
        return cast
    if tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool:
        raise CheckpointError(
            f"the checkpoint's tensor '{named(name)}' is of {str(tensor.dtype).removeprefix('torch.')}, and "
            "belongs to whole numbers; get the file from its authors again"
        )
    return tensor.to(like.dtype)


def refuse_larger(source: str, network: str, layers: int, tensors: int) -> None:
    """Raise CheckpointError where a network would have more layers than the file has tensors for them.

    Looked at before it is built, so that its size is bounded by that of the file.
    """
    if layers > tensors:
        raise CheckpointError(
            f"{source} describe a {network} of {layers:,} layers or more, and the file has {tensors:,} "
            "tensors of it; give weights and settings of one model"
        )


def count_of(value: Any) -> int | None:
    """Return a count, which may lie in a tensor of one number; None where it is none."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_floating_point():
        value = value.item()
    return value if type(value) is int and 0 <= value <= LARGEST else None


def recorded(value: Any, depth: int = 8) -> Any:
    """Return a value out of a file as JSON holds it for the record: in brief where long, or without words.

    What comes out is read back by `lsgm.files.text`; a name that no file can hold harms nothing later.
    """
    if isinstance(value, Mapping) and depth and len(value) <= LONGEST:
        return {named(key): recorded(item, depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and depth and len(value) <= LONGEST:
        return [recorded(item, depth - 1) for item in value]
    if isinstance(value, str) and len(value) <= LONGEST and value.isprintable():
        return value
    small = not isinstance(value, int) or abs(value) <= LARGEST
    return value if isinstance(value, (bool, int, float, type(None))) and small else brief(value)


# The run


class Native(NamedTuple, Generic[R]):
    """A model in this package's terms."""

    recipe: R
    pixels: Pixels
    raw: dict[str, Tensor]
    """State dict of the last weights; where the file has the averaged ones alone, these."""
    ema: dict[str, Tensor]
    """State dict of the averaged weights, the ones that are measured."""


def write_imported(
    out: Path, native: Native[Any], source: dict[str, Any], argv: Sequence[str], *, stage: str, step: int
) -> Path:
    """Write ``out`` with config, manifest and one checkpoint; return the checkpoint's directory.

    ``source`` says where the model comes from and goes into the checkpoint's meta under ``imported``; its
    training had come to a ``step`` of a ``stage``. Raises CheckpointError where the directory exists or
    cannot be written; then nothing is there.
    """
    recipe, dataset = native.recipe, native.recipe.data.dataset
    # Nothing can go on from here: optimisers are not translated.
    position = Position(step=step, stage=stage, stage_step=step, stage_done=True, finished=True)
    meta = {**checkpoint_meta(recipe, native.pixels, dataset), "imported": source}
    return write_derived_run(
        out,
        to_dict(recipe),
        {**position.as_dict(), "ema_updates": step, "meta": meta},
        native.raw,
        native.ema,
        seed=recipe.seed,
        dataset={"name": dataset},
        argv=argv,
    )
