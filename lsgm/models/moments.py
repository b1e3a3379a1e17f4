"""The moments of a trained model's latents, for checkpoints that were trained before any were kept.

Training keeps running moments (`lsgm.normal.NormalReference`). Here they are those of the averaged weights
over training images, each encoded once: the bound's control variate then compares with the latents' own law.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lsgm.data import load, test_levels
from lsgm.errors import UserError
from lsgm.models.export import rounded, write_folder
from lsgm.models.latent import LSGM
from lsgm.models.load import Opened
from lsgm.models.recalibrate import write_derived
from lsgm.progress import bar
from lsgm.rng import StepNoise
from lsgm.train.checkpoint import WEIGHTS, read_weights
from lsgm.train.derived import refuse_existing

__all__ = ["fit_moments", "training_levels", "write_fitted"]

BATCH = 256
"""Images that are encoded at a time."""
PREFIX = "prior.reference."


def training_levels(opened: Opened, count: int) -> Tensor:
    """Return the levels of ``count`` training images of a checkpoint's dataset, drawn at random, or of all.

    Raises DataError where the dataset is not at hand.
    """
    recipe = opened.recipe
    images = load(recipe.data.dataset, image_size=recipe.data.size, convert=recipe.data.convert)
    return test_levels(images, "train", seed=0, bits=opened.pixels.bits, limit=count)


@torch.no_grad()
def fit_moments(opened: Opened, levels: Tensor, *, seed: int = 0) -> None:
    """Give the prior of an opened checkpoint the moments of its latents over levels, uint8 [N, C, H, W].

    Raises UserError for a model that is no LSGM.
    """
    networks = opened.networks
    if not isinstance(networks, LSGM) or networks.prior.reference is None:
        raise UserError(f"{opened.checkpoint} is no LSGM: there are no latents to take moments of")
    reference = networks.prior.reference
    law = reference.latents()
    mean, square = torch.zeros_like(law.mean), torch.zeros_like(law.mean)
    for index, batch in enumerate(bar(torch.split(levels, BATCH), desc="moments", unit="batch")):
        noise = StepNoise(f"moments/{seed}", index, global_batch=len(batch), device=law.mean.device)
        z = networks.vae.posterior(batch.to(law.mean.device), noise.normal).z
        coefficients = law.rotate(networks.vae.groups.stack(z).double())
        mean += coefficients.sum(dim=0) / len(levels)
        square += coefficients.square().sum(dim=0) / len(levels)
    reference.fit(mean, square)
    reference.seen.fill_(-(-len(levels) // BATCH))


def write_fitted(out: Path, opened: Opened, images: int, argv: Sequence[str]) -> Path:
    """Write the checkpoint with the moments that its networks now have: a run, or an exported folder again.

    What it was made from goes into the checkpoint's meta under ``moments``. Returns the checkpoint. Raises
    CheckpointError where ``out`` exists or cannot be written.
    """
    refuse_existing(out)
    own = {
        PREFIX + name: value
        for name, value in opened.networks.get_submodule("prior.reference").state_dict().items()
    }
    source = {"sha256": opened.state["files"][WEIGHTS["ema"]]["sha256"], "images": images}
    if "exported" not in opened.state:
        return write_derived(out, opened, {"moments": source}, own, argv)
    tensors = {**read_weights(opened.checkpoint, "ema"), **own}
    state = {**opened.state, "meta": {**opened.state["meta"], "moments": source}}
    write_folder(out, state, rounded(tensors, opened.state["exported"]["dtype"]))
    return out
