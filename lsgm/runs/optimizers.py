"""`optimizer.pt` of a checkpoint, held against the optimisers that are to go on from it, entry by entry.

Only moments and counts of steps are taken from the file. What an optimiser is set to, and by which kernels it
computes, is the configuration's: the file must say the same where it decides the arithmetic.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Adamax, AdamW, Optimizer

from lsgm.errors import CheckpointError, UserError
from lsgm.files.limits import INSTRUCTIONS, PICKLE
from lsgm.files.regular import zip_of
from lsgm.pickled.machine import ForeignNameError, MalformedError, PickleMachine, TooManyError
from lsgm.pickled.torch_file import Storage, View, Zipped

MOMENTS: Mapping[type[Optimizer], tuple[str, ...]] = {
    Adam: ("exp_avg", "exp_avg_sq"),
    AdamW: ("exp_avg", "exp_avg_sq"),
    Adamax: ("exp_avg", "exp_inf"),
}
"""What each rule keeps of a parameter beside its steps; the second of them is never negative."""

SETTINGS = ("betas", "eps", "weight_decay", "amsgrad", "maximize")
"""Which settings decide the arithmetic; the learning rate follows the schedule."""


def state_for(
    group: str, optimizer: Optimizer, file: StoredFile, names: Mapping[int, str], largest_step: int
) -> dict[str, Any]:
    """Return what ``optimizer.load_state_dict`` takes, of the file's group of that name.

    ``names`` are the parameters' names by their ``id``; no parameter has made more than ``largest_step``
    steps. Raises ValueError, a few words, where an entry is missing, is one too many, or has another type,
    shape or value than the optimiser can have left.
    """
    saved, own = file.content[group], optimizer.state_dict()["param_groups"]
    params = [param for settings in optimizer.param_groups for param in settings["params"]]
    _settings(saved, own)
    entries = saved["state"]
    if not isinstance(entries, Mapping):
        raise ValueError("its 'state' is no table")
    said = [names.get(id(param), f"parameter {index}") for index, param in enumerate(params)]
    if foreign := [key for key in entries if key not in range(len(params))]:
        raise ValueError(f"it has an entry {str(foreign[0])[:40]!r}, and there are {len(params)} parameters")
    state = {}
    for index, param in enumerate(params):
        if index not in entries:
            raise ValueError(f"it lacks the entry of '{said[index]}'")
        try:
            state[index] = _entry(entries[index], MOMENTS[type(optimizer)], param, file, largest_step)
        except ValueError as error:
            raise ValueError(f"of '{said[index]}' {error}") from error
    return {"state": state, "param_groups": own}


def _settings(saved: Any, own: list[dict[str, Any]]) -> None:
    """Raise ValueError unless the file's settings are those that the optimiser has."""
    if not isinstance(saved, Mapping) or not {"state", "param_groups"} <= set(saved):
        raise ValueError("it has not 'state' and 'param_groups'")
    groups = saved["param_groups"]
    if not isinstance(groups, list) or len(groups) != len(own):
        raise ValueError("its 'param_groups' is no list of one table")
    for there, here in zip(groups, own, strict=True):
        if not isinstance(there, Mapping) or there.get("params") != here["params"]:
            raise ValueError(f"its 'params' are not the numbers of {len(here['params'])} parameters")
        rate: Any = there.get("lr")
        if type(rate) not in (int, float) or not math.isfinite(rate) or rate < 0:
            raise ValueError(f"its 'lr' is {_shown(rate)}, not a learning rate")
        for name in SETTINGS:
            if name in here and not _same(there.get(name), here[name]):
                raise ValueError(
                    f"its '{name}' is {_shown(there.get(name))}, and {here[name]!r} in the configuration"
                )


def _same(there: Any, here: Any) -> bool:
    if isinstance(here, tuple):
        equal = type(there) in (tuple, list) and len(there) == len(here)
        return equal and all(_same(a, b) for a, b in zip(there, here, strict=True))
    numbers = (int, float)
    alike = type(there) is type(here) or (type(there) in numbers and type(here) in numbers)
    return bool(alike and there == here)


def _shown(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, View):
        return "a tensor"
    plain = isinstance(value, str | int | float) or (
        isinstance(value, tuple | list) and all(isinstance(item, int | float) for item in value)
    )
    return repr(value)[:60] if plain else f"a {type(value).__name__}"


def _entry(
    entry: Any, moments: tuple[str, ...], param: Tensor, file: StoredFile, largest_step: int
) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        raise ValueError("the entry is no table")
    wanted = ("step", *moments)
    if missing := [name for name in wanted if name not in entry]:
        raise ValueError(f"'{missing[0]}' is missing")
    if foreign := [name for name in entry if name not in wanted]:
        raise ValueError(f"there is '{str(foreign[0])[:40]}', which the optimiser does not keep")
    found = {name: _moment(name, entry[name], param, file) for name in moments}
    if bool((found[moments[-1]] < 0).any()):
        raise ValueError(f"'{moments[-1]}' has numbers below 0")
    return {"step": _step(entry["step"], file, largest_step), **found}


