"""Densities by the probability flow: exact in Gaussian worlds, unbiased by Hutchinson, sparing of graphs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from oracles.gaussian import GaussianWorld, StandardNormalWorld
from oracles.worlds import SDES, gaussian_world, mixture_world
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from lsgm.errors import ConfigError
from lsgm.likelihood import Angle, flow_times, ode_log_prob
from lsgm.ode import METHODS, SolverError, odeint
from lsgm.rng import SeededNoise
from lsgm.sampling.grids import time_end_of
from lsgm.sde import SDE, VPSDE, GeometricVPSDE


def points(count: int, size: int) -> Tensor:
    return torch.randn(count, size, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("kind", SDES)
def test_the_density_of_a_gaussian_world_is_exact(kind: str) -> None:
    world, z0 = gaussian_world(SDES[kind]), points(6, 3)
    result = ode_log_prob(world, z0, range(6), rtol=1e-9, atol=1e-9, divergence="exact")
    expected = world.ode_log_prob(z0, time_end_of(world.sde))
    # At 1e-9 the solver's error is below 1e-7 nats in all worlds: 1e-6 nats per dimension with room to spare.
    torch.testing.assert_close(result.log_p / 3, expected / 3, rtol=0, atol=1e-6)
    torch.testing.assert_close(result.log_p, result.log_prior + result.divergence, rtol=0, atol=0)
    assert result.log_p.dtype == torch.float64
    assert result.std_error.tolist() == [0.0] * 6


@pytest.mark.parametrize("kind", SDES)
def test_the_divergence_of_a_mixture_world_is_the_change_of_its_density(kind: str) -> None:
    """log p_te(z_te) - log p_1(z_1) along the flow, with the mixture's own p_1 instead of the prior."""
    world, z0 = mixture_world(SDES[kind]), points(4, 2)
    te = time_end_of(world.sde)
    result = ode_log_prob(world, z0, range(4), rtol=1e-8, atol=1e-8, divergence="exact")
    z1 = odeint(lambda z, t, rows: world.drift(z, t), z0, te, 1.0, rtol=1e-8, atol=1e-8).y
    start, end = (world.log_prob(z, torch.full((4,), t).double()) for z, t in ((z0, te), (z1, 1.0)))
    torch.testing.assert_close(result.divergence, start - end, rtol=0, atol=1e-5)


