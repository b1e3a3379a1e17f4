"""What a stage finds in the training set before its first step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ladder import Ladder
from torch import Tensor

from lsgm.data import PixelPipeline
from lsgm.data.source import Resident
from lsgm.distributed import World
from lsgm.errors import ConfigError
from lsgm.rng import StepNoise
from lsgm.train import prepare
from lsgm.train.prepare import (
    LatentCache,
    inactive_channels,
    largest_distance,
    largest_squared_distance,
    pixel_means,
)
from lsgm.train.stage import TrainingSet

CPU = torch.device("cpu")


def training_set(count: int = 40, *, flip: bool = False, world: World | None = None) -> TrainingSet:
    torch.manual_seed(0)
    raw = torch.randint(0, 256, (count, 1, 4, 4), dtype=torch.uint8)
    return TrainingSet(Resident(raw), PixelPipeline("binary", 1, flip), 5, world or World(0, 1, CPU))


def ladder(*, dead: int | None = None) -> Any:
    """Return a VAE; the channel ``dead`` of its first group has the posterior N(0, 1) whatever the image."""
    vae = Ladder()
    if dead is not None:
        with torch.no_grad():
            for start in (0, 8):
                rows = slice(start + 4 * dead, start + 4 * dead + 4)
                vae.encoder[0].weight[rows] = 0
                vae.encoder[0].bias[rows] = 0
    return vae


@pytest.mark.parametrize("dead", [0, 1])
def test_a_channel_without_information_is_found(dead: int) -> None:
    found = inactive_channels(ladder(dead=dead), training_set(), 8, 1000)
    assert found.dtype == torch.bool
    assert found.shape == (4,)
    assert bool(found[dead])
    assert int(found.sum()) < 4


def test_the_vae_is_looked_at_in_eval_mode_and_left_in_its_own() -> None:
    vae = ladder().train()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    inactive_channels(vae, training_set(), 8, 3)
    assert vae.training
    assert all(torch.equal(value, before[name]) for name, value in vae.state_dict().items())


@pytest.mark.parametrize("block", [7, 16, 1000])
def test_the_largest_distance_is_that_of_all_pairs(block: int) -> None:
    torch.manual_seed(0)
    z = torch.randn(100, 3) + 50.0
    exact = float((z[:, None] - z).double().square().sum(dim=2).max())
    # float32 latents near 50 are exact numbers; their differences here are taken in float32.
    assert largest_distance(z, block) == pytest.approx(exact, rel=1e-5)


def test_the_largest_distance_is_between_the_top_scales_encodings() -> None:
    vae, images = ladder().eval(), training_set()
    cache = LatentCache.of(vae, images, 1)
    z = cache.levels(torch.arange(40), StepNoise(0, 0, global_batch=40)).flatten(1).double()
    assert z.shape == (40, 16)
    exact = float(torch.cdist(z, z).square().max())
    # The cache holds float32, and so do the latents that are compared.
    assert largest_squared_distance(vae, images) == pytest.approx(exact, rel=1e-12)


def test_cached_latents_are_draws_of_the_posterior_of_each_image() -> None:
    vae, images = ladder().eval(), training_set()
    cache = LatentCache.of(vae, images, 200)
    assert len(cache) == 40
    places = torch.arange(40)
    draws = torch.stack(
        [cache.levels(cache.batch(places), StepNoise(1, i, global_batch=40)) for i in range(200)]
    )
    with torch.no_grad():
        fresh = []
        for i in range(200):
            noise = StepNoise(2, i, global_batch=40)
            levels = images.pipeline.levels(images.source.batch(places), noise)
            groups = vae.encode(levels, noise.normal)
            fresh.append(torch.cat([groups[0].z, groups[1].z], dim=1))
    ours, theirs = draws, torch.stack(fresh)
    error = ((ours.var(dim=0) + theirs.var(dim=0)) / 200).sqrt()
    distance = (ours.mean(dim=0) - theirs.mean(dim=0)).abs() / error
    # 640 comparisons of Normals, and some draws come twice: the largest lies below 5 sigma.
    assert float(distance.max()) < 5.5
    assert float(distance.square().mean()) < 2


def test_draws_are_the_same_for_the_same_step_and_fill_all_variants() -> None:
    cache = LatentCache.of(ladder().eval(), training_set(), 3)
    again = LatentCache.of(ladder().eval(), training_set(), 3)
    places = torch.arange(40)

    def levels(which: LatentCache, step: int) -> Tensor:
        return which.levels(which.batch(places), StepNoise(1, step, global_batch=40))

    assert torch.equal(levels(cache, 0), levels(again, 0))
    assert not torch.equal(levels(cache, 0), levels(cache, 1))
    assert len({tuple(levels(cache, step)[0].flatten().tolist()) for step in range(60)}) == 3


def test_mirror_images_are_cached_where_images_are_mirrored() -> None:
    """Pixels of 0 and 255 leave binarisation nothing to draw, and the posterior has no variance."""
    vae = ladder().eval()
    with torch.no_grad():
        for layer, size in zip(vae.encoder, (8, 8, 16), strict=True):
            layer.weight[size:], layer.bias[size:] = 0, -40
    images = training_set(flip=True)
    sharp = TrainingSet(
        Resident(images.source.batch(torch.arange(40)) // 128 * 255), images.pipeline, 5, images.world
    )
    cache = LatentCache.of(vae, sharp, 1)
    seen = torch.stack(
        [cache.levels(torch.arange(40), StepNoise(1, step, global_batch=40)) for step in range(40)]
    )
    raw = sharp.source.batch(torch.arange(40))
    for flipped in (raw, raw.flip(-1)):
        with torch.no_grad():
            groups = vae.encode((flipped > 0).to(torch.uint8), lambda *shape: torch.zeros(40, *shape))
        z_0 = torch.cat([groups[0].z, groups[1].z], dim=1)
        assert (seen - z_0).abs().flatten(2).amax(dim=2).amin(dim=0).max() < 1e-5


def test_latents_that_do_not_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "free_bytes", lambda device: 1000)
    with pytest.raises(ConfigError, match="set cached-draws lower"):
        LatentCache.of(ladder(), training_set(), 3)


def test_pixel_means_are_those_of_the_binarised_training_set() -> None:
    images = training_set(1000)
    p = images.source.batch(torch.arange(1000)).double() / 255
    expected, variance = p.mean(dim=0), (p * (1 - p)).sum(dim=0) / 1000**2
    # One draw of every image: 16 pixels, each within 5 standard deviations of its Bernoulli draws.
    assert ((pixel_means(images) - expected).abs() < 5 * variance.sqrt()).all()


def test_pixel_means_stay_half_an_image_away_from_0_and_1() -> None:
    raw = torch.zeros(40, 1, 2, 1, dtype=torch.uint8)
    raw[:, :, 0] = 255
    images = TrainingSet(Resident(raw), PixelPipeline("binary", 1, False), 5, World(0, 1, CPU))
    assert pixel_means(images).flatten().tolist() == [1 - 1 / 80, 1 / 80]
