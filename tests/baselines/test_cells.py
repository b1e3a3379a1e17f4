"""Dequantised levels: exact masses of cells, bounds on discrete data, bits/dim that are known beforehand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import integrate, special, stats
from torch import Tensor, nn

from lsgm.config import DensityConfig
from lsgm.errors import UserError
from lsgm.generative import Pixels
from lsgm.model.diffusion import ScoreBasedModel, likelihood_bound
from lsgm.recipes.recipe import ObjectiveConfig
from lsgm.rng import RepeatedNoise, SeededNoise, StepNoise
from lsgm.score import ScoreModel
from lsgm.sde import VPSDE
from lsgm_baselines.sgm import (
    CellPixels,
    DequantisedPixels,
    NoisyCellPixels,
    NoisyCells,
    ScoreLoss,
    dequantised,
    log_mass,
)

M, SIGMA = 0.97, 0.2
"""A first noise that is as wide as the cells of ten levels."""
V, COUNT = 0.3**2, 8
"""Variance and levels of a Gaussian pixel."""


def kernel(time_eps: float) -> tuple[float, float]:
    """Return m_e and sigma_e."""
    t = torch.tensor(time_eps, dtype=torch.float64)
    return float(VPSDE().mean(t)), float(VPSDE().sigma(t))


def grey(side: int, levels: int) -> Pixels:
    bits = int(math.log2(levels))
    return Pixels(1, side, side, *(("binary", 1) if levels == 2 else ("discrete", bits)))  # type: ignore[arg-type]


class UniformNoise(nn.Module):
    """E[eps | z_t] where every pixel is uniform on [-1, 1]: what a perfect network predicts.

    p_t(z) = (Phi((z + m) / sigma) - Phi((z - m) / sigma)) / (2 m), mirrored to where the tails are accurate.
    """

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        m, sigma = (x[:, None, None, None] for x in (VPSDE().mean(t), VPSDE().sigma(t)))
        size = z_t.double().abs()
        far, near = -(size + m) / sigma, (m - size) / sigma
        phi = torch.exp(-0.5 * near**2) - torch.exp(-0.5 * far**2)
        mass = torch.special.ndtr(near) - torch.special.ndtr(far)
        return (z_t.sign() * phi / (math.sqrt(2 * math.pi) * mass)).to(z_t.dtype)


class GaussianNoise(nn.Module):
    """The same where every pixel is N(0, variance) before it is rounded to a cell."""

    def __init__(self, variance: float) -> None:
        super().__init__()
        self.variance = variance

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        m, var = VPSDE().mean(t), VPSDE().var(t)
        factor = var.sqrt() / (m**2 * self.variance + var)
        return z_t * factor[:, None, None, None].to(z_t.dtype)


def world(network: nn.Module, pixels: Pixels, time_eps: float) -> ScoreBasedModel:
    """Return a model with a perfect network, as one trained on dequantised levels is measured."""
    prior = ScoreModel(VPSDE(), network)
    return ScoreBasedModel(
        coder=NoisyCells(VPSDE(), pixels, time_eps),
        prior=prior,
        bound=likelihood_bound(prior, ObjectiveConfig(time_eps=time_eps)),
        dequantised=DequantisedPixels(pixels, time_eps),
    )


def cell(level: int) -> tuple[float, float]:
    """Return the ends of a level's cell, of `COUNT`."""
    return 2 * level / COUNT - 1, 2 * (level + 1) / COUNT - 1


def convolved(z: NDArray[np.float64], a: float, b: float, m: float, sigma: float) -> NDArray[np.float64]:
    """Return the density of m v + sigma n for v uniform on [a, b]; tails are 0 where they underflow."""
    density: NDArray[np.float64] = stats.norm.cdf((z - m * a) / sigma) - stats.norm.cdf((z - m * b) / sigma)
    return density / (m * (b - a))


def every_level(pixels: Pixels, rows: int) -> Tensor:
    """Return images of which every level has the same share."""
    count = rows * pixels.dims
    return (torch.arange(count) % pixels.levels).to(torch.uint8).reshape(rows, *pixels.shape)


def flow(samples: int = 1, **changes: object) -> DensityConfig:
    """The Jacobian of independent pixels is diagonal, and one probe of signs gives its trace exactly.

    Fixed steps: the density changes at once where the cube's edge reaches z, which an adaptive step may pass.
    """
    settings = {"method": "ode", "solver": "rk4", "steps": 80, "dequantise": "uniform", "at_once": 5000}
    return DensityConfig(**{**settings, "samples": samples, **changes})  # type: ignore[arg-type]


