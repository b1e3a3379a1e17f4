"""The VAE's stages: latents and log q of every group, the decoder's output, likelihood, mean image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lsgm.conformance.folder import Golden, numbered
from lsgm.conformance.model import Model, levels_of, noise_of
from lsgm.conformance.stages import Allowance, Family
from lsgm.pixels import pixel_distribution
from lsgm.vae import sum_per_sample

__all__ = ["DECODE", "VAE_EVAL"]

BINNED = ("mixture", "logistic")
"""Decoders whose pixels are bins of a continuous density."""

BINS = 1e-5
"""Share of an image's nats that its improbable bins may differ by: few pixels of a trained model have any,
and width times density, relative to a bin's probability, errs by (width / scale)^2 / 24, a few hundredths."""


def _vae_eval(golden: Golden, model: Model, names: Sequence[str]) -> Mapping[str, Tensor]:
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


def _bins(golden: Golden, model: Model, stage: str) -> Allowance | None:
    """Return what exact bins change of the likelihood of a trained mixture of logistics."""
    if stage != "vae_eval/recon_nll" or not golden.original or model.vae.decoder_name not in BINNED:
        return None
    return Allowance(
        BINS * float(golden.tensors[stage].abs().max()),
        "bins of less than 1e-5 have their probability here, where the authors' code takes the density",
    )


def _decode(golden: Golden, model: Model, names: Sequence[str]) -> Mapping[str, Tensor]:
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
