"""EDM's preconditioning is table 1 of arXiv:2206.00364, and leaves the network unit variances."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lsgm.errors import ConfigError
from lsgm.objective.bound import diffuse
from lsgm.score import EDMPreconditioned, ScoreModel
from lsgm.sde import SDE, VESDE, VPSDE, GeometricVPSDE, SubVPSDE

EDM = VESDE(4e-6, 6400.0)
SDES = [EDM, VPSDE(), SubVPSDE(), GeometricVPSDE()]
D = 0.7
T = torch.linspace(0.01, 1.0, 13, dtype=torch.float64)


class Inner(nn.Module):
    """A network that remembers its input, and returns a function of both arguments or nothing."""

    def __init__(self, *, silent: bool = False) -> None:
        super().__init__()
        self.silent = silent
        self.seen: tuple[Tensor, Tensor]

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        self.seen = (x, t)
        return torch.zeros_like(x) if self.silent else torch.sin(3 * x) + t.to(x.dtype)[:, None, None, None]


def images(count: int = 1) -> Tensor:
    return torch.randn(len(T), count, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_it_is_the_published_denoiser(sde: SDE) -> None:
    """D = c_skip u + c_out F(c_in u; c_noise) written out in u = z/m and s = sigma/m; eps = (u - D) / s."""
    inner, z = Inner(), images()
    mean, s = (x[:, None, None, None] for x in (sde.mean(T), sde.sigma(T) / sde.mean(T)))
    u = z / mean
    skip, out = D**2 / (s**2 + D**2), s * D / (s**2 + D**2).sqrt()
    denoised = skip * u + out * inner(u / (s**2 + D**2).sqrt(), s.flatten().log() / 4)
    # The subtraction loses what it cancels: at the smallest s, 0.002, three digits.
    torch.testing.assert_close(
        EDMPreconditioned(inner, sde, D)(z, T), (u - denoised) / s, rtol=1e-10, atol=1e-10
    )


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_a_network_of_zero_is_exact_for_normal_data(sde: SDE) -> None:
    """Of N(0, d^2) data E[eps | z_t] = sigma z / (sigma^2 + m^2 d^2); for d = 1 the mixed score's part."""
    z, (mean, sigma) = images(), (x[:, None, None, None] for x in (sde.mean(T), sde.sigma(T)))
    exact = sigma * z / (sigma**2 + mean**2 * D**2)
    torch.testing.assert_close(EDMPreconditioned(Inner(silent=True), sde, D)(z, T), exact)
    if sde.sigma2_0 == 0:
        unit = ScoreModel(sde, EDMPreconditioned(Inner(silent=True), sde, 1.0)).eps(z, T)
        torch.testing.assert_close(unit, sde.unit_eps_coef(T)[:, None, None, None] * z)


@pytest.mark.parametrize("sde", SDES, ids=repr)
def test_inputs_and_targets_have_unit_variance_at_every_time(sde: SDE) -> None:
    count, generator = 4000, torch.Generator().manual_seed(2)
    z_0 = D * torch.randn(len(T), count, 4, 4, dtype=torch.float64, generator=generator)
    eps = torch.randn(z_0.shape, dtype=torch.float64, generator=generator)
    inner = Inner(silent=True)
    z_t = diffuse(sde, z_0, T, eps).z_t
    rest = eps - EDMPreconditioned(inner, sde, D)(z_t, T)
    mean, scale = sde.mean(T), (sde.var(T) + D**2 * sde.mean(T) ** 2).sqrt()
    target = rest / -(D * mean / scale)[:, None, None, None]
    for values in (inner.seen[0], target):
        # The variance of n = 64,000 draws has standard error sqrt(2 / n) = 0.0056.
        assert float((values.flatten(1).var(dim=1) - 1).abs().max()) < 5 * 0.0056
    torch.testing.assert_close(inner.seen[1], (sde.sigma(T) / mean).log() / 4)


def test_the_dtype_is_the_inputs_whatever_the_networks() -> None:
    class Half(Inner):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return super().forward(x, t).bfloat16()

    assert EDMPreconditioned(Half(), EDM, D)(images().float(), T).dtype == torch.float32


def test_a_scale_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="sigma-data is 0"):
        EDMPreconditioned(Inner(), EDM, 0.0)
