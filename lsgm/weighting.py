"""Which noise levels count how much: the weightings lambda(t) of the noise-prediction error."""

from __future__ import annotations

import math
from enum import StrEnum

import torch
from torch import Tensor

from lsgm.config import require
from lsgm.sde import SDE, VESDE

__all__ = ["EDM_MEAN", "EDM_STD", "SIGMA_DATA", "Weighting", "lognormal_pdf"]

EDM_MEAN, EDM_STD = -1.2, 1.2
"""P_mean and P_std of arXiv:2206.00364, table 1: the lognormal noise levels s = sigma_t / m_t of training."""
SIGMA_DATA = 0.5
"""sigma_data of the same: the root mean square of photographs on [-1, 1]."""


class Weighting(StrEnum):
    r"""lambda(t) of the objective \int lambda(t) E||eps - eps_theta(z_t, t)||^2 dt, arXiv:2106.05931 Table 1.

    ======== ========================= ==================================================================
    name     lambda(t)                 remark
    ======== ========================= ==================================================================
    LL       g^2 / (2 sigma_t^2)       w_ll, "likelihood": Theorem 1, the cross entropy; always the VAE's
    UN       1 / 2                     w_un, "unweighted"; the authors' code has 1, twice the paper's
    RE       g^2 / 2                   w_re, "reweighted"
    RESCALE  1 / (2 (1 - sigma_t^2))   in the authors' code only
    EDM      p(log s) s'/s             arXiv:2206.00364: lognormal s_t = sigma_t / m_t; D - z_0 weighted by
             (1 + s^2 / d^2)           (s^2 + d^2) / (s d)^2, and so eps by the last factor, d = sigma_data
    ======== ========================= ==================================================================
    """

    LL = "ll"
    UN = "un"
    RE = "re"
    RESCALE = "rescale"
    EDM = "edm"

    def density(self, sde: SDE, t: Tensor, *, sigma_data: float = SIGMA_DATA) -> Tensor:
        """lambda(t), float64, shape of t; ``sigma_data`` is for EDM alone.

        Raises ConfigError for RESCALE where the variance reaches 1.
        """
        match self:
            case Weighting.LL:
                return 0.5 * sde.g2(t) / sde.var(t)
            case Weighting.UN:
                return torch.full_like(t, 0.5, dtype=torch.float64)
            case Weighting.RE:
                return 0.5 * sde.g2(t)
            case Weighting.RESCALE:
                require(
                    not isinstance(sde, VESDE) or sde.sigma2_max < 1.0,
                    f"weighting 'rescale' needs sigma2-max below 1, and it is {sde.prior_var}; "
                    "choose ll, un or re",
                )
                return 0.5 / sde.one_minus_var(t)
            case Weighting.EDM:
                return lognormal_pdf(sde, t) * (1 + sde.var(t) / (sigma_data * sde.mean(t)).square())


def lognormal_pdf(sde: SDE, t: Tensor) -> Tensor:
    """Density over t that makes log(sigma_t / m_t), of slope g^2 / (2 sigma_t^2), N(EDM_MEAN, EDM_STD^2).

    Float64, shape of t; what of the Normal lies outside [0, 1] is missing from its integral.
    """
    x = (0.5 * sde.var(t).log() - sde.mean(t).log() - EDM_MEAN) / EDM_STD
    return (-0.5 * x.square()).exp() / (EDM_STD * math.sqrt(2 * math.pi)) * 0.5 * sde.g2(t) / sde.var(t)
