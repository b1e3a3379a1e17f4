"""The stages of an LSGM, in the order in which it runs: the VAE, the prior, one step of training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lsgm.conformance import folder
from lsgm.conformance.folder import (
    CHECKPOINT,
    GoldenFolder,
    ReferenceModel,
    levels_of,
    load,
    noise_of,
    numbered,
    read_folder,
)
from lsgm.conformance.stage import Allowance, CannotRunError, Family, Result, Tolerances, examine
from lsgm.discovery import offers
from lsgm.errors import DataError
from lsgm.interop.nvlabs.tables import prior_table, vae_table
from lsgm.nets.config import NVAEConfig
from lsgm.objective.bound import Objective, Times, diffuse
from lsgm.objective.kl import Frozen
from lsgm.pixels import pixel_distribution
from lsgm.score import DEAD_LOGIT, ScoreModel
from lsgm.train.stages import make_objective, make_vae_objective
from lsgm.vae.base import normal_log_prob, sum_per_sample

# The VAE: latents and log q of every group, the decoder's output, likelihood, mean image

BINNED = ("mixture", "logistic")
"""Decoders whose pixels are bins of a continuous density."""

BINS = 1e-5
"""Share of an image's nats that its improbable bins may differ by: few pixels of a trained model have any,
and width times density, relative to a bin's probability, errs by (width / scale)^2 / 24, a few hundredths."""


def _vae_eval(golden: GoldenFolder, model: ReferenceModel, names: Sequence[str]) -> Mapping[str, Tensor]:
    levels = levels_of(golden, model)
    values: dict[str, Tensor] = {}
    with torch.no_grad():
        noise = noise_of(golden, model, "vae_eval/encoder_noise")
        z = list[Tensor]()
        for index, (mean, log_sigma, draw) in enumerate(model.vae.eval().gaussians(levels, noise)):
            found = {"mu": mean, "log_sigma": log_sigma, "z": draw.z, "log_q": draw.log_q}
            values |= {numbered(f"vae_eval/{name}", index): value for name, value in found.items()}
            z.append(draw.z)
        values["vae_eval/decoder_params"] = model.vae.decoder_parameters(tuple(z))
        values["vae_eval/recon_nll"] = -sum_per_sample(model.vae.likelihood(tuple(z)).log_prob(levels))
    return values


def _bins(golden: GoldenFolder, model: ReferenceModel, stage: str) -> Allowance | None:
    """Return what exact bins change of the likelihood of a trained mixture of logistics."""
    if stage != "vae_eval/recon_nll" or not golden.original or model.vae.decoder_name not in BINNED:
        return None
    return Allowance(
        BINS * float(golden.tensors[stage].abs().max()),
        "bins of less than 1e-5 have their probability here, where the authors' code takes the density",
    )


def _decode(golden: GoldenFolder, model: ReferenceModel, names: Sequence[str]) -> Mapping[str, Tensor]:
    """Decode prior/z0, padding included; the scales below take the posterior's samples."""
    groups = model.vae.groups
    z_0 = golden.take_shaped("prior/z0", "decode/image", groups.z_0)
    lower = [
        golden.take_shaped(numbered("vae_eval/z", groups.top + index), "decode/image", shape)
        for index, shape in enumerate(groups.lower)
    ]
    with torch.no_grad():
        parameters = model.vae.eval().decoder_parameters((*groups.split(z_0), *lower))
        image = pixel_distribution(parameters, model.pixels, model.vae.decoder_name).mean()
    return {"decode/image": image}


VAE_EVAL = Family(
    lambda name: name.startswith("vae_eval/"),
    _vae_eval,
    cropped=("vae_eval/decoder_params",),
    by_design=_bins,
)
DECODE = Family(lambda name: name.startswith("decode/"), _decode, cropped=("decode/image",))


# The prior's stages on one fixed draw of z_t: diffusion, network, mixed prediction, probability flow


def column(values: Tensor) -> Tensor:
    """Return one number per sample as the folder keeps it: [B] -> [B, 1, 1, 1]."""
    return values.reshape(-1, 1, 1, 1)


def prior_of(model: ReferenceModel) -> ScoreModel:
    """Return the prior; raises CannotRunError where the checkpoint is of a VAE alone."""
    if model.prior is None:
        raise CannotRunError("the checkpoint holds no prior")
    return model.prior


def _prior(golden: GoldenFolder, model: ReferenceModel, names: Sequence[str]) -> Mapping[str, Tensor]:
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


def _draw(golden: GoldenFolder, model: ReferenceModel, result: str) -> tuple[Tensor, Tensor, Tensor]:
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


def _pinned(golden: GoldenFolder, model: ReferenceModel, stage: str) -> Allowance | None:
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


# One joint training step: its times and weights, the averages it reports, the gradients it hands out

_VAE, _PRIOR = "step/grad/vae/", "step/grad/prior/"
_TIMES = [f"step/{name}" for name in ("t", "t_q", "var_t", "mean_coef", "g2_t", "weight_p", "weight_q")]
_AVERAGES = [f"step/{name}" for name in folder.AVERAGES]


