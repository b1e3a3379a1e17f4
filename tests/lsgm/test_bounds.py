"""Bounds from many draws: streamed as if all were at hand, and right where -log p(x) has a closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.linear_gaussian import LinearGaussianVAE
from torch import Tensor, nn

from lsgm.config import DensityConfig
from lsgm.errors import UserError
from lsgm.generative import Density
from lsgm.likelihood import LogMeanExp, RunningMean
from lsgm.model.diffusion import NormalPriorModel, ScoreBasedModel, likelihood_bound
from lsgm.model.lsgm import Encoded, VAECoder
from lsgm.ode import SolverError
from lsgm.recipes.recipe import ObjectiveConfig
from lsgm.rng import SeededNoise
from lsgm.score import ScoreModel
from lsgm.sde import VPSDE
from lsgm.vae.base import LatentDraw, Noise

CPU = torch.device("cpu")
IMPERFECT = {"shift": 0.15, "widen": 1.3}
"""A posterior off by a third of its spread and wider than it should be, so that weights are bounded."""
EXACTLY = {"rtol": 1e-12, "atol": 1e-10}
"""Sums of float64 in another order."""

huge = st.one_of(st.floats(-1e300, 1e300), st.floats(-50, 50), st.just(-math.inf))


def rows_and_cuts(values: st.SearchStrategy[float]) -> st.SearchStrategy[tuple[Tensor, list[int]]]:
    """Rows [2, K] of values, and the lengths of parts that K is cut into."""

    def fill(cuts: list[int]) -> st.SearchStrategy[tuple[Tensor, list[int]]]:
        size = sum(cuts)
        flat = st.lists(values, min_size=2 * size, max_size=2 * size)
        return flat.map(lambda x: (torch.tensor(x, dtype=torch.float64).view(2, size), cuts))

    return st.lists(st.integers(1, 5), min_size=1, max_size=6).flatmap(fill)


@settings(deadline=None, max_examples=150)
@given(rows_and_cuts(huge))
def test_a_streamed_log_mean_exp_is_torchs_however_it_is_cut(case: tuple[Tensor, list[int]]) -> None:
    values, cuts = case
    streamed = LogMeanExp()
    for part in values.split(cuts, dim=1):
        streamed.update(part)
    expected = values.logsumexp(dim=1) - math.log(values.shape[1])
    torch.testing.assert_close(streamed.value(), expected, rtol=1e-13, atol=1e-12)


@settings(deadline=None, max_examples=80)
@given(rows_and_cuts(st.floats(-30, 30)), st.floats(-1e5, 1e5))
def test_its_error_is_that_of_the_mean_weight_whatever_the_weights_unit(
    case: tuple[Tensor, list[int]], unit: float
) -> None:
    values, cuts = case
    streamed = LogMeanExp()
    for part in (values + unit).split(cuts, dim=1):
        streamed.update(part)
    if (count := values.shape[1]) == 1:
        assert streamed.error() is None
        return
    weights = (values - values.amax(dim=1, keepdim=True)).exp()
    expected = weights.std(dim=1) / count**0.5 / weights.mean(dim=1)
    # The variance is a difference of moments good to 16 digits; its root to 8. Values near 1e5 keep 11.
    torch.testing.assert_close(streamed.error(), expected, rtol=1e-7, atol=1e-7)


@settings(deadline=None, max_examples=80)
@given(rows_and_cuts(st.floats(-1e6, 1e6)))
def test_streamed_moments_are_those_of_all_values(case: tuple[Tensor, list[int]]) -> None:
    values, cuts = case
    streamed = RunningMean()
    for part in values.split(cuts, dim=1):
        streamed.update(part)
    torch.testing.assert_close(streamed.mean, values.mean(dim=1), rtol=1e-12, atol=1e-9)
    if (count := values.shape[1]) == 1:
        assert streamed.error() is None
    else:
        torch.testing.assert_close(streamed.error(), values.std(dim=1) / count**0.5, rtol=1e-9, atol=1e-6)


def normal_model(vae: LinearGaussianVAE) -> NormalPriorModel:
    return NormalPriorModel(vae, CPU, "linear")


class Swap(nn.Module):
    """Predicts a multiple of the other channel: linear, with a Jacobian that has no diagonal."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(weight))

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        return self.weight * z.flip(1)


def score_model(vae: LinearGaussianVAE, weight: float, share: float = -1e4) -> ScoreBasedModel:
    """The VAE with a prior whose network swaps channels; by default it has no share and all is N(0, I)."""
    prior = ScoreModel(VPSDE(), Swap(weight), channels=2, mixing_init=share).double()
    bound = likelihood_bound(prior, ObjectiveConfig())
    return ScoreBasedModel(VAECoder(vae, 1e-5), prior, bound, "linear")


