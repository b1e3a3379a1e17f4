"""What a stage wants to know of the training set, mostly of its latents, before its first step.

Every random number here is addressed by the seed and an image's place, so that all processes, and a run that
goes on, find the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from lsgm.data import PixelPipeline, batch_indices, load, test_levels
from lsgm.data.source import on_device
from lsgm.devices import free_bytes
from lsgm.errors import ConfigError, UserError
from lsgm.model.lsgm import LSGM
from lsgm.objective.kl import ACTIVE_NATS, normal_kl
from lsgm.progress import bar
from lsgm.rng import StepNoise
from lsgm.runs.checkpoint import read_weights, weights_file
from lsgm.runs.derived import refuse_existing, write_derived
from lsgm.runs.export import rounded, write_folder
from lsgm.runs.load import OpenedCheckpoint
from lsgm.score import NormalReference
from lsgm.train.stage import Pipeline, TrainingSet
from lsgm.vae.base import VAE

ENCODED = 256
"""Images that are encoded at a time."""
FLOAT32 = 4
"""Bytes of a number."""
SHARE = 0.5
"""Share of the memory now free that the training set's latents may take."""


def inactive_channels(vae: VAE, images: TrainingSet, batch_size: int, batches: int) -> Tensor:
    """Return which channels of z_0 are not in use, bool [C]: their KL to N(0, 1) is at most 0.1 nats.

    The KL is that of one draw per image, log q - log p summed over pixels, which holds for posteriors with
    flows too; it is averaged over ``batches`` batches, at most one pass over the data, of all processes.
    """
    count = min(batches, max(1, len(images.source) // batch_size))
    rows = images.world.rows(batch_size)
    channels, _, _ = vae.groups.z_0
    total = torch.zeros(channels, dtype=torch.float64)
    with _evaluating(vae):
        for index in bar(range(count), desc="channels in use", unit="batch"):
            seed, device = f"inactive/{images.seed}", images.world.device
            noise = StepNoise(seed, index, global_batch=batch_size, rows=rows, device=device)
            places = batch_indices(len(images.source), batch_size, seed, index)[rows]
            levels = images.pipeline.levels(images.source.batch(places), noise)
            draws = vae.encode(levels, noise.normal)[: vae.groups.top]
            total += torch.cat([normal_kl(draw) for draw in draws], dim=1).mean(dim=0).double().cpu()
    mean = images.world.mean((total / count).tolist())
    return torch.tensor(mean, dtype=torch.float64) <= ACTIVE_NATS


def largest_squared_distance(vae: VAE, images: TrainingSet) -> float:
    """Return the largest squared distance between the encodings z_0 of two training images.

    The largest variance that a variance exploding SDE needs (technique 1 of arXiv:2006.09011).
    """
    return images.world.on_main(
        lambda: largest_distance(_encode(vae, images, [images.pipeline])[:, 0].flatten(1))
    )


def largest_distance(z: Tensor, block: int | None = None) -> float:
    """Return max_ij || z_i - z_j ||^2 over the rows of z [N, D], block by block."""
    # Distances do not know the origin, and products of numbers near 0 round less.
    mean = z.mean(dim=0, dtype=torch.float64)
    size = block or max(16, min(4096, 2**25 // z.shape[1]))
    blocks = range(0, len(z), size)
    largest = 0.0
    for first in bar(blocks, desc="largest distance", unit="block"):
        a = z[first : first + size].double() - mean
        for second in range(first, len(z), size):
            b = z[second : second + size].double() - mean
            squares = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1) - 2 * a @ b.T
            largest = max(largest, float(squares.max()))
    return largest


def pixel_means(images: TrainingSet) -> Tensor:
    """Return the mean of every binary pixel over the training set, one draw of each image: [C, H, W] float64.

    Means stay half an image away from 0 and from 1.
    """
    count, total = len(images.source), torch.zeros((), dtype=torch.float64)
    for start in range(0, count, ENCODED):
        places = torch.arange(start, min(start + ENCODED, count))
        noise = StepNoise(f"means/{images.seed}", start, global_batch=len(places), device=images.world.device)
        levels = images.pipeline.levels(images.source.batch(places), noise)
        total = total + levels.double().sum(dim=0).cpu()
    return (total / count).clamp(0.5 / count, 1 - 0.5 / count)


class LatentCache:
    """The training set's latents, encoded once: a source of images' places and the way from these to z_0.

    Each step takes one of an image's ``[N, V, C, h, w]`` latents, by the step's noise.
    """

    def __init__(self, latents: Tensor, device: torch.device) -> None:
        self._latents = latents
        self._device = device

    @classmethod
    def of(cls, vae: VAE, images: TrainingSet, draws: int) -> LatentCache:
        """Encode every image ``draws`` times, and its mirror image as often where images are mirrored.

        Each draw has a binarisation of its own where pixels are binary. Raises ConfigError where the latents
        do not fit into memory.
        """
        return cls(_encode(vae, images, _ways(images.pipeline) * draws), images.world.device)

    @classmethod
    def fitting(cls, vae: VAE, images: TrainingSet, draws: int) -> int:
        """Return how many draws of every image, at most ``draws``, memory has room for."""
        once = FLOAT32 * math.prod((len(images.source), len(_ways(images.pipeline)), *vae.groups.z_0))
        free = max(free_bytes(place) for place in (images.world.device, torch.device("cpu")))
        return int(min(draws, SHARE * free // once))

    def __len__(self) -> int:
        return len(self._latents)

    def batch(self, indices: Tensor, /) -> Tensor:
        """Return the images' places, int64 [b], where the latents lie."""
        return on_device(indices, self._latents.device)

    def prefetch(self, indices: Tensor, /) -> None:
        """Do nothing: the latents are there."""

    def levels(self, raw: Tensor, noise: StepNoise, /) -> Tensor:
        """Return latents z_0 [b, C, h, w] of images' places [b] on the training device."""
        variants = self._latents.shape[1]
        chosen = (noise.uniform().to(raw.device) * variants).long().clamp(max=variants - 1)
        return self._latents[raw, chosen].to(self._device, non_blocking=True)


class _Mirrored:
    """Another pipeline's levels of the mirror images."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def levels(self, raw: Tensor, noise: StepNoise, /) -> Tensor:
        return self._pipeline.levels(raw.flip(-1), noise)


def _ways(pipeline: Pipeline) -> list[Pipeline]:
    """Return the ways from an image to levels: one, or two where images are mirrored at random."""
    if isinstance(pipeline, PixelPipeline) and pipeline.flip:
        return [plain := replace(pipeline, flip=False), _Mirrored(plain)]
    return [pipeline]


def _encode(vae: VAE, images: TrainingSet, ways: list[Pipeline]) -> Tensor:
    """Return a draw of z_0 of every image in each of V ways to its levels, [N, V, C, h, w] float32."""
    count, device = len(images.source), images.world.device
    latents = _room((count, len(ways), *vae.groups.z_0), device)
    starts = range(0, count, ENCODED)
    with _evaluating(vae):
        for start in bar(starts, desc="encode the training set", unit="batch"):
            places = torch.arange(start, min(start + ENCODED, count))
            raw = images.source.batch(places)
            for index, way in enumerate(ways):
                noise = StepNoise(
                    f"encode/{index}/{images.seed}", start, global_batch=len(places), device=device
                )
                draws = vae.encode(way.levels(raw, noise), noise.normal)
                z_0 = vae.groups.stack(tuple(draw.z for draw in draws))
                latents[start : start + len(places), index] = z_0.to(latents)
    return latents


def _room(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """Return float32 memory on the device, or on the CPU where it does not fit there."""
    size = FLOAT32 * math.prod(shape)
    for place in (device, torch.device("cpu")):
        if size <= SHARE * free_bytes(place):
            return torch.empty(shape, device=place)
    raise ConfigError(
        f"the training set's latents take {size / 2**30:.1f} GiB ({shape[1]} of each image), more than half "
        "of the memory that is free; set cached-draws lower, or to 0 to encode each batch anew"
    )


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Have a module in eval mode without gradients for a while."""
    training = module.training
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        module.train(training)


def training_levels(opened: OpenedCheckpoint, count: int) -> Tensor:
    """Return the levels of ``count`` training images of a checkpoint's dataset, drawn at random, or of all.

    Raises DataError where the dataset is not at hand, and before it is read UserError for a model that is no
    LSGM: of the latents of others no moments are taken.
    """
    _reference(opened)
    recipe = opened.recipe
    images = load(recipe.data.dataset, image_size=recipe.data.size, convert=recipe.data.convert)
    return test_levels(images, "train", seed=0, bits=opened.pixels.bits, limit=count)


@torch.no_grad()
def fit_moments(opened: OpenedCheckpoint, levels: Tensor, *, seed: int = 0) -> None:
    """Give the prior of an opened checkpoint the moments of its latents over levels, uint8 [N, C, H, W].

    Raises UserError for a model that is no LSGM.
    """
    networks, reference = _reference(opened)
    law = reference.latents()
    mean, square = torch.zeros_like(law.mean), torch.zeros_like(law.mean)
    for index, batch in enumerate(bar(torch.split(levels, ENCODED), desc="moments", unit="batch")):
        noise = StepNoise(f"moments/{seed}", index, global_batch=len(batch), device=law.mean.device)
        z = networks.vae.posterior(batch.to(law.mean.device), noise.normal).z
        coefficients = law.rotate(networks.vae.groups.stack(z).double())
        mean += coefficients.sum(dim=0) / len(levels)
        square += coefficients.square().sum(dim=0) / len(levels)
    reference.fit(mean, square)
    reference.seen.fill_(-(-len(levels) // ENCODED))


def _reference(opened: OpenedCheckpoint) -> tuple[LSGM, NormalReference]:
    networks = opened.networks
    if not isinstance(networks, LSGM) or networks.prior.reference is None:
        raise UserError(f"{opened.checkpoint} is no LSGM: there are no latents to take moments of")
    return networks, networks.prior.reference


def write_fitted(out: Path, opened: OpenedCheckpoint, images: int, argv: Sequence[str]) -> Path:
    """Write the checkpoint with the moments that its networks now have: a run, or an exported folder again.

    What it was made from goes into the checkpoint's meta under ``moments``. Returns the checkpoint. Raises
    CheckpointError where ``out`` exists or cannot be written.
    """
    refuse_existing(out)
    own = {
        f"prior.reference.{name}": value
        for name, value in opened.networks.get_submodule("prior.reference").state_dict().items()
    }
    source = {"sha256": opened.state["files"][weights_file(opened.state)]["sha256"], "images": images}
    if "exported" not in opened.state:
        return write_derived(out, opened, {"moments": source}, own, argv)
    tensors = {**read_weights(opened.checkpoint, "ema"), **own}
    state = {**opened.state, "meta": {**opened.state["meta"], "moments": source}}
    write_folder(out, state, rounded(tensors, opened.state["exported"]["dtype"]))
    return out
