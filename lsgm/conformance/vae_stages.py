"""The VAE's stages: latents and log q of every group, the decoder's output, likelihood, mean image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lsgm.conformance.folder import Golden, numbered
from lsgm.conformance.model import Model, levels_of, noise_of
from lsgm.conformance.stages import Family
from lsgm.pixels import pixel_distribution
from lsgm.vae import sum_per_sample

__all__ = ["DECODE", "VAE_EVAL"]


def _vae_eval(golden: Golden, model: Model, names: Sequence[str]) -> Mapping[str, Tensor]:
    levels = levels_of(golden, model)
    with torch.no_grad():
        draws = model.vae.eval().encode(levels, noise_of(golden, model, "vae_eval/encoder_noise"))
        z = tuple(draw.z for draw in draws)
        values = {"vae_eval/decoder_params": model.vae.decoder_parameters(z)}
        values["vae_eval/recon_nll"] = -sum_per_sample(model.vae.likelihood(z).log_prob(levels))
    for index, draw in enumerate(draws):
        values[numbered("vae_eval/z", index)] = draw.z
        values[numbered("vae_eval/log_q", index)] = draw.log_q
    return values


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


VAE_EVAL = Family(lambda name: name.startswith("vae_eval/"), _vae_eval, cropped=("vae_eval/decoder_params",))
DECODE = Family(lambda name: name.startswith("decode/"), _decode, cropped=("decode/image",))
