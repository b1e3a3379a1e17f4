"""The mixed score: its Normal limit, its probability flow, its score, and channels that are out of use."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from lsgm.errors import ConfigError
from lsgm.nets.config import ScoreNetConfig
from lsgm.nets.ncsnpp import NCSNpp
from lsgm.sampling.registry import node_times
from lsgm.score import ScoreModel
from lsgm.sde import SDE, VESDE, VPSDE, GeometricVPSDE, SubVPSDE

SDES = [VPSDE(), SubVPSDE(), VESDE(), GeometricVPSDE()]


class Wave(nn.Module):
    """A smooth network of z and t."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.3, dtype=torch.float64))

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        return torch.sin(self.gain * z_t) + t.reshape(-1, 1, 1, 1).to(z_t.dtype)


def latents() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(5, 3, 4, 4, dtype=torch.float64), torch.tensor([0.01, 0.2, 0.5, 0.9, 1.0]).double()


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("mixing", [None, 0.4])
def test_the_flow_is_the_drift_minus_half_g2_times_the_score(sde: SDE, mixing: float | None) -> None:
    """The cancellation-free form against f z - g^2 score / 2 (arXiv:2011.13456, equation 13)."""
    z, t = latents()
    model = ScoreModel(
        sde, Wave(), channels=None if mixing is None else 3, mixing_init=mixing or 0.0
    ).double()
    f, g2 = (x.reshape(-1, 1, 1, 1) for x in (sde.f(t), sde.g2(t)))
    plain = f * z - 0.5 * g2 * model.score(z, t)
    # The plain form subtracts terms of size g^2 |z|: at t = 1 of the geometric SDE that costs four digits.
    tolerance = 1e-13 * float((g2 * z.abs().amax()).max()) + 1e-12
    torch.testing.assert_close(model.drift(z, t), plain, rtol=0, atol=tolerance)


@pytest.mark.parametrize("sde", [VPSDE(), GeometricVPSDE()], ids=lambda sde: type(sde).__name__)
def test_a_share_of_zero_is_the_normal_prior_and_stands_still(sde: SDE) -> None:
    z, t = latents()
    model = ScoreModel(sde, Wave(), channels=3, mixing_init=-1e4).double()
    torch.testing.assert_close(model.score(z, t), -z, rtol=1e-12, atol=1e-12)
    assert torch.equal(model.drift(z, t), torch.zeros_like(z))


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_a_share_of_one_leaves_the_network_alone(sde: SDE) -> None:
    z, t = latents()
    alone, mixed = ScoreModel(sde, Wave()), ScoreModel(sde, Wave(), channels=3, mixing_init=1e4)
    torch.testing.assert_close(mixed.double().eps(z, t), alone.eps(z, t), rtol=1e-12, atol=1e-12)


def test_the_share_is_learned_per_channel() -> None:
    z, t = latents()
    model = ScoreModel(VPSDE(), Wave(), channels=3, mixing_init=-3.0).double()
    model.eps(z, t).square().sum().backward()
    assert model.logit is not None
    assert model.logit.grad is not None
    assert model.logit.grad.shape == (1, 3, 1, 1)
    assert bool((model.logit.grad != 0).all())


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("form", ["mixed", "velocity"])
def test_weights_that_stay_as_they_are_change_no_bit(form: str, dropped: bool) -> None:
    z, t = latents()
    z = z.float()
    model = ScoreModel(VPSDE(), Wave().float(), channels=3, parameterisation=form, mixing_init=0.3)  # type: ignore[arg-type]
    model.drop_channels(torch.tensor([False, dropped, False]))
    with torch.no_grad():
        before = model.eps(z, t), model.drift(z, t)
        with model.fixed():
            for _ in range(2):
                assert torch.equal(model.eps(z, t), before[0])
                assert torch.equal(model.drift(z, t), before[1])
        model.drop_channels(torch.tensor([True, False, False]))
        assert not torch.equal(model.eps(z, t), before[0])


def test_times_that_are_come_back_to_change_no_bit() -> None:
    z, _ = latents()
    times = torch.tensor([1.0, 0.4, 0.01], dtype=torch.float64)
    for sde in SDES:
        for form in ("mixed", "velocity"):
            model = ScoreModel(sde, Wave(), channels=3, parameterisation=form).double()  # type: ignore[arg-type]
            for k, t in enumerate(node_times(times, len(z))):
                plain = times[k].expand(len(z))
                for _ in range(2):
                    assert torch.equal(model.eps(z, t), model.eps(z, plain))
                    assert torch.equal(model.drift(z, t), model.drift(z, plain))


def test_low_precision_networks_leave_the_latent_in_its_dtype() -> None:
    z, t = latents()
    network = nn.Conv2d(3, 3, 1)

    class Cast(nn.Module):
        def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                out: Tensor = network(z_t)
            return out

    model = ScoreModel(VPSDE(), Cast(), channels=3)
    assert model.eps(z.float(), t).dtype == model.drift(z.float(), t).dtype == torch.float32


