"""The weightings are those of the paper's table, in the noise-prediction form."""

from __future__ import annotations

import pytest
import torch

from lsgm.errors import ConfigError
from lsgm.sde import SDE, VESDE, VPSDE, GeometricVPSDE, SubVPSDE
from lsgm.times import Weighting

SDES = [VPSDE(), VPSDE(sigma2_0=0.01), SubVPSDE(), VESDE(), GeometricVPSDE()]
T = torch.linspace(0.01, 1.0, 50, dtype=torch.float64)


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_the_weightings_are_the_published_functions_of_the_sde(sde: SDE) -> None:
    g2, var = sde.g2(T), sde.var(T)
    expected = {
        Weighting.LL: g2 / (2.0 * var),
        Weighting.UN: torch.full_like(T, 0.5),
        Weighting.RE: g2 / 2.0,
        Weighting.RESCALE: 1.0 / (2.0 * (1.0 - var)),
    }
    for weighting, value in expected.items():
        # 1 - var cancels in the oracle near t = 1, where it is 4e-5.
        torch.testing.assert_close(weighting.density(sde, T), value, rtol=1e-10, atol=0.0)


def test_the_likelihood_weighting_of_the_score_becomes_that_of_the_noise() -> None:
    """g^2/2 on the score is g^2/(2 var) on the noise, since score = -eps/sigma; g^2/2 on the noise is RE."""
    sde = VPSDE()
    eps, guess = torch.randn(2, 50, dtype=torch.float64)
    of_score = 0.5 * sde.g2(T) * (eps / sde.sigma(T) - guess / sde.sigma(T)).square()
    of_noise = Weighting.LL.density(sde, T) * (eps - guess).square()
    torch.testing.assert_close(of_score, of_noise)
    assert not torch.allclose(of_score, Weighting.RE.density(sde, T) * (eps - guess).square())


def test_the_unweighted_objective_is_halved_like_the_others() -> None:
    """The paper's table gives w = g^2/var, 1 and g^2 to a loss with w/2; the authors' code runs 1 as 1."""
    for weighting, w in {
        Weighting.LL: VPSDE().g2(T) / VPSDE().var(T),
        Weighting.UN: torch.ones_like(T),
        Weighting.RE: VPSDE().g2(T),
    }.items():
        assert torch.equal(weighting.density(VPSDE(), T), 0.5 * w)


@pytest.mark.parametrize("weighting", list(Weighting))
def test_weightings_are_float64_of_the_shape_of_float32_times(weighting: Weighting) -> None:
    value = weighting.density(VPSDE(), torch.full((2, 3), 0.5))
    assert value.dtype == torch.float64
    assert value.shape == (2, 3)


def test_weightings_have_the_names_of_recipes() -> None:
    assert [Weighting(name) for name in ("ll", "un", "re", "rescale", "edm")] == list(Weighting)


def test_rescale_needs_a_variance_below_one() -> None:
    with pytest.raises(ConfigError, match="sigma2-max below 1, and it is 50"):
        Weighting.RESCALE.density(VESDE(1e-4, 50.0), T)
