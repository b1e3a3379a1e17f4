"""Which noise levels count how much: the weightings lambda(t) of the noise-prediction error."""

from __future__ import annotations

from enum import StrEnum

import torch
from torch import Tensor

from lsgm.config import require
from lsgm.sde import SDE, VESDE

__all__ = ["Weighting"]


class Weighting(StrEnum):
    r"""lambda(t) of the objective \int lambda(t) E||eps - eps_theta(z_t, t)||^2 dt, arXiv:2106.05931 Table 1.

    ======== ========================= ==================================================================
    name     lambda(t)                 remark
    ======== ========================= ==================================================================
    LL       g^2 / (2 sigma_t^2)       w_ll, "likelihood": Theorem 1, the cross entropy; always the VAE's
    UN       1 / 2                     w_un, "unweighted"; the authors' code has 1, twice the paper's
    RE       g^2 / 2                   w_re, "reweighted"
    RESCALE  1 / (2 (1 - sigma_t^2))   in the authors' code only
    ======== ========================= ==================================================================
    """

    LL = "ll"
    UN = "un"
    RE = "re"
    RESCALE = "rescale"

    def density(self, sde: SDE, t: Tensor) -> Tensor:
        """lambda(t), float64, shape of t.

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