@dataclass(frozen=True)
class _Half:
    """The diffusion of one of the two objectives: its times, and the noise of z_t."""

    objective: Objective
    times: Times
    drawn: Times
    """The times and weights that this package draws itself."""
    noise: Tensor


def _times(golden: GoldenFolder, model: ReferenceModel, names: Sequence[str]) -> Mapping[str, Tensor]:
    """Return the times and the weights that this package draws from the folder's rho."""
    prior = prior_of(model)
    for_prior, for_vae = _halves(golden, model, prior, names[0])
    t, sde = for_prior.drawn.t, prior.sde
    values = {
        "step/t": t,
        "step/var_t": column(sde.var(t)),
        "step/mean_coef": column(sde.mean(t)),
        "step/g2_t": column(sde.g2(t)),
        "step/weight_p": column(for_prior.drawn.w_p),
        "step/weight_q": column(for_vae.drawn.w_q),
    }
    return values if for_vae is for_prior else values | {"step/t_q": for_vae.drawn.t}


def _averages(golden: GoldenFolder, model: ReferenceModel, names: Sequence[str]) -> Mapping[str, Tensor]:
    with torch.no_grad():
        return _forward(golden, model, prior_of(model), names[0])[1]


def _gradients(golden: GoldenFolder, model: ReferenceModel, names: Sequence[str]) -> Mapping[str, Tensor]:
    """Return all gradients under the names of the folder; those of several tensors under all their names."""
    prior = prior_of(model)
    model.vae.zero_grad()
    prior.zero_grad()
    _forward(golden, model, prior, names[0])[0].backward()  # type: ignore[no-untyped-call]
    vae, own = _grads(model.vae), _grads(prior)
    config = model.recipe.vae
    assert isinstance(config, NVAEConfig)
    found = {_VAE + theirs: vae[ours] for theirs, ours in vae_table(config).items() if ours in vae}
    table = prior_table(prior.network)
    found |= {_PRIOR + ", ".join(theirs): own[ours] for ours, (theirs, _) in table.items() if ours in own}
    return found


