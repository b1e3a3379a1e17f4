"""Networks that are told the noise's logarithm and predict the score times sigma, as NCSN++ does for VE."""

from __future__ import annotations

import math

from torch import Tensor, nn

from lsgm.config import require
from lsgm.sde import SDE

__all__ = ["ScaledScore"]


class ScaledScore(nn.Module):
    """The noise prediction of a network F by which the score is F(z_t; log(sigma_t / u)) / sigma_t.

    So NCSN++ is trained with the variance exploding SDE (arXiv:2011.13456, appendix H). The score being
    -eps / sigma_t, eps = -F. The unit u is the length, in units of z_t, in which F's sigma is counted: 2 for
    a network that knows pixels as [0, 1] where z_t has them on [-1, 1].

    z_t [B, C, H, W], t [B] in [0, 1] -> like z_t. The logarithm is float64. Raises ConfigError where u is not
    above 0.
    """

    def __init__(self, network: nn.Module, sde: SDE, unit: float = 1.0) -> None:
        super().__init__()
        require(unit > 0, f"sigma-unit is {unit}; it must be above 0")
        self.network = network
        self.sde = sde
        self.log_unit = math.log(unit)

    def forward(self, z_t: Tensor, t: Tensor) -> Tensor:
        """Return the prediction of the noise in z_t."""
        scaled: Tensor = self.network(z_t, self.sde.sigma(t).log() - self.log_unit)
        return -scaled