def within(estimate: Tensor, truth: Tensor, errors: float = 4.0) -> bool:
    """Whether the mean over images agrees with the truth's to some standard errors of their difference."""
    difference = estimate - truth
    return abs(float(difference.mean())) < errors * float(difference.std()) / len(difference) ** 0.5


def test_the_bound_of_a_linear_gaussian_vae_has_its_closed_form() -> None:
    vae = LinearGaussianVAE(**IMPERFECT)
    levels = vae.draw_levels(400)
    density = normal_model(vae).density(levels, range(400), DensityConfig(samples=64, at_once=2000))
    exact = vae.nelbo(levels)
    for name, nats in exact.items():
        assert within(density.terms[name], nats), name
    assert within(density.nats, sum(exact.values()))
    assert bool((sum(exact.values()) > vae.nll(levels)).all())
    # Its own error is the spread of the means around their expectations: 400 squares are good to 0.07.
    assert density.error is not None
    z = (density.nats - sum(exact.values())) / density.error
    assert float(z.square().mean()) == pytest.approx(1, abs=0.3)


def test_the_importance_weighted_bound_falls_to_the_truth() -> None:
    vae = LinearGaussianVAE(**IMPERFECT)
    levels = vae.draw_levels(100)
    truth, model = vae.nll(levels), normal_model(vae)
    bounds = {
        k: model.density(levels, range(100), DensityConfig("iw", samples=k, at_once=5000))
        for k in (1, 10, 100, 1000)
    }
    for fewer, more in ((1, 10), (10, 100), (100, 1000)):
        fall = bounds[fewer].nats - bounds[more].nats
        assert float(fall.mean()) > -4 * float(fall.std()) / 10
    gaps = {k: float((density.nats - truth).mean()) for k, density in bounds.items()}
    assert gaps[1] > 10 * gaps[10] / 4 > 0
    assert gaps[10] > gaps[100]
    # At K = 1000 what is left of the gap, Var(w) / 2K, is far below the bound's own error.
    last = bounds[1000]
    assert last.error is not None
    assert float(last.error.max()) < 0.1
    assert abs(gaps[1000]) < 4 * float(last.error.square().sum().sqrt()) / 100
    assert float(((last.nats - truth) / last.error).abs().max()) < 5


@pytest.mark.parametrize("samples", [1, 10, 1000])
def test_with_the_exact_posterior_every_draw_says_the_truth(samples: int) -> None:
    vae = LinearGaussianVAE()
    levels = vae.draw_levels(5)
    for method in ("nelbo", "iw"):
        density = normal_model(vae).density(levels, range(5), DensityConfig(method, samples=samples))
        torch.testing.assert_close(density.nats, vae.nll(levels), **EXACTLY)
        if samples > 1:
            assert density.error is not None
            assert float(density.error.max()) < 1e-6


@pytest.mark.parametrize(("method", "posterior"), [("nelbo", IMPERFECT), ("iw", {})])
def test_the_interval_over_images_covers_the_truth_in_95_of_100_repeats(
    method: str, posterior: dict[str, float]
) -> None:
    """400 repeats of a test set of 100 images, each from one population whose mean bound is known."""
    repeats, size = 400, 100
    vae = LinearGaussianVAE(**posterior)
    population = vae.draw_levels(3000)
    chosen = torch.randint(3000, (repeats * size,), generator=torch.Generator().manual_seed(1))
    config = DensityConfig(method)  # type: ignore[arg-type]
    nats = normal_model(vae).density(population[chosen], range(repeats * size), config).nats
    exact = sum(vae.nelbo(population).values()) if method == "nelbo" else vae.nll(population)
    tests = nats.view(repeats, size)
    half = 1.96 * tests.std(dim=1) / size**0.5
    covered = float(((tests.mean(dim=1) - float(exact.mean())).abs() < half).double().mean())
    # Four standard deviations of a binomial.
    assert abs(covered - 0.95) < 4 * (0.95 * 0.05 / repeats) ** 0.5


def values_of(density: Density) -> dict[str, Tensor]:
    named = {"nats": density.nats, "error": density.error, "probe_error": density.probe_error}
    return {**density.terms, **density.groups, **{k: v for k, v in named.items() if v is not None}}


