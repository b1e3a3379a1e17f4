"""How training draws its times: uniformly, or by importance, where the objective's integrand is large."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lsgm.config import require
from lsgm.errors import ConfigError
from lsgm.proposal.base import TimeProposal, Uniform
from lsgm.proposal.edm import LogNormal
from lsgm.proposal.ve import LogMarginal, LogNoiseShare
from lsgm.proposal.vp import LogVariance, TruncatedNormal, Variance
from lsgm.sde import SDE, VESDE, VPSDE, GeometricVPSDE, SubVPSDE
from lsgm.weighting import SIGMA_DATA, Weighting

__all__ = ["TimeProposal", "importance_weight", "make_proposal"]


def make_proposal(
    sde: SDE, weighting: Weighting, kind: Literal["uniform", "is"], time_eps: float
) -> TimeProposal:
    """Build the proposal on [time_eps, 1]: uniform, or the one matched to the weighting for Normal latents.

    The sub-VP SDE borrows the times of the VP SDE with the same beta, for which its own weights stay exact.
    Raises ConfigError where the weighting has no matched proposal (rescale, and un for the geometric SDE),
    for an unknown kind, and where time_eps leaves the likelihood weighting infinite.
    """
    require(0.0 <= time_eps < 1.0, f"time-eps is {time_eps}; give a time in [0, 1)")
    require(
        weighting is not Weighting.LL or sde.sigma2_0 > 0.0 or time_eps > 0.0,
        "weighting 'll' is infinite at time-eps = 0 without noise there; "
        "give a time-eps above 0 or a sigma2-0 above 0",
    )
    match kind:
        case "uniform":
            return Uniform(sde, time_eps)
        case "is":
            return _matched(sde, weighting, time_eps)
    raise ConfigError(f"unknown way to draw times '{kind}'; available: uniform, is")


def _matched(sde: SDE, weighting: Weighting, time_eps: float) -> TimeProposal:
    guide = sde.vp if isinstance(sde, SubVPSDE) else sde
    if weighting is Weighting.EDM:
        return LogNormal(guide, time_eps)
    match guide, weighting:
        case VESDE(), Weighting.LL | Weighting.UN:
            return LogNoiseShare(guide, time_eps)
        case VESDE(), Weighting.RE:
            return LogMarginal(guide, time_eps)
        case VPSDE() | GeometricVPSDE(), Weighting.LL:
            return LogVariance(guide, time_eps)
        case VPSDE() | GeometricVPSDE(), Weighting.RE:
            return Variance(guide, time_eps)
        case VPSDE(), Weighting.UN:
            return _unweighted(guide, time_eps)
    available = "ll, re and edm" if isinstance(sde, GeometricVPSDE) else "ll, un, re and edm"
    raise ConfigError(
        f"there is no importance sampling for weighting '{weighting.value}' with the {type(sde).__name__}; "
        f"it exists for {available}, and times = uniform works with every weighting"
    )


def _unweighted(sde: VPSDE, time_eps: float) -> TimeProposal:
    slope = sde.beta_end - sde.beta_start
    # With beta all but constant the Gaussian's tails underflow, and r_un and r_re all but coincide.
    return TruncatedNormal(sde, time_eps) if sde.beta_start**2 < 600.0 * slope else Variance(sde, time_eps)


def importance_weight(
    sde: SDE, weighting: Weighting, proposal: TimeProposal, t: Tensor, *, sigma_data: float = SIGMA_DATA
) -> Tensor:
    r"""lambda(t)/r(t), the weight of ||eps - eps_theta||^2 at a time drawn from r: float64, shape of t.

    .. math:: E_{t \sim r}[\mathrm{weight}(t) h(t)] = \int_{t_\epsilon}^1 \lambda(t) h(t) dt

    for any weighting under any proposal, so that one t can serve two objectives. Where the two match, the
    weight is a constant over Var(eps | z_t), which is 1 - sigma_t^2 for VP-like SDEs; appendix B.
    ``sigma_data`` is for the weighting edm alone.
    """
    integral = proposal.integral(weighting) if proposal.sde == sde else None
    if integral is not None:
        return integral / sde.unit_eps_var(t)
    return weighting.density(sde, t, sigma_data=sigma_data) / proposal.pdf(t)
