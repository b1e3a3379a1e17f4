"""A network of sigma times the score, told log sigma: whichever SDE, and whatever sigma is counted in."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lsgm.config import SDEConfig
from lsgm.errors import ConfigError
from lsgm.model.lsgm import make_prior
from lsgm.nets.config import ScoreNetConfig
from lsgm.nets.layers import TimeEmbedding
from lsgm.nets.ncsnpp import NCSNpp
from lsgm.recipes.recipe import PriorConfig
from lsgm.score import ScaledScore, ScoreModel
from lsgm.sde import SDE, VESDE, VPSDE, GeometricVPSDE, SubVPSDE

SDES = [VESDE(4e-4, 1e4), VPSDE(), SubVPSDE(), GeometricVPSDE()]
T = torch.linspace(0.01, 1.0, 7, dtype=torch.float64)


class NormalData(nn.Module):
    """What it must be for data from N(0, u^2 I) and m_t = 1: sigma score = -sigma z / (sigma^2 + u^2)."""

    def __init__(self, unit: float) -> None:
        super().__init__()
        self.unit = unit

    def forward(self, z: Tensor, log_sigma: Tensor) -> Tensor:
        sigma = self.unit * log_sigma.exp()[:, None]
        return -sigma * z / (sigma**2 + self.unit**2)


@pytest.mark.parametrize("unit", [1.0, 2.0])
def test_the_score_of_normal_data_is_known(unit: float) -> None:
    sde, z = VESDE(4e-4, 1e4), torch.randn(len(T), 5, dtype=torch.float64)
    score = ScoreModel(sde, ScaledScore(NormalData(unit), sde, unit)).score(z, T)
    expected = -z / (sde.var(T)[:, None] + unit**2)
    torch.testing.assert_close(score, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("sde", SDES, ids=lambda sde: type(sde).__name__)
def test_the_network_is_told_the_logarithm_of_sigma_in_its_unit(sde: SDE) -> None:
    told: list[Tensor] = []

    class Listening(nn.Module):
        def forward(self, z: Tensor, t: Tensor) -> Tensor:
            told.append(t)
            return z

    z = torch.randn(len(T), 5)
    assert torch.equal(ScaledScore(Listening(), sde, 2.0)(z, T), -z)
    torch.testing.assert_close(told[0].exp(), sde.sigma(T) / 2, rtol=1e-12, atol=0)


def test_a_recipe_asks_for_it() -> None:
    network = ScoreNetConfig(8, (1,), 1, (), embedding=8, embedding_hidden=12, embedding_kind="fourier")
    sde = SDEConfig("ve", sigma2_min=4e-4, sigma2_max=1e4)
    prior = make_prior(PriorConfig(sde, network, preconditioning="scaled-score", sigma_unit=2.0), (1, 4, 4))
    assert isinstance(prior.network, ScaledScore)
    assert isinstance(prior.network.network, NCSNpp)
    assert prior.eps(torch.zeros(2, 1, 4, 4), torch.tensor([0.0, 1.0])).shape == (2, 1, 4, 4)


def test_what_blocks_see_of_the_time_has_a_size_of_its_own() -> None:
    assert TimeEmbedding(8, 1.0, "fourier", 12)(T).shape == (len(T), 12)
    assert TimeEmbedding(8, 1.0)(T).shape == (len(T), 32)
    assert ScoreNetConfig(embedding=8, embedding_hidden=12).time_width == 12
    assert ScoreNetConfig(embedding=8).time_width == 32


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="sigma-unit is 0"):
        ScaledScore(nn.Identity(), VPSDE(), 0)
    with pytest.raises(ConfigError, match="embedding-hidden is 0"):
        ScoreNetConfig(embedding_hidden=0)
    with pytest.raises(ConfigError, match="preconditioning scaled-score needs an SDE that is known"):
        PriorConfig(SDEConfig("ve", sigma2_max="data"), preconditioning="scaled-score")
