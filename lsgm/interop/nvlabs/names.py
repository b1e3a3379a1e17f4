"""The arguments of the authors' code by name: those that say what the model is, and those that do not.

A name in neither list is refused, since nobody can tell what it changes.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from lsgm.errors import CheckpointError, did_you_mean
from lsgm.interop.nvlabs.schema import OfficialArguments
from lsgm.interop.taken import named

__all__ = ["IGNORED", "TRANSLATED", "check_names", "ignored"]

TRANSLATED = frozenset(field.name for field in fields(OfficialArguments))
"""Arguments that a recipe says too."""

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
    if needed := sorted(TRANSLATED.intersection(allowed)):
        raise CheckpointError(
            f"--ignore names '{needed[0]}', which says what the model is or how it was trained and cannot "
            "be left aside; name arguments that are not known here"
        )
    unknown = [named(name) for name in sorted(set(args) - TRANSLATED - IGNORED.keys() - set(allowed))]
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