# Masses of intervals


@pytest.mark.parametrize("width", [1e-6, 1e-2, 1.0, 30.0])
@pytest.mark.parametrize("near", [0.0, 0.3, 5.0, 40.0, 1000.0])
def test_the_mass_of_an_interval_is_the_integral_of_the_density(near: float, width: float) -> None:
    """On one side of 0 as phi(a) int exp(-a y - y^2 / 2) dy, which neither underflows nor cancels."""
    reach = min(width, 40 / max(near, 1.0))  # beyond it nothing is left
    integral, _ = integrate.quad(lambda y: math.exp(-near * y - y * y / 2), 0, reach, epsabs=0, epsrel=1e-12)
    expected = -0.5 * near**2 - 0.5 * math.log(2 * math.pi) + math.log(integral)
    low, high = (torch.tensor([x], dtype=torch.float64) for x in (near, near + width))
    # near^2 / 2 in the logarithm, and near + width in the width, are rounded.
    tolerance = 1e-12 + 4e-16 * (near**2 + (1 + near) / width)
    for ours in (log_mass(low, high), log_mass(-high, -low)):
        assert float(ours) == pytest.approx(expected, rel=0, abs=tolerance)


@pytest.mark.parametrize(("low", "high"), [(-1.0, 2.0), (-40.0, 0.5), (-3.0, 40.0), (-9.0, 9.0)])
def test_the_mass_across_zero_is_scipys(low: float, high: float) -> None:
    ours = float(log_mass(*(torch.tensor(x, dtype=torch.float64) for x in (low, high))))
    assert ours == pytest.approx(math.log(stats.norm.cdf(high) - stats.norm.cdf(low)), rel=1e-13, abs=4e-16)


def test_the_mass_of_a_sliver_around_zero_is_its_width_times_the_density() -> None:
    half = torch.tensor(1e-9, dtype=torch.float64)
    assert float(log_mass(-half, half)) == pytest.approx(math.log(2e-9 / math.sqrt(2 * math.pi)), rel=1e-14)


# Cells


@pytest.mark.parametrize("count", [2, 32, 256])
def test_points_lie_in_their_level_s_cell_and_cells_are_rounded_to(count: int) -> None:
    levels = torch.arange(count, dtype=torch.uint8).reshape(1, 1, 1, count)
    for u in (0.0, 0.25, 0.999):
        z = dequantised(levels, torch.tensor(u, dtype=torch.float64), count)
        rounded = CellPixels(z, count)
        torch.testing.assert_close(
            (z.double() + 1) * count / 2 - levels, torch.full_like(z, u).double(), rtol=0, atol=1e-5
        )
        assert torch.equal((rounded.mean() * (count - 1)).round().to(torch.uint8), levels)
        assert torch.equal(rounded.sample(torch.rand(z.shape)), rounded.mean())
        assert bool((rounded.log_prob(levels) == 0).all())
        assert bool((rounded.log_prob(levels.flip(3)) == -torch.inf).all())
    outside = CellPixels(torch.tensor([-3.0, 3.0]).reshape(1, 1, 1, 2), count).mean()
    assert outside.flatten().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("count", [2, 10])
@pytest.mark.parametrize("z", [-1.6, -0.31, 0.0, 0.77, 1.2])
def test_the_posterior_of_a_cell_is_bayes_with_every_point_of_the_cube_as_likely(
    z: float, count: int
) -> None:
    """By brute force: the likelihood of z integrated over each cell."""
    edges = np.linspace(-1, 1, count + 1)
    mass = np.array([integrate.quad(stats.norm(z, SIGMA).pdf, M * a, M * b)[0] for a, b in pairwise(edges)])
    expected = mass / mass.sum()
    rows = torch.tensor(z, dtype=torch.float64).expand(count, 1, 1, 1)
    levels = torch.arange(count, dtype=torch.uint8).reshape(count, 1, 1, 1)
    ours = NoisyCellPixels(rows, M, SIGMA**2, count)
    np.testing.assert_allclose(ours.log_prob(levels).flatten().exp(), expected, rtol=1e-8)
    best = int((ours.mean()[0] * (count - 1)).round())
    assert expected[best] == pytest.approx(expected.max(), rel=1e-12)  # two are as likely at z = 0

    n = 20_000
    uniform = ((torch.arange(n).double() + 0.5) / n).reshape(n, 1, 1, 1)
    drawn = NoisyCellPixels(torch.full((n, 1, 1, 1), z), M, SIGMA**2, count).sample(uniform)
    counts = np.bincount((drawn.flatten() * (count - 1)).round().int().numpy(), minlength=count)
    np.testing.assert_allclose(counts / n, expected, atol=2 / n + 1e-6)


