"""The prior's stages on one fixed draw of z_t: diffusion, network, mixed prediction, probability flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lsgm.conformance.folder import Golden
from lsgm.conformance.model import Model
from lsgm.conformance.stages import Allowance, CannotRunError, Family
from lsgm.objective import diffuse
from lsgm.score import DEAD_LOGIT, ScoreModel

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
    z_0, t, noise = _draw(golden, model, names[0])
    with torch.no_grad():
        z_t = diffuse(prior.sde, z_0, t, noise).z_t
        values = {
            "prior/var_t": column(prior.sde.var(t)),
            "prior/mean_coef": column(prior.sde.mean(t)),
            "prior/z_t": z_t,
            **_predictions("prior", prior, z_t, t),
        }
        for weights, variant in model.variants.items():
            values |= _predictions(f"prior/{weights}", variant, z_t, t)
    if "raw_masked" in model.variants:
        values["prior/is_active"] = model.variants["raw_masked"].active.flatten()
    return values


def _draw(golden: Golden, model: Model, result: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return z_0, the times and the noise of the folder's one diffusion."""
    shape = model.vae.groups.z_0
    z_0, noise = (golden.take_shaped(f"prior/{name}", result, shape) for name in ("z0", "noise"))
    return z_0, golden.take_shaped("prior/t", result, ()), noise


def _predictions(prefix: str, prior: ScoreModel, z_t: Tensor, t: Tensor) -> dict[str, Tensor]:
    return {
        f"{prefix}/network_output": prior.network(z_t * prior.active if prior.has_normal_part else z_t, t),
        f"{prefix}/eps_prediction": prior.eps(z_t, t),
        f"{prefix}/ode_drift": prior.drift(z_t, t),
    }


def _pinned(golden: Golden, model: Model, stage: str) -> Allowance | None:
    """Return what a dropped channel's share of sigmoid(-15) changes where the file has another logit.

    With a share a + d in place of a, eps moves by d (NN - c z_t), and dz/dt by g^2 / (2 sigma_t) times that.
    """
    weights, _, name = stage.removeprefix("prior/").partition("/")
    prior = model.variants.get(weights)
    if prior is None or prior.logit is None or name not in ("eps_prediction", "ode_drift"):
        return None
    dropped = ~prior.active
    if not dropped.any():
        return None
    z_0, t, noise = _draw(golden, model, stage)
    with torch.no_grad():
        z_t = diffuse(prior.sde, z_0, t, noise).z_t
        share = torch.sigmoid(prior.logit) - torch.sigmoid(torch.full_like(prior.logit, DEAD_LOGIT))
        normal = column(prior.sde.unit_eps_coef(t)) * z_t
        moved = dropped * share * (prior.network(z_t * prior.active, t) - normal)
        if name == "ode_drift":
            moved = column(prior.sde.g2(t) / (2 * prior.sde.sigma(t))) * moved
    logits = ", ".join(sorted({f"{value:.2f}" for value in prior.logit.detach()[dropped].tolist()}))
    return Allowance(
        float(moved.abs().max()),
        f"a dropped channel's logit is pinned at {DEAD_LOGIT:g} here, where the file says {logits}",
    )


PRIOR = Family(lambda name: name.startswith("prior/"), _prior, by_design=_pinned)
