"""The arguments of the authors' code by name: those that say what the model is, and those that do not.

A name in neither list is refused, since nobody can tell what it changes.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from lsgm.errors import CheckpointError, did_you_mean
from lsgm.interop.taken import brief, named
from lsgm.structure import LARGEST

__all__ = ["IGNORED", "TRANSLATED", "Arguments", "check_names", "ignored"]

T = TypeVar("T")

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
        for name, reader in TRANSLATED.items():
            if self.values.get(name) is not None:
                getattr(self, reader)(name)

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
