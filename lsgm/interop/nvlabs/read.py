"""Read a checkpoint of the authors' code without executing anything in it, and tell which kind it is.

These files are pickles. `pickled` finds tensors, containers and numbers in them and nothing else;
`argparse.Namespace`, in which the arguments lie, is the one class that it is allowed besides.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from lsgm.errors import CheckpointError
from lsgm.files.names import shown
from lsgm.interop.nvlabs.schema import Arguments
from lsgm.interop.taken import brief, count_of, named, plain_tensor, weights_of
from lsgm.pickled.foreign import read_pickle

__all__ = ["STEM", "Official", "Rule", "official_of", "read_checkpoint"]

Kind = Literal["raw", "last", "averaged", "vae"]
Rule = Literal["adam", "adamw"]

STEM = "all_modules.2.weight"
"""The convolution through which z_t enters the score network."""

RESUMED = frozenset(
    f"{part}_{kept}" for part in ("dae", "vae") for kept in ("scheduler", "optimizer", "sn_calculator")
) | {"grad_scalar"}
"""What only files to go on from have."""

FREQUENCIES = "temb_fun.w"
"""The one tensor of the score network that is not trained."""


@dataclass(frozen=True)
class Official:
    """What one of the authors' files holds, all tensors on the CPU and under the authors' names."""

    args: dict[str, Any]
    """The arguments that the model was trained with."""
    vae: dict[str, Tensor]
    """The VAE's state dict; it is never averaged."""
    prior: dict[str, Tensor] | None
    """The score prior's state dict; none in a file of stage 1."""
    kind: Kind
    """raw: the last weights, with the averaged ones in the optimiser's state (checkpoint.pt); averaged: the
    averaged weights alone (checkpoint_fid.pt, checkpoint_nll.pt); last: a checkpoint.pt without its
    optimiser, which had the averaged weights; vae: stage 1, without a prior."""
    ema: dict[str, Tensor] | None
    """With raw: the prior's averaged weights."""
    epoch: int
    step: int
    rule: Rule | None = None
    """Which Adam stepped stage 2, where the file says it: adam adds weight decay to the gradient (torch's),
    adamw decouples it (apex's, which the authors' code takes where there is one)."""
    second_moment: Tensor | None = None
    """With raw: Adam's average of the squared gradients of `STEM`."""


def read_checkpoint(path: Path | str) -> Official:
    """Return what a file holds; its kind is told by its content, never by its name.

    Raises CheckpointError, one sentence, where the file cannot be read, is no such checkpoint, or names any
    class but `argparse.Namespace`; that class is then never imported, let alone called.
    """
    path = Path(path)
    content = read_pickle(path, "the authors' code", argparse.Namespace)
    if not isinstance(content, Mapping):
        raise _other(path, "it holds no table of state dicts")
    return official_of(content, path)


def official_of(content: Mapping[str, Any], path: Path) -> Official:
    """Sort the parts of a checkpoint that is already in memory; ``path`` is the file to name."""
    if {"model", "ema"} <= content.keys():
        raise CheckpointError(
            f"{shown(str(path))} is a checkpoint of score_sde_pytorch; `lsgm import score-sde` takes it "
            "with --config"
        )
    args = content.get("args")
    if not isinstance(args, argparse.Namespace):
        raise _other(path, "it has no 'args'" if args is None else "its 'args' are not a Namespace")
    names = vars(args)
    Arguments(names).check()
    epoch, step = (_count(content, key, path) for key in ("epoch", "global_step"))
    if own := _stage_1(content):
        return Official(names, _tensors(content, own, path), None, "vae", None, epoch, step)
    vae, prior = _tensors(content, "vae_state_dict", path), _tensors(content, "dae_state_dict", path)
    rule = _rule(content.get("dae_optimizer")) or _rule(content.get("vae_optimizer"))
    if content.get("dae_optimizer") is None:
        # Their files of averaged weights say nothing of the training's state.
        kind: Kind = "averaged" if RESUMED.isdisjoint(content) else "last"
        return Official(names, vae, prior, kind, None, epoch, step, rule)
    state = _state(content["dae_optimizer"], prior, path)
    ema = _averages(state, prior, Arguments(names).number("ema_decay", 1.0), path)
    moment = state.get(STEM, {}).get("exp_avg_sq")
    if moment is not None:
        moment = plain_tensor(
            moment, f"the second moment of '{STEM}' in its 'dae_optimizer'", _otherwise(path)
        )
    fits = moment is not None and moment.is_floating_point() and moment.shape == prior[STEM].shape
    return Official(names, vae, prior, "raw", ema, epoch, step, rule, moment if fits else None)