def mixing_channels() -> ScoreModel:
    """A model whose network lets every channel see every other."""
    torch.manual_seed(0)
    network = NCSNpp(ScoreNetConfig(8, (1,), 1, embedding=8), channels=3, resolution=4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return ScoreModel(VPSDE(), network, channels=3, mixing_init=0.0).double()


def test_what_a_dropped_channel_holds_never_reaches_the_others() -> None:
    z, t = latents()
    noisy = z.clone()
    noisy[:, 1] = torch.randn_like(z[:, 1])
    model = mixing_channels()
    others = [0, 2]
    assert not torch.equal(model.eps(noisy, t)[:, others], model.eps(z, t)[:, others])
    model.drop_channels(torch.tensor([False, True, False]))
    assert torch.equal(model.eps(noisy, t)[:, others], model.eps(z, t)[:, others])
    assert torch.equal(model.drift(noisy, t)[:, others], model.drift(z, t)[:, others])


def test_a_dropped_channel_follows_the_normal_prior() -> None:
    z, t = latents()
    model = mixing_channels()
    model.drop_channels(torch.tensor([False, True, False]))
    # Its share is sigmoid(-15) = 3e-7, of a network of order one.
    torch.testing.assert_close(
        model.eps(z, t)[:, 1], model.sde.sigma(t)[:, None, None] * z[:, 1], atol=1e-5, rtol=0
    )


def test_the_channels_in_use_are_part_of_the_weights() -> None:
    z, t = latents()
    model, other = mixing_channels(), mixing_channels()
    model.drop_channels(torch.tensor([True, False, False]))
    other.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})
    assert other.active.flatten().tolist() == [False, True, True]
    assert torch.equal(other.eps(z, t), model.eps(z, t))
    assert torch.equal(deepcopy(model).eps(z, t), model.eps(z, t))


def test_neither_training_nor_a_lagging_average_revives_a_dropped_channel() -> None:
    """Weight decay pulls the logit towards 0, an average of weights starts from what it was before."""
    z, t = latents()
    model = mixing_channels()
    model.drop_channels(torch.tensor([True, False, False]))
    assert model.logit is not None
    before = model.eps(z, t).detach()
    model.eps(z, t).square().sum().backward()
    assert model.logit.grad is not None
    assert model.logit.grad.flatten().ne(0).tolist() == [False, True, True]
    with torch.no_grad():
        model.logit[0, 0] = 0.0
    assert torch.equal(model.eps(z, t), before)


def test_dropping_is_for_good_and_adds_up() -> None:
    model = mixing_channels()
    model.drop_channels(torch.tensor([True, False, False]))
    model.drop_channels(torch.tensor([False, False, True]))
    assert model.active.flatten().tolist() == [False, True, False]


def test_a_model_without_mixing_has_no_channels_to_drop() -> None:
    model = ScoreModel(VPSDE(), Wave())
    assert set(model.state_dict()) == {"network.gain"}
    with pytest.raises(ConfigError, match="mixing-init"):
        model.drop_channels(torch.tensor([True]))


def test_the_largest_variance_comes_with_the_weights() -> None:
    model, other = (ScoreModel(VESDE(), Wave()) for _ in range(2))
    model.set_sigma2_max(431.7)
    assert model.sde == VESDE(sigma2_max=431.7)
    # Also where the model is a part of another, as in a run's checkpoint.
    nn.ModuleDict({"prior": other}).load_state_dict(nn.ModuleDict({"prior": model}).state_dict())
    assert other.sde == model.sde


@pytest.mark.parametrize("sde", [s for s in SDES if not isinstance(s, VESDE)], ids=lambda s: type(s).__name__)
def test_only_the_exploding_variance_comes_from_data(sde: SDE) -> None:
    model = ScoreModel(sde, Wave())
    assert "sigma2_max" not in model.state_dict()
    with pytest.raises(ConfigError, match="only the ve SDE"):
        model.set_sigma2_max(2.0)


def test_a_largest_variance_below_the_smallest_is_refused_and_changes_nothing() -> None:
    model = ScoreModel(VESDE(), Wave())
    with pytest.raises(ConfigError, match="sigma2-max"):
        model.set_sigma2_max(1e-5)
    assert model.sde == VESDE()
    assert float(model.sigma2_max) == VESDE().sigma2_max


class Centred(nn.Module):
    """sin z_t + t / 2: a velocity network without parameters."""

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        return torch.sin(z_t) + 0.5 * t.reshape(-1, 1, 1, 1).to(z_t.dtype)


def velocity(sde: SDE, network: nn.Module | None = None, channels: int = 3) -> ScoreModel:
    return ScoreModel(sde, network or Centred(), channels=channels, parameterisation="velocity").double()


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_a_velocity_is_added_to_the_normal_priors_prediction(sde: SDE) -> None:
    z, t = latents()
    c, m = (x.reshape(-1, 1, 1, 1) for x in (sde.unit_eps_coef(t), sde.mean(t)))
    model = velocity(sde)
    torch.testing.assert_close(model.eps(z, t), c * z + m * Centred()(z, t), rtol=1e-13, atol=1e-13)
    assert "logit" not in model.state_dict()


