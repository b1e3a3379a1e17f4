"""The prior's stages on one fixed draw of z_t: diffusion, network, mixed prediction, probability flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lsgm.conformance.folder import Golden
from lsgm.conformance.model import Model
from lsgm.conformance.stages import CannotRunError, Family
from lsgm.objective import diffuse
from lsgm.score import ScoreModel

__all__ = ["PRIOR", "column", "prior_of"]


def column(values: Tensor) -> Tensor:
    """Return one number per sample as the folder keeps it: [B] -> [B, 1, 1, 1]."""
    return values.reshape(-1, 1, 1, 1)


def prior_of(model: Model) -> ScoreModel:
    """Return the prior; raises CannotRunError where the checkpoint is of a VAE alone."""
    if model.prior is None:
        raise CannotRunError("the checkpoint holds no prior")
    return model.prior


def _prior(golden: Golden, model: Model, names: Sequence[str]) -> Mapping[str, Tensor]:
    prior = prior_of(model).eval()
    shape = model.vae.groups.z_0
    z_0, noise = (golden.take_shaped(f"prior/{name}", names[0], shape) for name in ("z0", "noise"))
    t = golden.take_shaped("prior/t", names[0], ())
    with torch.no_grad():
        z_t = diffuse(prior.sde, z_0, t, noise).z_t
        return {
            "prior/var_t": column(prior.sde.var(t)),
            "prior/mean_coef": column(prior.sde.mean(t)),
            "prior/z_t": z_t,
            "prior/network_output": prior.network(z_t * prior.active if prior.has_normal_part else z_t, t),
            "prior/eps_prediction": prior.eps(z_t, t),
            "prior/ode_drift": prior.drift(z_t, t),
        }


PRIOR = Family(lambda name: name.startswith("prior/"), _prior)
