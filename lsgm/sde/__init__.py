"""Forward diffusions: four linear SDEs with Gaussian kernels, and how a configuration names them."""

from __future__ import annotations

from lsgm.config import SDEConfig, require
from lsgm.errors import ConfigError, did_you_mean
from lsgm.sde.base import SDE
from lsgm.sde.geometric import GeometricVPSDE
from lsgm.sde.subvp import SubVPSDE
from lsgm.sde.ve import VESDE
from lsgm.sde.vp import VPSDE

__all__ = ["SDE", "VESDE", "VPSDE", "GeometricVPSDE", "SubVPSDE", "make_sde"]


def make_sde(config: SDEConfig) -> SDE:
    """Build the SDE a configuration names; None there means the class's default.

    Raises ConfigError for an unknown kind, an option that the kind does not have, or a value out of range.
    """
    match config.kind:
        case "vp" | "subvp":
            return _make_linear(config)
        case "ve" | "geometric":
            return _make_geometric(config)
    kinds = ("vp", "subvp", "ve", "geometric")
    raise ConfigError(
        f"unknown SDE '{config.kind}'{did_you_mean(config.kind, kinds)}; available: {', '.join(kinds)}"
    )


def _make_linear(config: SDEConfig) -> SDE:
    for name, value in (("sigma2-min", config.sigma2_min), ("sigma2-max", config.sigma2_max)):
        require(
            value is None,
            f"{name} has no meaning for the {config.kind} SDE; leave it out or choose ve or geometric",
        )
    kind = VPSDE if config.kind == "vp" else SubVPSDE
    return kind(config.beta_start, config.beta_end, 0.0 if config.sigma2_0 is None else config.sigma2_0)


def _make_geometric(config: SDEConfig) -> SDE:
    kind = VESDE if config.kind == "ve" else GeometricVPSDE
    low = kind.sigma2_min if config.sigma2_min is None else config.sigma2_min
    require(
        config.sigma2_max != "data" or config.kind == "ve",
        'sigma2-max = "data" is for the ve SDE; give the geometric one a number below 1',
    )
    # Found from the data before the prior's first step (`ScoreModel.set_sigma2_max`).
    high = config.sigma2_max if isinstance(config.sigma2_max, float) else kind.sigma2_max
    start = low if config.sigma2_0 is None else config.sigma2_0
    if config.kind == "geometric":
        return GeometricVPSDE(low, high, start)
    require(
        start == low,
        f"sigma2-0 is {start}, but the ve SDE needs sigma2-0 = sigma2-min = {low}; leave sigma2-0 out",
    )
    return VESDE(low, high)
