"""Read a checkpoint of the authors' code without executing anything in it, and tell which kind it is.

These files are pickles. `pickled` finds tensors, containers and numbers in them and nothing else;
`argparse.Namespace`, in which the arguments lie, is the one class that it is allowed besides. Some arguments
say what the model is, and some do not; one of neither kind is refused, since nobody can tell what it changes.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from torch import Tensor

from lsgm.errors import CheckpointError, did_you_mean
from lsgm.files.names import shown
from lsgm.interop.taken import brief, count_of, named, plain_tensor, weights_of
from lsgm.pickled.foreign import read_pickle
from lsgm.structure import LARGEST

T = TypeVar("T")

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
    other, args = partial(_other, path), content.get("args")
    if not isinstance(args, argparse.Namespace):
        raise _other(path, "it has no 'args'" if args is None else "its 'args' are not a Namespace")
    names = vars(args)
    Arguments(names).check()
    epoch, step = (_count(content, key, path) for key in ("epoch", "global_step"))
    if own := _stage_1(content):
        vae = weights_of(content.get(own), own, other)
        return Official(names, vae, None, "vae", None, epoch, step)
    vae, prior = (weights_of(content.get(key), key, other) for key in ("vae_state_dict", "dae_state_dict"))
    rule = _rule(content.get("dae_optimizer")) or _rule(content.get("vae_optimizer"))
    if content.get("dae_optimizer") is None:
        # Their files of averaged weights say nothing of the training's state.
        kind: Kind = "averaged" if RESUMED.isdisjoint(content) else "last"
        return Official(names, vae, prior, kind, None, epoch, step, rule)
    state = _state(content["dae_optimizer"], prior, path)
    ema = _averages(state, prior, Arguments(names).number("ema_decay", 1.0), path)
    moment = state.get(STEM, {}).get("exp_avg_sq")
    if moment is not None:
        moment = plain_tensor(moment, f"the second moment of '{STEM}' in its 'dae_optimizer'", other)
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
        average = plain_tensor(average, f"the average of '{named(name)}'", partial(_other, path))
        if average.shape != raw.shape:
            found, wanted = list(average.shape), list(raw.shape)
            raise _other(path, f"the average of '{named(name)}' is {found} and the tensor {wanted}")
        ema[name] = average
    return ema


def _count(content: Mapping[str, Any], key: str, path: Path) -> int:
    count = count_of(content.get(key, 0))
    if count is None:
        raise _other(path, f"its '{key}' is not a count but {brief(content[key])}")
    return count


def _other(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{shown(str(path))} is not a checkpoint of the authors' code: {what}; give one of theirs"
    )


# The arguments by name

LONGEST = 64
"""Entries of an argument that is a list: one for each resolution."""


@dataclass(frozen=True)
class Arguments:
    """Arguments by name. All methods raise CheckpointError, one sentence that names the argument."""

    values: Mapping[str, Any]

    def check(self) -> None:
        """Raise CheckpointError for an argument of another type than the authors' parser gives it.

        So too for one that a model of these arguments never looks at.
        """
        readers: dict[str, Callable[[str], object]] = {
            "text": self.text,
            "whole": self.whole,
            "flag": self.flag,
            "number": self.number,
            "wholes": self.wholes,
        }
        for name, reader in TRANSLATED.items():
            if self.values.get(name) is not None:
                readers[reader](name)

    def whole(self, name: str, default: int | None = None) -> int:
        """Return a whole number; ``default`` stands for an argument that older files lack."""
        value = self._get(name, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or abs(value) > LARGEST:
            raise self._refused(name, value, "a whole number of at most 63 bits")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Return a finite number."""
        value = self._get(name, default)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not abs(value) <= sys.float_info.max:  # also what is no number, or too large for one
            raise self._refused(name, value, "a finite number")
        return float(value)

    def flag(self, name: str, default: bool | None = None) -> bool:
        """Return a truth value."""
        value = self._get(name, default)
        if not isinstance(value, bool):
            raise self._refused(name, value, "True or False")
        return value

    def text(self, name: str) -> str:
        """Return a word."""
        value = self._get(name, None)
        if not isinstance(value, str):
            raise self._refused(name, value, "a word")
        return value

    def wholes(self, name: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """Return a list of whole numbers."""
        value = self._get(name, default)
        listed = isinstance(value, (list, tuple)) and len(value) <= LONGEST
        if not listed or not all(type(item) is int and abs(item) <= LARGEST for item in value):
            raise self._refused(name, value, "a list of whole numbers")
        return tuple(value)

    def choice(self, name: str, table: Mapping[str, T], default: str | None = None) -> T:
        """Return what a table says of the argument's value."""
        value = self._get(name, default)
        if not isinstance(value, str) or value not in table:
            hint = did_you_mean(value[:80], table) if isinstance(value, str) else ""
            raise self._refused(name, value, "one of " + ", ".join(table) + hint.removesuffix("?"))
        return table[value]

    def _get(self, name: str, default: Any) -> Any:
        if name in self.values:
            return self.values[name]
        if default is None:
            raise CheckpointError(
                f"the checkpoint's arguments lack '{name}', without which its model is not known; "
                "give the file as the authors' code wrote it"
            )
        return default

    @staticmethod
    def _refused(name: str, value: Any, wanted: str) -> CheckpointError:
        return CheckpointError(
            f"the checkpoint's argument '{name}' is {brief(value)}, and only {wanted} can be imported; "
            "its model cannot be built here"
        )


_TYPES: dict[str, str] = {
    "text": (
        "dataset decoder_dist arch_instance progressive_input_vae progressive_output_vae dae_arch "
        "embedding_type progressive progressive_input progressive_combine sde_type iw_sample_p iw_sample_q"
    ),
    "whole": (
        "num_x_bits seed num_nf num_latent_scales num_groups_per_scale num_latent_per_group "
        "num_channels_enc num_channels_dec num_preprocess_blocks num_preprocess_cells "
        "num_postprocess_blocks num_postprocess_cells num_cell_per_cond_enc num_cell_per_cond_dec "
        "num_channels_dae num_scales_dae num_cell_per_scale_dae embedding_dim epochs warmup_epochs "
        "batch_size num_proc_node num_process_per_node"
    ),
    "flag": (
        "use_se fir mixed_prediction drop_inactive_var train_vae disjoint_training update_q_ema "
        "autocast_train custom_conv_dae cont_kl_anneal kl_balance_vada weight_decay_norm_anneal"
    ),
    "number": (
        "log_sig_q_scale embedding_scale dropout mixing_logit_init beta_start beta_end sigma2_0 "
        "sigma2_min sigma2_max time_eps grad_clip_max_norm learning_rate_vae learning_rate_min_vae "
        "learning_rate_dae learning_rate_min_dae weight_decay ema_decay weight_decay_norm_vae "
        "weight_decay_norm_dae kl_anneal_portion_vada kl_const_portion_vada kl_const_coeff_vada "
        "kl_max_coeff_vada weight_decay_norm weight_decay_norm_init kl_anneal_portion kl_const_portion "
        "kl_const_coeff kl_max_coeff"
    ),
    "wholes": "channel_mult",
}
"""Reader of `Arguments` -> the arguments that the authors' parser gives such values."""

TRANSLATED: dict[str, str] = {name: reader for reader, names in _TYPES.items() for name in names.split()}
"""Arguments that a recipe says too, each with its reader; older files, and those of one stage, lack some."""

_REASONS = {
    "it names a place on the authors' machines": "root save data fid_dir vae_checkpoint vada_checkpoint",
    "it says how the run was started or went on": (
        "cont_training discard_vae_weights discard_dae_weights skip_final_eval distributed node_rank "
        "local_rank global_rank master_address num_total_iter"
    ),
    "it is a setting of evaluation, which `lsgm sample` and `lsgm eval` ask for anew": (
        "train_ode_eps train_ode_solver_tol eval_ode_eps eval_ode_solver_tol no_autograd_jvp autocast_eval "
        "diffusion_steps denoising_stddevs"
    ),
    "the authors' code parses it and never looks at it": "vpsde_power apply_sqrt2_res arch_instance_dae",
    "older versions of their code trained with it; the model is the same": "latent_grad_cutoff",
    "the sub-VP SDE here always draws its times like that": "iw_subvp_like_vp_sde",
}

IGNORED: dict[str, str] = {name: reason for reason, names in _REASONS.items() for name in names.split()}
"""Arguments that change nothing about the model or its objective, each with the reason."""


MOST = 40
"""Unknown arguments that are named; a file with more is another code's."""


def check_names(args: Iterable[str], allowed: Iterable[str] = ()) -> None:
    """Raise CheckpointError naming the arguments in neither list, unless the caller has allowed them."""
    if needed := sorted(TRANSLATED.keys() & set(allowed)):
        raise CheckpointError(
            f"--ignore names '{needed[0]}', which says what the model is or how it was trained and cannot "
            "be left aside; name arguments that are not known here"
        )
    unknown = [named(name) for name in sorted(set(args) - TRANSLATED.keys() - IGNORED.keys() - set(allowed))]
    if len(unknown) > MOST:
        raise CheckpointError(
            f"the checkpoint was trained with {len(unknown)} arguments that are not known here, "
            f"'{unknown[0]}' among them; give a file as the authors' code wrote it"
        )
    if len(unknown) > 1:
        names, asked = ", ".join(f"'{name}'" for name in unknown), " ".join(map(shlex.quote, unknown))
        raise CheckpointError(
            f"the checkpoint was trained with the arguments {names}, which are not known here; "
            f"`--ignore {asked}` leaves them aside if you know that they change nothing"
        )
    for name in unknown:
        hint = did_you_mean(name[:80], TRANSLATED)
        raise CheckpointError(
            f"the checkpoint was trained with the argument '{name}', which is not known here{hint or ';'} "
            f"`--ignore {shlex.quote(name)}` leaves it aside if you know that it changes nothing"
        )


def ignored(args: Mapping[str, Any], allowed: Iterable[str] = ()) -> dict[str, str]:
    """Return the arguments that were left aside, each with the reason."""
    asked = set(allowed)
    reasons = {name: "left aside as asked" if name in asked else IGNORED.get(name, "") for name in args}
    return {name: reasons[name] for name in sorted(reasons) if reasons[name]}