def sharp_world(scale: float) -> tuple[GaussianWorld, Tensor]:
    """Return data within ``scale`` of known points, as pixels are of their levels, and eight of its draws."""
    generator = torch.Generator().manual_seed(0)
    mu = 2 * torch.rand(40, dtype=torch.float64, generator=generator) - 1
    world = GaussianWorld(VPSDE(), mu, torch.full((40,), scale**2, dtype=torch.float64))
    mean, var = world.moments(1e-5)
    return world, mean + var.sqrt() * torch.randn(8, 40, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("scale", [1e-2, 1e-3])
@pytest.mark.parametrize("tol", [1e-2, 1e-3, 1e-4])
def test_in_the_step_control_a_sharp_density_is_exact_to_the_tolerance(scale: float, tol: float) -> None:
    """By the state alone z rests at its point while its density changes by many nats per dimension."""
    world, z = sharp_world(scale)
    expected = world.ode_log_prob(z, 1e-5)

    def error(**control: float) -> float:
        # One signed probe is the exact trace where the Jacobian is diagonal.
        found = ode_log_prob(world, z, range(8), rtol=tol, atol=tol, **control)  # type: ignore[arg-type]
        return float((found.log_p - expected).abs().max()) / 40

    # A step may err by tol nats per dimension, and few of some ten steps are that bad, with one sign.
    assert error(log_p_atol=tol) < 2 * tol
    assert error() > 20 * tol


def test_a_fixed_probe_costs_the_steps_of_the_exact_trace_under_control_too() -> None:
    world, z = sharp_world(1e-2)
    exact, probe = (
        ode_log_prob(world, z, range(8), rtol=1e-3, atol=1e-3, log_p_atol=1e-3, divergence=way)  # type: ignore[arg-type]
        for way in ("exact", "hutchinson")
    )
    # The Jacobian is diagonal: signs give its trace.
    torch.testing.assert_close(probe.log_p, exact.log_p, rtol=1e-9, atol=0)
    assert torch.equal(probe.nfe, exact.nfe)


def test_the_noise_of_a_probe_is_no_error_to_the_control() -> None:
    """Its integrand is as smooth as the trace's: however noisy, the steps are about as many."""
    world, z0 = mixture_world(VPSDE()), points(64, 2)
    exact, probe = (
        ode_log_prob(world, z0, range(64), rtol=1e-5, atol=1e-5, log_p_atol=1e-5, divergence=way)  # type: ignore[arg-type]
        for way in ("exact", "hutchinson")
    )
    assert float((probe.log_p - exact.log_p).std()) > 1e-2  # noise of a thousand times the tolerance
    assert float(probe.nfe.double().mean()) == pytest.approx(float(exact.nfe.double().mean()), rel=0.1)


@pytest.mark.parametrize("kind", ["vp", "geometric"])
@pytest.mark.parametrize("divergence", ["exact", "hutchinson"])
def test_without_a_network_the_density_is_the_standard_normal(kind: str, divergence: str) -> None:
    z0 = points(4, 5)
    world = StandardNormalWorld(SDES[kind], a=0.0)
    result = ode_log_prob(world, z0, range(4), rtol=1e-5, atol=1e-5, divergence=divergence)  # type: ignore[arg-type]
    expected = -0.5 * (z0.square() + math.log(2 * math.pi)).sum(1)
    torch.testing.assert_close(result.log_p, expected, rtol=1e-14, atol=0)


def test_a_little_mixing_with_a_silent_network_scales_the_normal() -> None:
    """dz/dt = -a g^2 z / 2 has z_1 = z_0 exp(-a B(1) / 2), B(1) = integral of beta = 10.05."""
    a, z0 = 0.01, points(4, 5)
    result = ode_log_prob(
        StandardNormalWorld(VPSDE(), a=a),
        z0,
        range(4),
        rtol=1e-10,
        atol=1e-10,
        time_eps=1e-12,
        divergence="exact",
    )
    shrink = math.exp(-0.5 * a * 10.05)
    expected = -0.5 * ((shrink * z0).square() + math.log(2 * math.pi)).sum(1) + 5 * math.log(shrink)
    torch.testing.assert_close(result.log_p, expected, rtol=0, atol=1e-8)


def test_float32_states_lose_little() -> None:
    world, z0 = gaussian_world(VPSDE()), points(6, 3)
    result = ode_log_prob(world, z0.float(), range(6), rtol=1e-5, atol=1e-5, divergence="exact")
    assert result.log_p.dtype == torch.float64
    # The passenger is carried, not controlled: its error is some tens of the state's tolerance.
    torch.testing.assert_close(result.log_p, world.ode_log_prob(z0, 1e-5), rtol=0, atol=5e-3)


def test_one_signed_probe_is_exact_where_the_jacobian_is_diagonal() -> None:
    world, z0 = gaussian_world(VPSDE()), points(4, 3)
    exact = ode_log_prob(world, z0, range(4), rtol=1e-6, atol=1e-6, divergence="exact")
    probe = ode_log_prob(world, z0, range(4), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(probe.log_p, exact.log_p, rtol=1e-12, atol=1e-12)
    assert probe.std_error.isnan().all()


def test_hutchinson_is_unbiased_and_its_standard_error_honest() -> None:
    world, copies, probes = mixture_world(VPSDE()), 400, 4
    z0 = points(1, 2).expand(copies, 2)
    exact = ode_log_prob(world, z0[:1], [0], rtol=1e-5, atol=1e-5, divergence="exact")
    result = ode_log_prob(world, z0, range(copies), rtol=1e-5, atol=1e-5, probes=probes)
    spread = float(result.log_p.std())
    assert spread > 1e-3  # off-diagonal terms are there, or the test shows nothing
    # One standard score of fixed seeds, below 4.
    assert abs(float(result.log_p.mean() - exact.log_p)) < 4 * spread / copies**0.5
    # 400 x 3 degrees of freedom: the mean squared standard error is the variance within 20 per cent.
    assert float(result.std_error.square().mean()) == pytest.approx(spread**2, rel=0.2)


def test_probes_stay_fixed_so_the_estimate_costs_the_steps_of_the_exact_trace() -> None:
    world, z0 = mixture_world(VPSDE()), points(8, 2)
    runs = [
        ode_log_prob(world, z0, range(8), rtol=1e-5, atol=1e-5, divergence="exact"),
        ode_log_prob(world, z0, range(8), rtol=1e-5, atol=1e-5),
        ode_log_prob(world, z0, range(8), rtol=1e-5, atol=1e-5, probes=3),
    ]
    assert runs[0].nfe.tolist() == runs[1].nfe.tolist() == runs[2].nfe.tolist()
    assert torch.equal(runs[0].nfe, 2 + 6 * (runs[0].accepted + runs[0].rejected))


def test_image_k_has_the_same_density_alone_and_in_company() -> None:
    world, z0 = mixture_world(VPSDE()), points(64, 2)
    many = ode_log_prob(world, z0, range(100, 164), rtol=1e-5, atol=1e-5, probes=2)
    for k in (0, 40, 63):
        one = ode_log_prob(world, z0[k : k + 1], [100 + k], rtol=1e-5, atol=1e-5, probes=2)
        torch.testing.assert_close(one.log_p[0], many.log_p[k], rtol=1e-12, atol=1e-12)
        assert one.nfe.item() == many.nfe[k].item()


@pytest.mark.parametrize("kind", [kind for kind, sde in SDES.items() if sde.is_vp_like])
def test_along_the_angle_the_density_is_the_same_at_fewer_evaluations(kind: str) -> None:
    world, z0 = mixture_world(SDES[kind]), points(32, 2)
    truth = ode_log_prob(world, z0, range(32), rtol=1e-9, atol=1e-9, divergence="exact")
    exact = ode_log_prob(world, z0, range(32), rtol=1e-9, atol=1e-9, divergence="exact", coordinate="angle")
    torch.testing.assert_close(exact.log_p, truth.log_p, rtol=0, atol=1e-6)
    assert float(exact.nfe.double().mean()) < 0.9 * float(truth.nfe.double().mean())
    many = ode_log_prob(world, z0, range(32), rtol=1e-4, atol=1e-4, coordinate="angle")
    for k in (0, 13):
        one = ode_log_prob(world, z0[k : k + 1], [k], rtol=1e-4, atol=1e-4, coordinate="angle")
        torch.testing.assert_close(one.log_p[0], many.log_p[k], rtol=1e-12, atol=1e-12)
        assert one.nfe.item() == many.nfe[k].item()


def test_the_angle_and_the_time_are_one_anothers_inverse() -> None:
    for sde in (VPSDE(), VPSDE(sigma2_0=1e-2), GeometricVPSDE()):
        turn, start = Angle(sde), time_end_of(sde)
        t = torch.linspace(start, 1.0, 50, dtype=torch.float64)
        # 1 - sigma_t^2 is 5e-5 at the end of the VP SDE: a rounding of sigma_t^2 moves t by 1e-12.
        torch.testing.assert_close(turn.time(turn.angle(t), start), t, rtol=1e-9, atol=1e-12)
    with pytest.raises(
        ConfigError, match="unit variance, which VESDE does not; leave the coordinate at time"
    ):
        Angle(SDES["ve"])


def test_along_the_angle_a_sample_that_cannot_go_on_is_named_with_its_time() -> None:
    class Broken(GaussianWorld):
        def drift(self, z: Tensor, t: Tensor) -> Tensor:
            return super().drift(z, t) * torch.where(t > 0.5, torch.nan, 1.0)[:, None]

    world, z0 = gaussian_world(VPSDE()), points(2, 3)
    broken = Broken(world.sde, world.mu, world.s2)
    with pytest.raises(SolverError, match="not finite") as caught:
        ode_log_prob(broken, z0, range(2), rtol=1e-3, atol=1e-3, coordinate="angle")
    assert caught.value.t == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize("kind", SDES)
@pytest.mark.parametrize("solver", METHODS)
def test_fixed_steps_approach_the_exact_density_at_their_order(kind: str, solver: str) -> None:
    world, z0 = gaussian_world(SDES[kind]), points(6, 3)
    expected = world.ode_log_prob(z0, time_end_of(world.sde))
    errors = []
    # The sub-VP SDE's error takes more steps to be its leading term.
    first = 160 if kind == "subvp" else 40
    for steps in (first, 2 * first):
        # One signed probe is the exact trace where the Jacobian is diagonal.
        result = ode_log_prob(world, z0, range(6), solver=solver, steps=steps)  # type: ignore[arg-type]
        errors.append(float((result.log_p - expected).square().mean().sqrt()))
        assert result.nfe.tolist() == [METHODS[solver].stages * steps] * 6
    # The leading term of the error, with a quarter of an order to spare for the next ones.
    assert math.log2(errors[0] / errors[1]) == pytest.approx(METHODS[solver].order, abs=0.25)


@pytest.mark.parametrize(
    ("kind", "steps"), [("vp", 80), ("vp-noisy", 80), ("subvp", 80), ("ve", 320), ("geometric", 320)]
)
def test_rk4_is_exact_to_a_micronat_per_dimension(kind: str, steps: int) -> None:
    world, z0 = gaussian_world(SDES[kind]), points(6, 3)
    result = ode_log_prob(world, z0, range(6), solver="rk4", steps=steps)
    expected = world.ode_log_prob(z0, time_end_of(world.sde))
    torch.testing.assert_close(result.log_p / 3, expected / 3, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", SDES)
def test_the_times_of_fixed_steps_rise_from_the_start_to_one(kind: str) -> None:
    start = time_end_of(SDES[kind])
    times = flow_times(SDES[kind], 20, start)
    assert times.shape == (21,)
    assert (float(times[0]), float(times[-1])) == (start, 1.0)
    assert bool((times.diff() > 0).all())


def test_scipy_agrees_on_state_and_density_together() -> None:
    """An independent solver on the augmented system, whose Jacobian's trace is by central differences."""
    world, z0 = mixture_world(VPSDE()), points(1, 2)

    def field(t: float, state: np.ndarray) -> np.ndarray:
        z, h = torch.from_numpy(state[:2]), 1e-5
        # Rows: the point itself, then both sides of it along each axis.
        shifts = torch.cat([torch.zeros(1, 2), h * torch.eye(2), -h * torch.eye(2)]).double()
        v = world.drift(z + shifts, torch.full((5,), t, dtype=torch.float64))
        trace = (v[1, 0] - v[3, 0] + v[2, 1] - v[4, 1]) / (2 * h)
        return np.append(v[0].numpy(), float(trace))

    start = np.append(z0[0].numpy(), 0.0)
    oracle = solve_ivp(field, (1e-5, 1.0), start, method="DOP853", rtol=1e-9, atol=1e-9).y[:, -1]
    result = ode_log_prob(world, z0, [0], rtol=1e-9, atol=1e-9, divergence="exact")
    # Central differences leave h^2 and 1e-16 / h, both 1e-10 times the velocity's scale of 10 (beta).
    expected = -0.5 * (oracle[0] ** 2 + oracle[1] ** 2) - math.log(2 * math.pi) + oracle[2]
    assert float(result.log_p) == pytest.approx(expected, abs=1e-7)


def test_the_variance_of_hutchinson_falls_as_one_over_the_probes() -> None:
    world, copies = mixture_world(VPSDE()), 1000
    z0 = points(1, 2).expand(copies, 2)
    variances = [
        float(ode_log_prob(world, z0, range(copies), rtol=1e-3, atol=1e-3, probes=probes).log_p.var())
        for probes in (1, 4)
    ]
    # A ratio of two sample variances of 999 degrees of freedom has a relative error of at most 2 / sqrt(999)
    # for tails no heavier than a Gaussian's, which sums of bounded signs have not: 4 of them.
    assert variances[0] / variances[1] == pytest.approx(4.0, rel=4 * 2 / 999**0.5)


def test_a_fixed_probe_needs_fewer_evaluations_than_one_redrawn_at_the_same_tolerance() -> None:
    """Both under step control, as in the reference: noise in the field is error to an adaptive solver."""
    world, z0, generator = mixture_world(VPSDE()), points(16, 2), torch.Generator().manual_seed(3)
    fixed = torch.randint(0, 2, (16, 2), generator=generator).double() * 2 - 1

    def evaluations(redrawn: bool) -> float:
        def field(y: Tensor, t: Tensor, rows: Tensor) -> Tensor:
            probe = torch.randint(0, 2, (len(y), 2), generator=generator).double() * 2 - 1
            probe = probe if redrawn else fixed[rows]
            with torch.enable_grad():
                z = y[:, :2].detach().requires_grad_()
                velocity = world.drift(z, t)
                (pulled,) = torch.autograd.grad(velocity, z, probe)
            return torch.cat([velocity.detach(), (pulled * probe).sum(1, keepdim=True)], dim=1)

        start = torch.cat([z0, torch.zeros(16, 1, dtype=torch.float64)], dim=1)
        solution = odeint(field, start, 1e-5, 1.0, rtol=1e-3, atol=1e-3, max_steps=100_000)
        return float(solution.nfe.double().mean())

    assert 3 * evaluations(redrawn=False) < evaluations(redrawn=True)


def test_noise_may_stand_for_seeds() -> None:
    world, z0 = mixture_world(VPSDE()), points(3, 2)
    by_seed = ode_log_prob(world, z0, range(3), rtol=1e-3, atol=1e-3)
    by_noise = ode_log_prob(world, z0, SeededNoise(range(3), stream="probe"), rtol=1e-3, atol=1e-3)
    assert torch.equal(by_seed.log_p, by_noise.log_p)


class TinyScore(nn.Module):
    """A score function with parameters, on images, that notes whether they were in the graph."""

    def __init__(self, sde: SDE) -> None:
        super().__init__()
        self.sde = sde
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.frozen_before = nn.Parameter(torch.zeros(1), requires_grad=False)
        self.trained: set[bool] = set()

    def eps(self, z_t: Tensor, t: Tensor) -> Tensor:
        self.trained.add(self.conv.weight.requires_grad)
        return torch.tanh(self.conv(z_t))

    def drift(self, z_t: Tensor, t: Tensor) -> Tensor:
        half_g2 = (0.5 * self.sde.g2(t)).to(z_t.dtype).view(-1, 1, 1, 1)
        sigma = self.sde.sigma(t).to(z_t.dtype).view(-1, 1, 1, 1)
        return 0.05 * half_g2 * (self.eps(z_t, t) / sigma - z_t)


def test_parameters_stay_out_of_the_graph_and_come_back_as_they_were() -> None:
    torch.manual_seed(0)
    score = TinyScore(GeometricVPSDE())
    result = ode_log_prob(score, torch.randn(3, 2, 4, 4), range(3), rtol=1e-4, atol=1e-4)
    assert score.trained == {False}
    assert score.conv.weight.requires_grad
    assert not score.frozen_before.requires_grad
    assert score.conv.weight.grad is None
    assert not result.log_p.requires_grad


def test_parameters_come_back_after_a_failure_too() -> None:
    score = TinyScore(GeometricVPSDE())
    z0 = torch.stack([torch.zeros(2, 4, 4), torch.full((2, 4, 4), torch.nan)])
    with pytest.raises(SolverError, match="sample 1 stopped"):
        ode_log_prob(score, z0, range(2), rtol=1e-4, atol=1e-4)
    assert score.conv.weight.requires_grad


def test_the_exact_trace_of_images_is_the_sum_over_a_full_jacobian() -> None:
    torch.manual_seed(0)
    score, z = TinyScore(GeometricVPSDE()).double(), torch.randn(1, 2, 2, 2, dtype=torch.float64)
    exact = ode_log_prob(score, z, [0], rtol=1e-3, atol=1e-3, divergence="exact")

    def field(z: Tensor, t: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        jacobian = torch.autograd.functional.jacobian(lambda x: score.drift(x, t), z)
        return score.drift(z, t), jacobian.reshape(8, 8).trace()[None]

    oracle = odeint(field, z, 0.0, 1.0, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(exact.divergence, oracle.passenger, rtol=1e-9, atol=1e-9)
    probes = ode_log_prob(score, z, [0], rtol=1e-3, atol=1e-3, probes=25)
    assert abs(float(probes.log_p - exact.log_p)) < 4 * float(probes.std_error)


def test_an_empty_batch_has_no_densities() -> None:
    result = ode_log_prob(gaussian_world(VPSDE()), torch.zeros(0, 3), [], rtol=1e-3, atol=1e-3)
    assert result.log_p.shape == (0,)


def test_bad_options_are_named() -> None:
    world, z0 = gaussian_world(VPSDE()), torch.zeros(2, 3)
    with pytest.raises(ConfigError, match="probes is 0"):
        ode_log_prob(world, z0, range(2), rtol=1e-3, atol=1e-3, probes=0)
    with pytest.raises(ConfigError, match="unknown divergence 'exakt'; did you mean 'exact'"):
        ode_log_prob(world, z0, range(2), rtol=1e-3, atol=1e-3, divergence="exakt")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown solver 'rk5'; did you mean 'rk4'"):
        ode_log_prob(world, z0, range(2), solver="rk5")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown coordinate 'angel'; did you mean 'angle'"):
        ode_log_prob(world, z0, range(2), coordinate="angel")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="steps is 0"):
        ode_log_prob(world, z0, range(2), solver="rk4", steps=0)
    with pytest.raises(ConfigError, match="3 seeds for 2 samples"):
        ode_log_prob(world, z0, range(3), rtol=1e-3, atol=1e-3)
    with pytest.raises(ConfigError, match="exact divergence of 5000 dimensions"):
        ode_log_prob(world, torch.zeros(1, 5000), [0], rtol=1e-3, atol=1e-3, divergence="exact")
    with pytest.raises(ConfigError, match="no noise yet"):
        ode_log_prob(world, z0, range(2), rtol=1e-3, atol=1e-3, time_eps=0.0)