def _stage_1(content: Mapping[str, Any]) -> str:
    """Return where a file of stage 1 keeps the VAE, empty where it is none; theirs is the first."""
    if "dae_state_dict" in content or "dae_optimizer" in content:
        return ""
    return next((key for key in ("vae_state_dict", "state_dict") if key in content), "")


def _rule(optimizer: Any) -> Rule | None:
    """Return which Adam an optimiser's state is of, told by what its group keeps; None where of neither.

    Apex's FusedAdam keeps `bias_correction`, and decouples weight decay unless asked not to, as the authors'
    code never does. torch's Adam and AdamW keep `amsgrad`; newer ones say which of the two they are.
    """
    group = next(iter(_part(optimizer, "param_groups", list) or ()), None)
    if not isinstance(group, Mapping):
        return None
    if "amsgrad" in group:
        return "adamw" if group.get("decoupled_weight_decay", False) is True else "adam"
    return "adamw" if "bias_correction" in group else None


def _state(optimizer: Any, prior: Mapping[str, Tensor], path: Path) -> dict[str, Mapping[str, Any]]:
    """Return an optimiser's state by the names of what it steps: entry i belongs to the i-th parameter.

    The score network's state dict lists its parameters in that very order. What is never trained has none.
    """
    groups, entries = (
        _part(optimizer, part, kind) for part, kind in (("param_groups", list), ("state", dict))
    )
    lists = [_part(group, "params", list) for group in groups or ()]
    if groups is None or entries is None or None in lists:
        raise _other(path, "its 'dae_optimizer' is not the state of an optimiser")
    indices = [index for listed in lists for index in listed]
    if not all(type(index) is int for index in (*indices, *entries)) or len(set(indices)) < len(indices):
        raise _other(path, "its 'dae_optimizer' does not number what it steps, each tensor once")
    if not all(isinstance(entry, Mapping) for entry in entries.values()):
        raise _other(path, "its 'dae_optimizer' has a state that is no table")
    names = list(prior)
    if len(indices) == len(names) - 1 and FREQUENCIES in prior:
        names.remove(FREQUENCIES)
    if len(indices) != len(names):
        raise _other(
            path, f"its 'dae_optimizer' steps {len(indices)} tensors and 'dae_state_dict' has {len(prior)}"
        )
    return {name: entries[index] for index, name in zip(indices, names, strict=True) if index in entries}


def _part(table: Any, name: str, kind: type) -> Any:
    """Return a part of a table, None where it has none of that kind."""
    part = table.get(name) if isinstance(table, Mapping) else None
    return part if isinstance(part, kind) else None


def _averages(
    state: Mapping[str, Mapping[str, Any]], prior: Mapping[str, Tensor], decay: float, path: Path
) -> dict[str, Tensor] | None:
    """Return the averaged weights in an optimiser's state.

    The frequencies of a Fourier embedding are never trained: with or without an entry, they are their own
    average.
    """
    if decay <= 0:  # the authors' code then keeps no average
        return None
    ema = {}
    for name, raw in prior.items():
        average = raw if name == FREQUENCIES else state.get(name, {}).get("ema")
        if average is None:
            raise _other(path, f"its 'dae_optimizer' has no averaged weights of '{named(name)}'")
        average = plain_tensor(average, f"the average of '{named(name)}'", _otherwise(path))
        if average.shape != raw.shape:
            found, wanted = list(average.shape), list(raw.shape)
            raise _other(path, f"the average of '{named(name)}' is {found} and the tensor {wanted}")
        ema[name] = average
    return ema


def _tensors(content: Mapping[str, Any], key: str, path: Path) -> dict[str, Tensor]:
    return weights_of(content.get(key), key, _otherwise(path))


def _count(content: Mapping[str, Any], key: str, path: Path) -> int:
    count = count_of(content.get(key, 0))
    if count is None:
        raise _other(path, f"its '{key}' is not a count but {brief(content[key])}")
    return count


def _otherwise(path: Path) -> Callable[[str], CheckpointError]:
    return lambda what: _other(path, what)


def _other(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{shown(str(path))} is not a checkpoint of the authors' code: {what}; give one of theirs"
    )