@pytest.mark.parametrize(
    "config",
    [
        DensityConfig("nelbo", draws=3, samples=11),
        DensityConfig("ode", samples=11, probes=2, solver="heun", steps=3),
        DensityConfig("iw", samples=11, probes=2, solver="heun", steps=3),
        DensityConfig("iw", samples=11, divergence="exact", rtol=1e-3, atol=1e-3),
    ],
    ids=lambda config: f"{config.method}-{config.divergence}",
)
def test_what_is_evaluated_at_once_changes_roundings_alone(config: DensityConfig) -> None:
    vae = LinearGaussianVAE(**IMPERFECT)
    model, levels = score_model(vae, 0.3, share=0.0), vae.draw_levels(4)
    whole = model.density(levels, range(4), replace(config, at_once=1000))
    assert vae.rows == [44]
    for at_once in (4, 13, 20):
        vae.rows.clear()
        parts = model.density(levels, range(4), replace(config, at_once=at_once))
        assert max(vae.rows) <= at_once
        assert sum(vae.rows) == 44
        assert torch.equal(parts.nfe, whole.nfe)
        for (name, one), (_, other) in zip(values_of(parts).items(), values_of(whole).items(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-7, msg=name)
    alone = model.density(levels[2:3], [2], replace(config, at_once=3))
    torch.testing.assert_close(alone.nats, whole.nats[2:3], **EXACTLY)


def test_more_draws_go_on_from_fewer() -> None:
    """The first draw of ten is the only one of one: more samples refine the same bound."""
    vae = LinearGaussianVAE(**IMPERFECT)
    model, levels = normal_model(vae), vae.draw_levels(3)
    one, two, three = (model.density(levels, range(3), DensityConfig(samples=k)).nats for k in (1, 2, 3))
    second, third = 2 * two - one, 3 * three - 2 * two
    later = model.density(levels, range(3), DensityConfig("iw", samples=3)).nats
    totals = torch.stack([one, second, third])
    torch.testing.assert_close(later, math.log(3) - (-totals).logsumexp(dim=0), **EXACTLY)


@pytest.mark.parametrize("method", ["nelbo", "ode", "iw"])
def test_the_terms_add_up_and_so_do_their_groups(method: str) -> None:
    vae = LinearGaussianVAE(**IMPERFECT)
    model, levels = score_model(vae, 0.3, share=0.0), vae.draw_levels(6)
    config = DensityConfig(method, draws=2, samples=3, solver="heun", steps=3)  # type: ignore[arg-type]
    density = model.density(levels, range(6), config)
    torch.testing.assert_close(torch.stack(list(density.terms.values())).sum(dim=0), density.nats, **EXACTLY)
    cross = [f"cross_entropy/{name}" for name in ((0, 1, 2) if method == "nelbo" else ("top", 2))]
    ends = [f"{name}/{group}" for name in ("terminal", "tail") for group in range(2)]
    ends = ends if method == "nelbo" else []
    entropy = [f"negative_entropy/{group}" for group in range(3)]
    assert set(density.groups) == {*entropy, *cross, *ends}
    assert ("terminal" in density.terms) == ("tail" in density.terms) == (method == "nelbo")
    assert ("importance_gain" in density.terms) == (method == "iw")
    for name in {key.split("/")[0] for key in density.groups}:
        parts = [nats for key, nats in density.groups.items() if key.startswith(f"{name}/")]
        torch.testing.assert_close(torch.stack(parts).sum(dim=0), density.terms[name], **EXACTLY)
    if method == "iw":
        assert float(density.terms["importance_gain"].max()) < 0


def test_the_terminal_term_is_that_of_each_group_and_lower_groups_are_exact() -> None:
    vae = LinearGaussianVAE(**IMPERFECT)
    model, levels = score_model(vae, 0.3, share=0.0), vae.draw_levels(6)
    density = model.density(levels, range(6), DensityConfig(draws=3))
    z = vae.posterior(levels, SeededNoise(range(6), stream="density").normal).z
    for group in range(2):
        expected = VPSDE().terminal_kl(z[group]).flatten()
        torch.testing.assert_close(density.groups[f"terminal/{group}"], expected, **EXACTLY)
    lower = 0.5 * (z[2].flatten().square() + math.log(2 * math.pi))
    torch.testing.assert_close(density.groups["cross_entropy/2"], lower, **EXACTLY)


@pytest.mark.parametrize("method", ["ode", "iw"])
def test_a_share_of_zero_gives_the_normal_priors_bound_by_the_flow(method: str) -> None:
    """Nothing moves and the trace is 0, so log p(z) by the flow is log N(z; 0, I) for the very same draws."""
    vae = LinearGaussianVAE(**IMPERFECT)
    levels = vae.draw_levels(5)
    config = DensityConfig(method, samples=20, divergence="exact")  # type: ignore[arg-type]
    flow = score_model(vae, 1.0).density(levels, range(5), config)
    normal = replace(config, method="nelbo" if method == "ode" else method)
    exact = normal_model(vae).density(levels, range(5), normal)
    for name in exact.terms:
        torch.testing.assert_close(flow.terms[name], exact.terms[name], **EXACTLY)
    torch.testing.assert_close(flow.error, exact.error, rtol=1e-7, atol=1e-7)
    assert flow.probe_error is not None
    assert float(flow.probe_error.abs().max()) == 0.0
    assert exact.probe_error is None


def test_probe_noise_takes_the_importance_weighted_bound_below_the_truth() -> None:
    """Two mixed channels: n^T J n = tr J +- c, the sign a fair coin's, and so E exp(noise) = cosh c.

    A sharper encoder or more draws do not help: as K grows the bound goes to -log p - log cosh c.
    """
    vae = LinearGaussianVAE(widen=1.3)
    model, levels = score_model(vae, 15.0, share=-5.0), vae.draw_levels(20)
    rk4 = DensityConfig("ode", solver="rk4", steps=8)

    def density(**changes: object) -> Density:
        return model.density(levels, range(20), replace(rk4, **changes))  # type: ignore[arg-type]

    noise = (density().nats - density(divergence="exact").nats).abs()
    c = float(noise.mean())
    assert 0.5 < c < 2
    # The flow is linear: its divergence, and the noise on it, are the same everywhere.
    torch.testing.assert_close(noise, torch.full_like(noise, c), rtol=1e-9, atol=0.0)
    exact, one, two = (
        density(method="iw", samples=500, at_once=10_000, **kind)
        for kind in ({"divergence": "exact"}, {"probes": 1}, {"probes": 2})
    )
    for noisy, shift in ((one, math.log(math.cosh(c))), (two, 2 * math.log(math.cosh(c / 2)))):
        assert noisy.error is not None
        assert exact.error is not None
        gap = (exact.nats - noisy.nats).mean()
        spread = float((noisy.error.square() + exact.error.square()).sum().sqrt()) / 20
        assert abs(float(gap) - shift) < 4 * spread
        assert shift > 8 * spread
    assert one.probe_error is None
    assert two.probe_error is not None
    # Two fair signs: their mean has the spread c / sqrt 2, and so has the root mean square over 500 draws.
    assert float(two.probe_error.mean()) == pytest.approx(c / math.sqrt(2), rel=0.05)
    # A mean of log w keeps what the probes leave unbiased.
    mean = density(samples=500, at_once=10_000)
    truth = density(samples=500, at_once=10_000, divergence="exact")
    assert abs(float((mean.nats - truth.nats).mean())) < 4 * c / (500 * 20) ** 0.5


class Blind(LinearGaussianVAE):
    """Loses images whose first pixel is white."""

    def encode(self, levels: Tensor, noise: Noise, draws: int = 1) -> tuple[LatentDraw, ...]:
        lost = (levels[:, 0, 0, 0] == 255).repeat_interleave(draws)[:, None, None, None]
        drawn = super().encode(levels, noise, draws)
        return tuple(LatentDraw(d.z.masked_fill(lost, torch.nan), d.log_q) for d in drawn)


def test_a_flow_that_cannot_go_on_names_the_image() -> None:
    vae = Blind()
    levels = vae.draw_levels(4)
    levels[2, 0, 0, 0] = 255
    with pytest.raises(SolverError, match=r"^sample 2 stopped at t = 1e-05: .* not finite") as caught:
        score_model(vae, 0.3, share=0.0).density(levels, range(4), DensityConfig("ode", samples=5))
    assert (caught.value.row, caught.value.t) == (2, 1e-5)


class Elsewhere(VAECoder):
    """A coder that says it was used."""

    def encode(self, levels: Tensor, noise: Noise, draws: int = 1) -> Encoded:
        return (
            super()
            .encode(levels, noise, draws)
            ._replace(reconstruction=torch.full((len(levels) * draws,), 7.0))
        )


def test_uniform_dequantisation_is_for_flows_of_models_that_have_levels_to_fill() -> None:
    vae = LinearGaussianVAE()
    coded, levels = score_model(vae, 0.3), vae.draw_levels(2)
    pixels = replace(coded, dequantised=Elsewhere(vae, 1e-5))  # type: ignore[arg-type]

    def reconstruction(model: ScoreBasedModel, method: str, dequantise: str) -> list[float]:
        config = DensityConfig(method, dequantise=dequantise)  # type: ignore[arg-type]
        return model.density(levels, range(2), config).terms["reconstruction"].tolist()

    for method in ("ode", "iw"):
        assert reconstruction(pixels, method, "uniform") == [7.0, 7.0]
        assert reconstruction(pixels, method, "noise") == reconstruction(coded, method, "noise") != [7.0, 7.0]
        assert reconstruction(coded, method, "uniform") == reconstruction(coded, method, "noise")
    assert reconstruction(coded, "nelbo", "uniform") == reconstruction(coded, "nelbo", "noise")
    with pytest.raises(UserError, match="ask for the method ode with it, or dequantise by noise"):
        reconstruction(pixels, "nelbo", "uniform")
