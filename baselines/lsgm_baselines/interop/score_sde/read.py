"""Read a checkpoint of score_sde_pytorch without executing anything in it.

These files are pickles. `lsgm.pickled.foreign` finds tensors, containers and numbers in them and nothing else
but `argparse.Namespace`, by which a checkpoint of LSGM's authors is told apart.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lsgm.errors import CheckpointError
from lsgm.files.shown import shown
from lsgm.interop.taken import count_of, named, plain_tensor, weights_of
from lsgm.pickled.foreign import read_pickle

__all__ = ["Checkpoint", "read_checkpoint"]

FREQUENCIES = "all_modules.0.W"
"""The one tensor that is a parameter and not trained, so that no average of it is kept."""

LEVELS = "sigmas"
"""The one tensor that is no parameter: sigma from the largest to the smallest, with every kind of SDE."""


@dataclass(frozen=True)
class Checkpoint:
    """What a file holds, on the CPU and under score_sde's names, without what all of them begin with."""

    raw: dict[str, Tensor]
    """The last weights, random frequencies included."""
    ema: dict[str, Tensor]
    """The averaged weights under the same names."""
    sigmas: Tensor | None
    """Noise levels, falling; None in files that do not have them."""
    step: int
    decay: float | None
    """Decay of the averages, where the file says it."""


def read_checkpoint(path: Path | str) -> Checkpoint:
    """Return what a file holds.

    Raises CheckpointError, one sentence, where the file cannot be read, is no such checkpoint, has averages
    that do not fit its weights, or names any class but `argparse.Namespace`; that class is then never
    imported, let alone called.
    """
    path = Path(path)
    content = read_pickle(path, "score_sde_pytorch", argparse.Namespace)
    if isinstance(content, Mapping) and {"args", "vae_state_dict"} <= content.keys():
        raise CheckpointError(
            f"{shown(str(path))} is a checkpoint of LSGM's authors; `lsgm import nvlabs` takes it"
        )
    held = content.keys() if isinstance(content, Mapping) else ()
    if missing := [f"'{key}'" for key in ("model", "ema", "step") if key not in held]:
        *others, last = missing
        raise _other(path, f"it has no {', '.join(others)}{' and ' if others else ''}{last}")
    step = count_of(content["step"])
    if step is None:
        raise _other(path, "its 'step' is not a count")
    raw = weights_of(content["model"] or {}, "model", _otherwise(path))
    sigmas = raw.pop(LEVELS, None)
    ema = content["ema"]
    if not isinstance(ema, Mapping) or not isinstance(ema.get("shadow_params"), (list, tuple)):
        raise _other(path, "its 'ema' has no list 'shadow_params'")
    decay = ema.get("decay")
    return Checkpoint(
        raw,
        _averages(ema["shadow_params"], raw, path),
        sigmas,
        step,
        decay if isinstance(decay, float) and 0 <= decay <= 1 else None,
    )


def _averages(shadow: Any, raw: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Return the averages by name: they have none, and stand in the order of the trained parameters.

    A state dict lists the parameters in that very order. Untrained frequencies are their own average.
    """
    names = list(raw)
    if len(shadow) == len(names) - 1 and FREQUENCIES in raw:
        names.remove(FREQUENCIES)
    if len(shadow) != len(names):
        raise _other(path, f"its 'ema' averages {len(shadow)} tensors and its 'model' has {len(names)}")
    ema = {FREQUENCIES: raw[FREQUENCIES]} if FREQUENCIES in raw else {}
    for name, average in zip(names, shadow, strict=True):
        average = plain_tensor(average, f"the average of '{named(name)}'", _otherwise(path))
        if average.shape != raw[name].shape:
            found, wanted = list(average.shape), list(raw[name].shape)
            raise _other(path, f"the average of '{named(name)}' is {found} and the tensor {wanted}")
        ema[name] = average.detach()
    return ema


def _otherwise(path: Path) -> Callable[[str], CheckpointError]:
    return lambda what: _other(path, what)


def _other(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{shown(str(path))} is not a checkpoint of score_sde_pytorch: {what}; give one with optimizer, "
        "model, ema and step"
    )