def _moment(name: str, stored: Any, param: Tensor, file: StoredFile) -> Tensor:
    if not isinstance(stored, View):
        raise ValueError(f"'{name}' is no tensor")
    if stored.size != tuple(param.shape):
        raise ValueError(f"'{name}' is {list(stored.size)[:16]} there and {list(param.shape)} here")
    if stored.storage.dtype != param.dtype:
        raise ValueError(f"'{name}' is {_type(stored.storage.dtype)} there and {_type(param.dtype)} here")
    value = file.tensor(stored)
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"'{name}' has numbers that are not finite")
    # Fused kernels walk parameter and moments side by side, in one order of memory.
    return torch.empty_like(param, device=value.device).copy_(value)


def _step(stored: Any, file: StoredFile, largest: int) -> Tensor | float:
    """Return how many steps a parameter has made, as the file has it: a tensor of one number, or a number."""
    value: Any = stored
    if isinstance(stored, View):
        if stored.size:
            raise ValueError(f"'step' is {list(stored.size)[:16]}, not one number")
        value = file.tensor(stored)
    elif type(stored) not in (int, float):
        raise ValueError("'step' is no number")
    count = float(value)
    if not 1 <= count <= largest or count != int(count):
        raise ValueError(f"'step' is {count:g}, and the stage has made {largest}")
    return value  # type: ignore[no-any-return]


def _type(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


STORAGES = frozenset(f"torch.{kind}Storage" for kind in ("Double", "Float", "Half", "BFloat16", "Long"))


class StoredFile:
    """The bytes of a file, and as ``content`` what it holds: tables, lists, numbers, texts, `View`.

    Raises ValueError, a few words, wherever it is not one that `torch.save` wrote of such; CheckpointError
    beyond a limit.
    """

    def __init__(self, content: bytes, where: str = "it") -> None:
        try:
            self._zipped = _opened(content, where)
            machine = PickleMachine(
                self._zipped.pickle,
                rules=RULES,
                stored=Storage.of,
                known=lambda name: name in RULES or name in STORAGES,
                steps=INSTRUCTIONS.value,
            )
            self.content = machine.run()
            if machine.protocol > 2:
                raise MalformedError("a newer protocol")
            damaged = self._zipped.damaged()
        except UserError:
            raise
        except ForeignNameError as error:
            raise ValueError(
                f"it names {error.name[:80]}, which does not belong there; nothing of it was executed"
            ) from error
        except TooManyError as error:
            raise ValueError(f"it has more than {INSTRUCTIONS.value:,} instructions") from error
        # The instructions of a damaged pickle do not go together: an empty stack, a list in a number's place.
        # No more do the places and sizes that a damaged zip says of its parts.
        except Exception as error:
            why = f": {error}" if isinstance(error, MalformedError) else ""
            raise ValueError(f"its pickle is damaged{why}") from error
        if damaged:
            raise ValueError(f"its part '{damaged[:80]}' is damaged")

    def tensor(self, stored: View) -> Tensor:
        """Return a tensor of its own memory, strided as it was saved. Raises ValueError where it has none."""
        storage = stored.storage
        try:
            raw = bytearray(self._zipped.take(storage.key, storage.size, storage.itemsize))
            if math.prod(stored.size) > storage.entries:
                raise MalformedError("it has more numbers than there are")
            flat = torch.frombuffer(raw, dtype=storage.dtype) if raw else torch.empty(0, dtype=storage.dtype)
            return stored.tensor(flat)
        except (MalformedError, TypeError) as error:
            raise ValueError(
                f"a tensor {_sides(stored.size)} does not fit into its {storage.size:,} bytes"
            ) from error


def _opened(content: bytes, where: str) -> Zipped:
    try:
        archive = zip_of(content, where, CheckpointError)
    except zipfile.BadZipFile as error:
        raise MalformedError("it is no zip of torch's") from error
    zipped = Zipped(where, memoryview(content), archive, PICKLE)
    if zipped.packed:
        raise MalformedError("it is packed, which torch never does")
    return zipped


def _table(*entries: Any) -> dict[str, Any]:
    if entries:
        raise MalformedError("an ordered table is made of something")
    return {}


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> View:
    plain = type(size) is tuple and type(stride) is tuple and isinstance(storage, Storage)
    if not plain or not all(type(number) is int for number in (offset, *size, *stride)):
        raise MalformedError("a tensor of no shape")
    return View(storage, offset, size, stride)


RULES: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _table,
    "torch._utils._rebuild_tensor_v2": _tensor,
}
"""What is made of the arguments that these are called with."""


def _sides(size: tuple[int, ...]) -> list[int]:
    return list(size[:16])
