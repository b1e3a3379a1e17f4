"""The flat VAE: Gaussian posterior without bounds, p(x | z) of its decoder, and what is built around it."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from oracles.flat_vae import flat_log_weight, importance_bound
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

from lsgm.bench.cost import cost_of, forward_flops
from lsgm.config import DensityConfig, SamplerConfig
from lsgm.data import test_levels
from lsgm.errors import ConfigError, UserError
from lsgm.generative import Pixels
from lsgm.kinds import recipe_from
from lsgm.model.diffusion import measure_lsgm
from lsgm.model.lsgm import LSGM, build_lsgm
from lsgm.nets.config import FlatVAEConfig
from lsgm.nets.folding import fold
from lsgm.rng import RepeatedNoise
from lsgm.runs.derived import decoder_of
from lsgm.runs.load import load_model, open_checkpoint
from lsgm.train.loop import train_recipe
from lsgm.vae.base import repeated, sum_per_sample
from lsgm.vae.small import FlatVAE

CONFIG = FlatVAEConfig(hidden=(9, 7), latents=3)
BINARY = Pixels(1, 6, 5, "binary", 1)


def vae(config: FlatVAEConfig = CONFIG, pixels: Pixels = BINARY) -> FlatVAE:
    """A model whose numbers are of no special value."""
    torch.manual_seed(0)
    model = FlatVAE(config, pixels)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def levels_of(pixels: Pixels = BINARY, batch: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, pixels.levels, (batch, *pixels.shape), generator=generator, dtype=torch.uint8)


def given(n: Tensor) -> Any:
    """A noise that gives this tensor to one call."""
    return lambda *shape: n


def test_one_group_of_one_pixel() -> None:
    groups = vae().groups
    assert (groups.shapes, groups.top, groups.z_0) == (((3, 1, 1),), 1, (3, 1, 1))


def test_the_latent_is_mu_plus_sigma_n_with_its_normal_density() -> None:
    model, levels = vae().double(), levels_of()
    mu, log_sigma = model.encoder(levels.double().flatten(1)).chunk(2, dim=1)
    n = torch.randn(4, 3, 1, 1, dtype=torch.float64)
    (z,), (log_q,) = model.posterior(levels, given(n))
    law = Normal(mu, log_sigma.exp())
    torch.testing.assert_close(z.flatten(1), mu + log_sigma.exp() * n.flatten(1))
    torch.testing.assert_close(log_q, sum_per_sample(law.log_prob(z.flatten(1))))


def test_means_and_scales_have_no_bounds() -> None:
    """NVAE's 5 tanh(. / 5) is no part of this model."""
    model = vae()
    with torch.no_grad():
        model.encoder.head.bias.copy_(torch.tensor([40.0, -30.0, 0.0, 8.0, -9.0, 0.0]))
        model.encoder.head.weight.zero_()
    (mu,), _ = model.posterior(levels_of(), given(torch.zeros(4, 3, 1, 1)))
    (z,), _ = model.posterior(levels_of(), given(torch.ones(4, 3, 1, 1)))
    torch.testing.assert_close(mu[0].flatten(), torch.tensor([40.0, -30.0, 0.0]))
    # The difference of two numbers near 3,000: seven digits of float32.
    torch.testing.assert_close((z - mu)[0].flatten()[0], torch.tensor(8.0).exp(), rtol=1e-6, atol=1e-3)


def test_the_likelihood_is_a_bernoulli_of_each_pixel_row_by_row() -> None:
    model, levels = vae(), levels_of()
    z = torch.randn(4, 3, 1, 1)
    logits = model.decoder(z.flatten(1)).view(4, 1, 6, 5)
    likelihood = model.likelihood((z,))
    torch.testing.assert_close(likelihood.log_prob(levels), Bernoulli(logits=logits).log_prob(levels.float()))
    torch.testing.assert_close(likelihood.mean(), torch.sigmoid(logits))


