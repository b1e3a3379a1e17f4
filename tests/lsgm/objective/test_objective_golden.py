"""Times and weights against those of the authors' code: the same with its slips, and off by them without."""

from __future__ import annotations

import math

import pytest
from golden import golden, needs_golden
from torch import Tensor

from lsgm.objective.bound import Objective
from lsgm.sde import SDE, VPSDE, GeometricVPSDE

pytestmark = needs_golden

MODES = {"ll_iw": ("ll", True), "ll_uniform": ("ll", False), "drop_all_iw": ("un", True)}
"""The authors' names of a weighting and of how t is drawn."""


def training(name: str, *, compat: bool) -> tuple[Objective, dict[str, Tensor]]:
    """Return the objective that a folder's step was made with, and the numbers of that step as [B]."""
    _, meta, io = golden(name)
    args = meta["args"]
    sde: SDE
    if args["sde_type"] == "vpsde":
        sde = VPSDE(args["beta_start"], args["beta_end"], args["sigma2_0"])
    else:
        sde = GeometricVPSDE(args["sigma2_min"], args["sigma2_max"], args["sigma2_0"])
    weighting, importance_sampling = MODES[args["iw_sample_p"]]
    objective = Objective.make(
        sde,
        weighting=weighting,
        importance_sampling=importance_sampling,
        time_eps=args["time_eps"],
        reference_compat=compat,
    )
    names = ("rho", "t", "var_t", "g2_t", "mean_coef", "weight_p", "weight_q")
    return objective, {name: io[f"step/{name}"].flatten() for name in names}


@pytest.mark.parametrize("name", ["omniglot", "mnist", "cifar10_fid", "cifar10_nll"])
def test_times_and_weights_are_those_of_the_authors_code(name: str) -> None:
    objective, stored = training(name, compat=True)
    times = objective.draw(stored["rho"])
    sde, t = objective.sde, times.t
    ours = {
        "t": t,
        "var_t": sde.var(t),
        "g2_t": sde.g2(t),
        "mean_coef": sde.mean(t),
        "weight_p": times.w_p,
        "weight_q": times.w_q,
    }
    for key, value in ours.items():
        error = float((value - stored[key]).abs().max()) / max(1.0, float(stored[key].abs().max()))
        # Both are float64; a change of variable and back costs a few hundred roundings of 1e-16.
        assert error <= 1e-12, key


def test_the_right_unweighted_weights_differ_by_the_known_factors() -> None:
    """A normaliser 0.226 % too large in both weights, and the prior's weighting 1 instead of 1/2."""
    objective, stored = training("cifar10_fid", compat=False)
    times = objective.draw(stored["rho"])
    slip = math.exp((0.1 - 0.1**2) / (2 * 19.9))
    assert slip == pytest.approx(1.00226, abs=5e-6)
    assert (stored["weight_p"] / times.w_p).tolist() == pytest.approx([2 * slip] * 4, rel=1e-12)
    assert (stored["weight_q"] / times.w_q).tolist() == pytest.approx([slip] * 4, rel=1e-12)


def test_uniform_weights_lack_the_length_of_the_interval_in_the_authors_code() -> None:
    """The stored geometric step has time_eps = 0, so that both agree; away from 0 the ratio is 1 / 0.99."""
    ours, theirs = (
        Objective.make(
            VPSDE(), weighting="ll", importance_sampling=False, time_eps=0.01, reference_compat=compat
        ).draw(training("omniglot", compat=compat)[1]["rho"])
        for compat in (False, True)
    )
    assert (theirs.w_p / ours.w_p).tolist() == pytest.approx([1 / 0.99] * 4, rel=1e-12)
    objective, stored = training("cifar10_nll", compat=False)
    assert objective.draw(stored["rho"]).w_p.tolist() == pytest.approx(stored["weight_p"].tolist(), rel=1e-12)