def test_far_from_the_cube_the_nearest_cell_is_certain() -> None:
    z = torch.tensor([-50.0, 50.0]).reshape(1, 1, 1, 2)
    ends = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2)
    ours = NoisyCellPixels(z, 1.0, 1e-6, 256)
    torch.testing.assert_close(ours.log_prob(ends), torch.zeros(1, 1, 1, 2).double(), rtol=0, atol=1e-5)
    assert ours.mean().flatten().tolist() == [0.0, 1.0]


def test_log_q_is_the_density_of_the_cell_convolved_with_the_first_noise() -> None:
    pixels, time_eps = grey(1, 8), 0.1
    m, sigma = kernel(time_eps)
    levels = torch.tensor([0, 3, 7], dtype=torch.uint8).reshape(3, 1, 1, 1)
    encoded = NoisyCells(VPSDE(), pixels, time_eps).encode(levels, SeededNoise(range(3)).normal)
    for level, z, log_q in zip(levels.flatten(), encoded.z_start.flatten(), encoded.log_q, strict=True):
        a, b = (2 * (int(level) + side) / 8 - 1 for side in (0, 1))
        density = integrate.quad(lambda v, z=float(z): stats.norm(m * v, sigma).pdf(z), a, b)[0] / (b - a)
        assert float(log_q) == pytest.approx(math.log(density), abs=1e-10)


# Bounds