def _translate(
    golden: GoldenFolder, model: ReferenceModel, theirs: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Put the prior's golden gradients into the layout of this package, which the table maps linearly to."""
    left = dict(theirs)
    for names, assemble in prior_table(prior_of(model).network).values():
        keys = [_PRIOR + name for name in names]
        if all(key in left for key in keys):
            left[_PRIOR + ", ".join(names)] = assemble([left.pop(key) for key in keys])
    return left


def _forward(
    golden: GoldenFolder, model: ReferenceModel, prior: ScoreModel, result: str
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Run the step as training does; return what is differentiated, and the averages by name."""
    stage = model.recipe.stage2
    k = _kl_coefficient(golden, model)
    model.vae.train()
    prior.eval()  # Of its layers only dropout, which is off, would behave otherwise in training.
    with torch.set_grad_enabled(torch.is_grad_enabled() and stage.train_vae):
        z, log_q, reconstruction = _encode(golden, model)
    groups = model.vae.groups
    z_0 = groups.stack(z)
    lower = [-sum_per_sample(normal_log_prob(z_l)) for z_l in z[groups.top :]]
    entropy = torch.stack([*log_q, *lower]).sum(dim=0)
    halves = _halves(golden, model, prior, result)
    by_channel, objectives = _cross_entropy(prior, z_0, halves, k, train_vae=stage.train_vae)
    channels = [shape[0] for shape in groups.shapes[: groups.top]]
    crossed = [part.sum(dim=1) for part in torch.split(by_channel.detach(), channels, dim=1)]
    kl = torch.stack([q.detach() + p for q, p in zip(log_q, [*crossed, *lower], strict=True)]).mean(dim=1)
    loss = reconstruction + k * entropy + objectives if stage.train_vae else objectives
    averages = {
        "recon": reconstruction.mean(),
        "kl": kl.sum(),
        "kl_per_group": kl,
        "nelbo": reconstruction.mean() + kl.sum(),
        "loss": reconstruction.mean() + k * kl.sum() if stage.train_vae else objectives.mean(),
    }
    return loss.mean(), {f"step/{name}": value.detach() for name, value in averages.items()}


def _encode(
    golden: GoldenFolder, model: ReferenceModel
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...], Tensor]:
    """Return z and log q [B] of every group, and -log p(x | z) [B]."""
    levels = levels_of(golden, model)
    z, log_q = model.vae.posterior(levels, noise_of(golden, model, "step/encoder_noise"))
    return z, log_q, -sum_per_sample(model.vae.likelihood(z).log_prob(levels))


def _cross_entropy(
    prior: ScoreModel, z_0: Tensor, halves: tuple[_Half, _Half], k: float, *, train_vae: bool
) -> tuple[Tensor, Tensor]:
    """Return the cross entropy by channels [B, C], and what to differentiate for both objectives [B].

    Where both share their times that is the surrogate of one backward pass; elsewhere two halves, the VAE's
    through a prior whose parameters learn nothing from it. With a frozen VAE the prior's loss is left.
    """
    for_prior, for_vae = halves
    if for_vae is for_prior and train_vae:
        ce = for_prior.objective.cross_entropy(prior, z_0, for_prior.times, for_prior.noise, kl_weight=k)
        return ce.by_channel, ce.surrogate
    twin = Frozen(prior).twin()
    by_channel = for_vae.objective.vae_loss(twin, z_0, for_vae.times, for_vae.noise)
    score_loss = for_prior.objective.prior_loss(prior, z_0, for_prior.times, for_prior.noise)
    return by_channel, k * by_channel.sum(dim=1) + score_loss if train_vae else score_loss


def _kl_coefficient(golden: GoldenFolder, model: ReferenceModel) -> float:
    """Return k at the share of the stage that was done; raises CannotRunError where the step needs more."""
    step, total = golden.step.global_step, golden.step.num_total_iter
    if step is None or total is None or total < 1:
        raise CannotRunError("meta.json does not say at which global_step of num_total_iter the step was")
    stage = model.recipe.stage2
    k = stage.kl.at(step / total)
    if stage.kl.balance and k < 1:
        raise CannotRunError("the groups are balanced while k < 1, which one backward pass cannot do")
    if stage.ema_prior:
        raise CannotRunError("the VAE's objective takes an averaged prior, which the folder does not hold")
    return k


def _halves(
    golden: GoldenFolder, model: ReferenceModel, prior: ScoreModel, result: str
) -> tuple[_Half, _Half]:
    """Return the prior's half and the VAE's, one object where the VAE's times are the prior's.

    A second set of times is `step/rho_q` and, where it has noise of its own, `step/diffusion_noise_q`.
    """
    stage, shape = model.recipe.stage2, model.vae.groups.z_0
    objective = make_objective(model.recipe.prior.objective, prior)
    second = make_vae_objective(model.recipe.prior.objective, stage, prior)
    rho = golden.take_shaped("step/rho", result, ())
    noise = golden.take_shaped("step/diffusion_noise", result, shape)
    drawn = objective.draw(rho)
    if second is None:
        half = _Half(objective, _stored(golden, drawn, "t"), drawn, noise)
        return half, half
    for name in ("step/rho_q", *(["step/diffusion_noise_q"] if stage.vae_times == "disjoint" else [])):
        if name not in golden.tensors:
            raise CannotRunError(f"the VAE's objective has times of its own, and the folder holds no {name}")
    drawn_q = second.draw(golden.take_shaped("step/rho_q", result, ()))
    own = stage.vae_times == "disjoint"
    noise_q = golden.take_shaped("step/diffusion_noise_q", result, shape) if own else noise
    return (
        _Half(objective, _stored(golden, drawn, "t"), drawn, noise),
        _Half(second, _stored(golden, drawn_q, "t_q"), drawn_q, noise_q),
    )


def _stored(golden: GoldenFolder, drawn: Times, t: str) -> Times:
    """Return the folder's times and weights where it holds them, else our own."""
    held = golden.tensors
    found = []
    for name, own in zip((t, "weight_p", "weight_q"), drawn, strict=True):
        value = held.get(f"step/{name}", own)
        if value.numel() != own.numel():
            raise DataError(
                f"{golden.path / golden.values}: step/{name} has the shape {list(value.shape)}, and there "
                f"are {own.numel()} times; the two do not belong together"
            )
        found.append(value.reshape(own.shape))
    return Times(*found)


def _grads(module: nn.Module) -> dict[str, Tensor]:
    return {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in module.named_parameters()}


TIMES = Family(lambda name: name in _TIMES, _times)
AVERAGES = Family(lambda name: name in _AVERAGES, _averages)
GRADIENTS = Family(
    lambda name: name.startswith((_VAE, _PRIOR)), _gradients, gradients=True, translate=_translate
)


# The stages in the order in which a model runs, and the run itself

FAMILIES = (VAE_EVAL, PRIOR, DECODE, TIMES, AVERAGES, GRADIENTS)
"""Eval mode first: the training step moves the running statistics of batch normalisation."""


def conform_folder(folder: Path, tolerances: Tolerances) -> list[Result]:
    """Compare the model in a folder with the values beside it.

    A folder without `checkpoint.pt` is offered to the other importers: a module of the entry-point group
    ``lsgm.importers`` may have ``CHECKPOINT: str``, its file's name, and ``conform(folder, tolerances)``.
    Raises UserError, one sentence, where the folder is of none of them, incomplete or damaged.
    """
    if not os.path.lexists(folder / CHECKPOINT):
        for point in offers("lsgm.importers").values():
            importer = point.load()
            name = getattr(importer, "CHECKPOINT", None)
            if name is not None and os.path.lexists(folder / name):
                results: list[Result] = importer.conform(folder, tolerances)
                return results
    return conform(read_folder(folder), tolerances)


def conform(golden: GoldenFolder, tolerances: Tolerances) -> list[Result]:
    """Compare a folder's model with its values; raises UserError where they do not belong together."""
    return examine(golden, load(golden), FAMILIES, tolerances)