def test_several_draws_are_those_of_repeated_images_and_the_encoder_sees_each_once() -> None:
    model, levels = vae().double(), levels_of()
    seen: list[int] = []
    model.encoder.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    n = torch.randn(20, 3, 1, 1, dtype=torch.float64)
    (z,), (log_q,) = model.posterior(levels, given(n), draws=5)
    (z_each,), (log_q_each,) = model.posterior(repeated(levels, 5), given(n))
    assert seen == [4, 20]
    torch.testing.assert_close(z, z_each)
    torch.testing.assert_close(log_q, log_q_each)


@pytest.mark.parametrize(
    ("pixels", "decoder", "outputs"),
    [
        (BINARY, "auto", 30),
        (Pixels(3, 4, 4, "discrete"), "auto", 96),
        (Pixels(3, 4, 4, "discrete"), "mixture", 16 * 100),
        (Pixels(1, 4, 4, "discrete"), "normal", 32),
    ],
)
def test_every_distribution_of_pixels(pixels: Pixels, decoder: Any, outputs: int) -> None:
    model, levels = vae(FlatVAEConfig(hidden=(9,), latents=3, decoder=decoder), pixels), levels_of(pixels)
    posterior = model.posterior(levels, given(torch.randn(4, 3, 1, 1)))
    log_p = sum_per_sample(model.likelihood(posterior.z).log_prob(levels))
    assert model.decoder.head.out_features == outputs
    assert log_p.shape == (4,)
    assert torch.isfinite(log_p).all()


def test_autocast_leaves_latents_and_densities_in_float32() -> None:
    model, levels = vae(), levels_of()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (z,), (log_q,) = model.posterior(levels, lambda *shape: torch.randn(4, *shape))
        log_p = model.likelihood((z,)).log_prob(levels)
    assert z.dtype == log_q.dtype == log_p.dtype == torch.float32


def test_a_start_from_means_gives_them_to_pixels_that_z_says_nothing_of() -> None:
    model, means = FlatVAE(CONFIG, BINARY), torch.linspace(0.01, 0.99, 30).view(1, 6, 5).double()
    assert model.untouched
    model.start_from(means)
    assert not model.untouched
    p = model.likelihood((torch.zeros(2, 3, 1, 1),)).mean()
    torch.testing.assert_close(p, means.float().expand(2, -1, -1, -1))


def test_padding_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"data\.pad is 2; a flat VAE takes images of any side"):
        FlatVAE(CONFIG, BINARY, pad=2)


@pytest.mark.parametrize("wrong", [{"hidden": ()}, {"hidden": (0,)}, {"latents": 0}])
def test_sizes_that_make_no_network_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="the VAE"):
        FlatVAEConfig(**wrong)


def test_operations_are_counted_in_multiply_adds_of_the_layers() -> None:
    networks = nn.ModuleDict({"vae": FlatVAE(FlatVAEConfig(), Pixels(1, 28, 28, "binary", 1))})
    forward = forward_flops(networks, Pixels(1, 28, 28, "binary", 1))
    encoder, decoder = 784 * 200 + 200 * 200 + 200 * 100, 50 * 200 + 200 * 200 + 200 * 784
    assert (forward.encode, forward.vae) == (2 * encoder, 2 * (encoder + decoder))
    assert forward.another_draw == 2 * decoder