@pytest.mark.parametrize("count", [2, 8])
def test_the_bound_of_one_pixel_is_exact_for_every_draw_where_all_levels_are_as_likely(count: int) -> None:
    """p(x | z_e) is then the true posterior, and p(x | z) p(z) / q(z | x) is P(x) = 1 / L whatever z."""
    m, sigma = kernel(0.2)
    levels = every_level(grey(1, count), count)
    noise = RepeatedNoise(range(count)).take(50)
    encoded = NoisyCells(VPSDE(), grey(1, count), 0.2).encode(levels, noise.normal, 50)
    z = encoded.z_start.double().numpy().flatten()
    p_e = (stats.norm.cdf((z + m) / sigma) - stats.norm.cdf((z - m) / sigma)) / (2 * m)
    nats = encoded.reconstruction + encoded.log_q - torch.from_numpy(np.log(p_e))
    torch.testing.assert_close(nats, torch.full_like(nats, math.log(count)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("spread", [0.2, 0.6, 3.0])
def test_the_probabilities_that_the_bounds_allow_sum_to_at_most_one(spread: float) -> None:
    """Of one pixel under a Gaussian p_e, by quadrature over z_e: a bound that were none would exceed it."""
    m, sigma = kernel(0.05)
    coder = NoisyCells(VPSDE(), grey(1, COUNT), 0.05)
    z = np.linspace(-4, 4, 8001)
    rows = torch.from_numpy(z).reshape(-1, 1, 1, 1)
    by_noise = by_uniform = 0.0
    for level in range(COUNT):
        a, b = cell(level)
        log_p_x = coder.decode(rows).log_prob(torch.full_like(rows, level)).flatten().numpy()
        q = convolved(z, a, b, m, sigma)
        log_w = log_p_x + stats.norm(0, spread).logpdf(z) - np.log(np.maximum(q, 1e-300))
        by_noise += math.exp((q * log_w).sum() * (z[1] - z[0]))
        points = a + (np.arange(2000) + 0.5) / 2000 * (b - a)
        by_uniform += math.exp(stats.norm(0, spread).logpdf(points).mean() - math.log(COUNT / 2))
    assert 0 < by_noise < 1
    assert 0 < by_uniform < 1


@pytest.mark.parametrize("count", [256, 32])
def test_inside_the_cube_uniform_noise_costs_exactly_its_bits(count: int) -> None:
    """Where the first noise leads no cell out of the cube: 8.000 bits/dim, and 5.000 of 5-bit data."""
    pixels = grey(8, count)
    levels = every_level(pixels, 4).clamp(1, count - 2)
    density = world(UniformNoise(), pixels, 1e-5).density(levels, range(4), flow())
    bits = density.nats / (pixels.dims * math.log(2))
    # p_1 is not quite N(0, I), 2e-5; the rest is the solver's, which falls to 1e-6 with 400 steps.
    np.testing.assert_allclose(bits, math.log2(count), atol=3e-4)


@pytest.mark.parametrize(("count", "bits"), [(256, 8.0), (32, 5.0), (2, 1.0)])
def test_uniform_noise_of_every_level_costs_its_bits_and_the_edge(count: int, bits: float) -> None:
    """p_e is the cube convolved with sigma_e, so that z at an edge is half as probable as inside."""
    pixels, time_eps = grey(16, count), 1e-3
    m, sigma = kernel(time_eps)
    one_edge, _ = integrate.quad(lambda x: -special.log_ndtr(x), (m - 1) / sigma, 40)
    edges = (2 * one_edge * sigma / 2 + math.log(m)) / math.log(2)  # two edges, and z has density 1/2
    density = world(UniformNoise(), pixels, time_eps).density(every_level(pixels, 4), range(4), flow(4))
    mean = float(density.nats.mean()) / (pixels.dims * math.log(2))
    assert density.error is not None
    error = float(density.error.square().sum().sqrt()) / 4 / (pixels.dims * math.log(2))
    assert 0 < edges < 0.02
    assert error < 0.004
    assert abs(mean - bits - edges) < 4 * error + 1e-4


@pytest.mark.parametrize("count", [256, 2])
def test_rounding_the_first_noise_away_pays_for_no_edge(count: int) -> None:
    """The world of uniform noise is the one that `NoisyCells` is exact for, draw by draw."""
    pixels = grey(8, count)
    config = flow(dequantise="noise")
    density = world(UniformNoise(), pixels, 1e-3).density(every_level(pixels, 4), range(4), config)
    np.testing.assert_allclose(density.nats / (pixels.dims * math.log(2)), math.log2(count), atol=1e-4)


def discretised(time_eps: float) -> tuple[Tensor, float]:
    """Return -log P of the levels of a pixel N(0, s_e^2) cut into cells, and s_e^2; the rest is outside."""
    m, sigma = kernel(time_eps)
    scale = math.sqrt(m**2 * V + sigma**2)
    edges = torch.linspace(-1, 1, COUNT + 1, dtype=torch.float64) / scale
    return -log_mass(edges[:-1], edges[1:]), scale**2


def test_the_dequantised_bound_of_a_gaussian_pixel_is_above_its_exact_nats_and_close() -> None:
    """E_u of a quadratic is one: (c^2 + w^2 / 12) / (2 s^2) for a cell of centre c and width w."""
    pixels, time_eps, samples = grey(1, COUNT), 1e-3, 64
    exact, var = discretised(time_eps)
    centre = (torch.arange(COUNT) * 2 + 1) / COUNT - 1
    square = (centre.double() ** 2 + (2 / COUNT) ** 2 / 12) / (2 * var)
    expected = square + 0.5 * math.log(2 * math.pi * var) + math.log(COUNT / 2)
    gap = expected - exact
    assert bool((gap > 0).all())
    assert float(gap.max()) < 0.35  # the outermost cell's, 3.3 standard deviations out

    model = world(GaussianNoise(V), pixels, time_eps)
    density = model.density(every_level(pixels, COUNT), range(COUNT), flow(samples))
    assert density.error is not None
    assert bool(((density.nats - expected).abs() < 4 * density.error + 1e-4).all())
    assert set(density.terms) == {"reconstruction", "negative_entropy", "cross_entropy"}
    assert bool((density.terms["reconstruction"] == 0).all())

    tighter = model.density(every_level(pixels, COUNT), range(COUNT), flow(2000, method="iw", steps=30))
    assert tighter.error is not None
    assert bool(((tighter.nats - exact).abs() < 5 * tighter.error + 1e-4).all())


@pytest.mark.parametrize("method", ["nelbo", "ode"])
def test_the_bound_by_the_first_noise_is_one_of_a_gaussian_pixel_too(method: str) -> None:
    """P(x) = int p_e(z) p(x | z) dz by quadrature, and the bound's own expectation over q(z_e | x)."""
    pixels, time_eps = grey(1, COUNT), 0.02
    _, var = discretised(time_eps)
    model = world(GaussianNoise(V), pixels, time_eps)
    z = np.linspace(-6, 6, 24001)
    rows, step = torch.from_numpy(z).reshape(-1, 1, 1, 1), z[1] - z[0]
    m, sigma = kernel(time_eps)
    rounded = NoisyCellPixels(rows, m, sigma**2, COUNT)
    exact, expected = [], []
    for level in range(COUNT):
        q = convolved(z, *cell(level), m, sigma)
        log_p_x = rounded.log_prob(torch.full_like(rows, level)).flatten().numpy()
        log_p = stats.norm(0, math.sqrt(var)).logpdf(z)
        exact.append(-math.log(np.exp(log_p_x + log_p).sum() * step))
        expected.append(float((q * (np.log(np.maximum(q, 1e-300)) - log_p_x - log_p)).sum() * step))
    config = (
        DensityConfig("nelbo", draws=8, samples=400) if method == "nelbo" else flow(64, dequantise="noise")
    )
    density = model.density(every_level(pixels, COUNT), range(COUNT), config)
    assert density.error is not None
    assert bool((torch.tensor(expected) > torch.tensor(exact)).all())
    assert bool(((density.nats - torch.tensor(expected)).abs() < 4.5 * density.error + 1e-3).all())


def test_training_reports_the_score_matching_bound_but_for_the_outer_edges() -> None:
    """It leaves out -log of the mass within the cube, which is never below 0, and small."""
    pixels, time_eps = grey(4, 32), 1e-2
    model, levels = world(GaussianNoise(1 / 3), pixels, time_eps), every_level(pixels, 64)
    density = model.density(levels, range(64), DensityConfig(draws=16, samples=8))
    inside = density.terms["reconstruction"] + density.terms["negative_entropy"]
    edges = float(-inside.mean()) - pixels.dims * math.log(2 * kernel(time_eps)[0] / 32)
    assert 0 <= edges < 0.05 * pixels.dims

    loss = ScoreLoss(model.prior, pixels, model.bound, dequantise="uniform")
    steps = [StepNoise(3, step, global_batch=64) for step in range(32)]
    values = torch.tensor([float(loss(levels, noise, 0.0).terms["nelbo"]) for noise in steps])
    error = float(values.std()) / 32**0.5  # the other side's is a tenth of it
    assert float(values.mean()) == pytest.approx(float(density.nats.mean()) + edges, abs=4 * error)
    assert error < 0.01 * float(values.mean())


def test_the_error_of_an_image_falls_with_the_root_of_its_draws() -> None:
    pixels = grey(2, 2)
    model, levels = world(GaussianNoise(V), pixels, 1e-3), every_level(pixels, 200)

    def coarse(samples: int) -> DensityConfig:
        return flow(samples, solver="heun", steps=5)

    few, many = (model.density(levels, range(200), coarse(samples)) for samples in (4, 64))
    assert few.error is not None
    assert many.error is not None
    ratio = float(few.error.square().mean() / many.error.square().mean())
    # 200 images of three degrees of freedom each: the ratio of variances is good to a tenth.
    assert ratio == pytest.approx(16, rel=0.35)
    spread = float((few.nats - many.nats).std() / (few.error.square() + many.error.square()).mean().sqrt())
    assert spread == pytest.approx(1, rel=0.25)


def test_dequantised_pixels_know_no_score_matching_bound() -> None:
    model = world(GaussianNoise(V), grey(2, 2), 1e-3)
    config = DensityConfig("nelbo", dequantise="uniform")
    with pytest.raises(UserError, match="ask for the method ode"):
        model.density(every_level(grey(2, 2), 1), [0], config)


def test_levels_own_points_leave_the_inside_of_binary_cells_improbable() -> None:
    """Why a model of points is scored by noise: the flow's mass lies at the outer edges of the cells."""
    m, sigma = kernel(1e-2)
    inside, _ = integrate.quad(
        lambda z: -np.logaddexp(*(stats.norm(m * x, sigma).logpdf(z) - math.log(2) for x in (-1, 1))), 0, 1
    )
    assert inside == pytest.approx(
        1 / (6 * sigma**2) + math.log(2 * sigma * math.sqrt(2 * math.pi)), rel=0.02
    )
    assert inside > 50  # nats per pixel, where the noise path of the same model pays one bit