@pytest.mark.parametrize("sde", [VPSDE(), GeometricVPSDE()], ids=lambda sde: type(sde).__name__)
def test_for_vp_like_sdes_it_is_the_velocity_of_the_literature(sde: SDE) -> None:
    """F = m eps - sigma z_0 (arXiv:2202.00512), where sigma2_0 is small, makes eps_theta = eps."""
    z_0, t = latents()
    eps = torch.randn_like(z_0)
    m, sigma = (x.reshape(-1, 1, 1, 1) for x in (sde.mean(t), sde.sigma(t)))

    class Velocity(nn.Module):
        def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
            return m * eps - sigma * z_0

    found = velocity(sde, Velocity()).eps(m * z_0 + sigma * eps, t)
    torch.testing.assert_close(found, eps, rtol=0, atol=2 * sde.sigma2_0 * float(eps.abs().max()) + 1e-12)


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_a_velocitys_flow_is_the_drift_minus_half_g2_times_the_score(sde: SDE) -> None:
    z, t = latents()
    model = velocity(sde)
    f, g2 = (x.reshape(-1, 1, 1, 1) for x in (sde.f(t), sde.g2(t)))
    plain = f * z - 0.5 * g2 * model.score(z, t)
    tolerance = 1e-13 * float((g2 * z.abs().amax()).max()) + 1e-12
    torch.testing.assert_close(model.drift(z, t), plain, rtol=0, atol=tolerance)


def test_a_velocitys_flow_keeps_its_digits_where_g2_is_large() -> None:
    """In float32 at the end of the geometric SDE, where linear parts of size 10^4 would cancel."""
    sde, (z, _) = GeometricVPSDE(), latents()
    t = torch.linspace(0.99, 1.0, 5, dtype=torch.float64)
    found = velocity(sde).float().drift(z.float(), t).double()
    torch.testing.assert_close(found, velocity(sde).drift(z, t), rtol=1e-5, atol=1e-5)


class Zero(nn.Module):
    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        return torch.zeros_like(z_t)


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_a_velocity_of_zero_is_the_normal_prior(sde: SDE) -> None:
    z, t = latents()
    model = velocity(sde, Zero())
    variance = sde.marginal_var(t).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(model.score(z, t), -z / variance, rtol=1e-12, atol=1e-12)
    if sde.is_vp_like:
        assert torch.equal(model.drift(z, t), torch.zeros_like(z))


@pytest.mark.parametrize("progressive", ["none", "output_skip", "residual"])
def test_every_network_starts_as_the_normal_prior_in_velocity_form(progressive: str) -> None:
    torch.manual_seed(0)
    config = ScoreNetConfig(
        width=8,
        multipliers=(1, 1),
        blocks=1,
        embedding=8,
        progressive=progressive,  # type: ignore[arg-type]
    )
    model = velocity(VPSDE(), NCSNpp(config, channels=3, resolution=4))
    z, t = latents()
    c = model.sde.unit_eps_coef(t).reshape(-1, 1, 1, 1)
    # Layers that start as zero have a gain of 1e-5.
    torch.testing.assert_close(model.eps(z, t), c * z, rtol=0, atol=1e-3)


def test_a_dropped_channel_of_a_velocity_is_exactly_the_normal_priors() -> None:
    z, t = latents()
    noisy = z.clone()
    noisy[:, 1] = torch.randn_like(z[:, 1])
    torch.manual_seed(0)
    network = NCSNpp(ScoreNetConfig(8, (1,), 1, embedding=8), channels=3, resolution=4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    model = velocity(VPSDE(), network)
    others = [0, 2]
    assert not torch.equal(model.eps(noisy, t)[:, others], model.eps(z, t)[:, others])
    model.drop_channels(torch.tensor([False, True, False]))
    assert torch.equal(model.eps(noisy, t)[:, others], model.eps(z, t)[:, others])
    c = model.sde.unit_eps_coef(t).reshape(-1, 1, 1)
    assert torch.equal(model.eps(z, t)[:, 1], c * z[:, 1])
    assert torch.equal(model.drift(z, t)[:, 1], torch.zeros_like(z[:, 1]))
    other = velocity(VPSDE(), network)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.active, model.active)


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
@pytest.mark.parametrize("form", ["mixed", "velocity", "alone"])
def test_the_excess_is_what_the_network_adds_to_the_normal_prior(sde: SDE, form: str) -> None:
    z, t = latents()
    model = {
        "mixed": ScoreModel(sde, Wave(), channels=3, mixing_init=0.4).double(),
        "velocity": velocity(sde),
        "alone": ScoreModel(sde, Wave()).double(),
    }[form]
    c = sde.unit_eps_coef(t).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(model.excess(z, t), model.eps(z, t) - c * z, rtol=1e-12, atol=1e-12)