TABLES: dict[str, Any] = {
    "kind": "vae",
    "seed": 3,
    "vae": {"kind": "flat", "hidden": [12, 10], "latents": 4},
    "stage1": {**tiny.TABLES["stage1"], "steps": 30, "kl": {"start": 1.0, "portion": 0.0}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A flat VAE trained for 30 steps on bars of 8 x 8."""
    path = tmp_path_factory.mktemp("flat") / "flat-vae"
    train_recipe(recipe_from(TABLES, "the flat VAE"), path, images=tiny.bars())
    return path


def test_a_checkpoint_has_the_bounds_of_its_weights_and_noise_written_out(run: Any) -> None:
    """ELBO and importance-weighted bound through the harness's door against numpy and scipy in float64."""
    model, levels, seeds, samples = load_model(run), test_levels(tiny.bars(), "test", 0)[:6], range(6), 7
    n = RepeatedNoise(seeds, stream="density").take(samples).normal(4, 1, 1)
    state = open_checkpoint(run, "ema").networks.get_submodule("vae").state_dict()
    x = levels.flatten(1).double().numpy()
    log_w = flat_log_weight(state, x, n.view(6, samples, 4).double().numpy())
    for method, expected in (("nelbo", -log_w.mean(axis=1)), ("iw", importance_bound(log_w))):
        config = DensityConfig(method=method, samples=samples)  # type: ignore[arg-type]
        # 40 nats or so in float32, of 64 pixels.
        np.testing.assert_allclose(model.density(levels, seeds, config).nats.numpy(), expected, rtol=1e-5)
    assert (importance_bound(log_w) < -log_w.mean(axis=1)).all()


def test_a_checkpoint_is_sampled_folded_and_has_nothing_to_recalibrate(run: Any) -> None:
    opened = open_checkpoint(run, "ema")
    folded = copy.deepcopy(opened.networks)
    assert fold(folded) == 0
    images = load_model(run).sample(range(3), SamplerConfig()).images
    assert images.shape == (3, 1, 8, 8)
    assert set(images.unique().tolist()) <= {0, 255}
    with pytest.raises(UserError, match="nothing to recalibrate"):
        decoder_of(opened)


def test_a_score_prior_of_latents_without_extent() -> None:
    """An LSGM on a flat VAE is an LSGM like any: its prior sees one pixel of many channels."""
    recipe = recipe_from(
        tiny.merged(
            {key: value for key, value in tiny.TABLES.items() if key != "vae"}, {"vae": TABLES["vae"]}
        ),
        "an LSGM on a flat VAE",
    )
    pixels = Pixels(1, 8, 8, "binary", 1)
    torch.manual_seed(0)
    networks: LSGM = build_lsgm(recipe, pixels).eval()
    model = measure_lsgm(recipe.prior.objective, networks, {"name": "", "sha256": ""})
    levels = levels_of(pixels, 3)
    for method in ("nelbo", "ode"):
        density = model.density(levels, range(3), DensityConfig(method=method, divergence="exact"))  # type: ignore[arg-type]
        assert torch.isfinite(density.nats).all()
    assert model.sample(range(2), SamplerConfig(steps=3)).images.shape == (2, 1, 8, 8)
    assert cost_of(recipe).parameters.keys() == {"vae", "prior"}


def test_an_lsgm_on_a_flat_vae_trains_in_both_stages(tmp_path: Any) -> None:
    tables = {key: value for key, value in tiny.TABLES.items() if key != "vae"} | {"vae": TABLES["vae"]}
    outcome = train_recipe(recipe_from(tables, "an LSGM"), tmp_path / "run", images=tiny.bars())
    assert outcome.finished


def begun(path: Any, run: Any = None) -> Tensor:
    """Return the output biases after one step at a rate of nearly nothing."""
    stage = {**TABLES["stage1"], "steps": 1, "warmup": 0.5}
    train_recipe(
        recipe_from({**TABLES, "stage1": stage}, "the flat VAE"), path, images=tiny.bars(), init_from=run
    )
    bias: Tensor = open_checkpoint(path, "raw").networks.get_submodule("vae.decoder.head").bias
    return bias.detach()


def test_training_begins_from_the_pixels_means(tmp_path: Any) -> None:
    """The first step of a warm-up has the rate 0, so that the biases are as they began."""
    means = torch.sigmoid(begun(tmp_path / "new"))
    count = len(tiny.bars().splits["train"])
    assert means.std() > 0.05
    # Binarised once, of ``count`` images, none of whose pixels is known: 5 standard deviations of p = 1/2.
    raw = tiny.bars().splits["train"].double().mean(dim=0).flatten() / 255
    assert ((means - raw).abs() < 2.5 / count**0.5 + 0.5 / count).all()


def test_training_on_from_a_run_keeps_its_biases(tmp_path: Any, run: Any) -> None:
    held = open_checkpoint(run, "ema").networks.get_submodule("vae.decoder.head").bias
    torch.testing.assert_close(begun(tmp_path / "on", run), held.detach())
