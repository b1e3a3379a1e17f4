"""EDM's preconditioning (arXiv:2206.00364, section 5): input and target of the network of unit variance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lsgm.config import require
from lsgm.score import per_sample
from lsgm.sde import SDE

__all__ = ["EDMPreconditioned"]


class EDMPreconditioned(nn.Module):
    r"""The noise prediction eps(z_t, t) of the denoiser D = c_skip u + c_out F(c_in u; c_noise), table 1.

    There u = z_t / m_t and s = sigma_t / m_t stand for EDM's noisy image and its sigma, so that any linear
    SDE can be preconditioned and not the variance exploding one alone; c_skip = d^2 / (s^2 + d^2),
    c_out = s d / sqrt(s^2 + d^2), c_in = 1 / sqrt(s^2 + d^2), c_noise = log(s) / 4 and d = sigma_data. With
    v = sigma_t^2 + m_t^2 d^2, the variance of z_t, eps = (u - D) / s is

    .. math:: \epsilon = \frac{\sigma_t}{v} z_t - \frac{m_t d}{\sqrt{v}} F(z_t / \sqrt{v}; \log(s) / 4),

    in which nothing cancels at small s. F = 0 is the exact prediction for data from N(0, d^2 I).

    z_t [B, C, H, W], t [B] in [0, 1] -> like z_t. Coefficients are float64; the network's time is c_noise.
    Raises ConfigError where sigma_data is not above 0.
    """

    def __init__(self, network: nn.Module, sde: SDE, sigma_data: float) -> None:
        super().__init__()
        require(sigma_data > 0, f"sigma-data is {sigma_data}; it must be above 0")
        self.network = network
        self.sde = sde
        self.sigma_data = sigma_data

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the prediction of the noise in z_t."""
        mean, sigma = self.sde.mean(t), self.sde.sigma(t)
        scale = torch.hypot(sigma, self.sigma_data * mean)
        raw = self.network(z_t / per_sample(scale, z_t), (sigma / mean).log() / 4)
        normal = per_sample(sigma / scale.square(), z_t) * z_t
        predicted: Tensor = normal - per_sample(self.sigma_data * mean / scale, z_t) * raw.to(z_t.dtype)
        return predicted
