"""The benchmark of log-densities: its world, the reference procedure, and the comparison at equal error."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from parity import moved
from tiny import recipe

from lsgm.bench.flow_ways import (
    Flow,
    MixtureScore,
    adaptive,
    controlled,
    mixture_score,
    reference,
    reference_log_prob,
    true_log_p,
)
from lsgm.bench.nll import FlowProblem, at_equal_error, measure_ways, model_problem, page
from lsgm.cli import main
from lsgm.errors import ConfigError
from lsgm.generative import GenerativeModel, Pixels
from lsgm.likelihood import ode_log_prob
from lsgm.model.diffusion import measure_lsgm, measure_vae
from lsgm.runs.load import fresh_networks
from lsgm.sde import VESDE, VPSDE


@pytest.fixture
def world() -> MixtureScore:
    return mixture_score(VPSDE(), (2, 2, 2))


def bench(*argv: object) -> int:
    return main(["bench", "nll", *map(str, argv), "--device", "cpu"])


def test_the_score_of_the_mixture_is_the_gradient_of_its_density(world: MixtureScore) -> None:
    z = world.draw(5, seed=1).requires_grad_()
    t = torch.tensor([0.01, 0.1, 0.3, 0.6, 1.0], dtype=torch.float64)
    mean, v = (
        world.sde.mean(t)[:, None],
        world.sde.mean(t)[:, None] ** 2 * world.s2 + world.sde.var(t)[:, None],
    )
    squares = (z.flatten(1)[:, None] - mean[..., None] * world.mu.flatten(1)).square().sum(dim=2)
    log_p = (world.weights.log() - 0.5 * (squares / v + 8 * (2 * math.pi * v).log())).logsumexp(1)
    (gradient,) = torch.autograd.grad(log_p.sum(), z)
    sigma = world.sde.sigma(t).view(-1, 1, 1, 1)
    torch.testing.assert_close(-world.eps(z, t) / sigma, gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sde", [VPSDE(), VESDE(sigma2_min=1e-4, sigma2_max=25.0)])
def test_the_closed_trace_of_the_mixture_is_that_of_the_full_jacobian(sde: Any) -> None:
    world = mixture_score(sde, (2, 2, 2))
    z, t = world.draw(1, seed=2), torch.tensor([0.2], dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda at: world.drift(at, t))(z)
    trace = jacobian.reshape(8, 8).trace()
    torch.testing.assert_close(world.trace(z, t)[0], trace, rtol=1e-10, atol=1e-10)


def test_the_truth_is_this_packages_density_with_the_exact_trace(world: MixtureScore) -> None:
    z0 = world.draw(4, seed=3)
    truth, error = true_log_p(Flow(world, z0, 1e-5), 1e-9)
    expected = ode_log_prob(world, z0, range(4), rtol=1e-9, atol=1e-9, divergence="exact")
    torch.testing.assert_close(truth, expected.log_p, rtol=0, atol=1e-9)
    assert error.tolist() == [0.0] * 4


def test_the_reference_procedure_is_unbiased_and_its_steps_are_more_accurate_than_its_number(
    world: MixtureScore,
) -> None:
    copies = 100
    z0 = world.draw(1, seed=4).expand(copies, 2, 2, 2)
    flow = Flow(world, z0, 1e-5)
    truth, _ = true_log_p(flow, 1e-9)
    found = reference(1e-3)(flow, 5)
    spread = float(found.log_p.std())
    # One standard score of fixed seeds, below 4.
    assert abs(float((found.log_p - truth).mean())) < 4 * spread / copies**0.5
    assert float((found.smooth - truth).abs().max()) < 0.1 * spread
    assert found.seconds is not None


def test_the_reference_is_exact_where_a_divergence_does_not_depend_on_the_place() -> None:
    """One component: a Gaussian's Jacobian is a multiple of the identity, and only |n|^2 is noisy."""
    world = mixture_score(VPSDE(), (1, 1, 1), components=1)
    z0 = world.draw(200, seed=1)
    flow = Flow(world, z0, 1e-5)
    found = reference_log_prob(world, z0, tol=1e-3, time_eps=1e-5, seed=2)
    error = found.log_p - true_log_p(flow, 1e-9)[0]
    assert abs(float(error.mean())) < 4 * float(error.std()) / 200**0.5
    assert (found.times[0], found.times[-1]) == (1e-5, 1.0)
    # SciPy's RK45: two evaluations to start, six per step, accepted or rejected.
    assert found.nfe % 6 == 2
    assert found.nfe >= 2 + 6 * (len(found.times) - 1)


def test_the_batch_shares_the_cost_in_the_reference_and_not_here(world: MixtureScore) -> None:
    z0 = world.draw(16, seed=6)
    alone = [adaptive(1e-3, 1)(Flow(world, z0[k : k + 1], 1e-5), 6 + k).evaluations for k in range(16)]
    together = adaptive(1e-3, 1)(Flow(world, z0, 1e-5), 6).evaluations
    assert together == pytest.approx(sum(alone) / 16)
    many = reference(1e-3)(Flow(world, z0, 1e-5), 6).evaluations
    assert many > 3 * together


def test_one_fixed_probe_out_of_control_is_this_packages_way(world: MixtureScore) -> None:
    flow = Flow(world, world.draw(2, seed=1), 1e-5)
    own, isolated = adaptive(1e-3, 1)(flow, 7), controlled(1e-3, inside=False, redrawn=False)(flow, 7)
    torch.testing.assert_close(isolated.log_p, own.log_p, rtol=1e-12, atol=1e-12)
    assert isolated.evaluations == own.evaluations
    shaken = controlled(1e-3, inside=True, redrawn=True)(flow, 7)
    assert shaken.evaluations > 1.5 * own.evaluations


def test_costs_are_compared_with_the_cheapest_setting_that_is_as_good() -> None:
    def row(way: str, evaluations: float, error: float, gradients: float | None = None) -> dict[str, Any]:
        cost = {
            "evaluations": evaluations,
            "gradients": gradients or evaluations,
            "seconds": evaluations / 10,
        }
        return {"on": "x", "batch_size": 1, "way": way, **cost, "error": error, "step_error": error / 10}

    rows = [
        row("reference", 100, 1.0),
        row("this package", 10, 2.0),
        row("this package", 20, 1.0),
        row("this package", 10, 0.5, gradients=40),
        row("another", 1, 0.0),
    ]
    number, steps = at_equal_error(rows)
    assert (number["at"], steps["at"]) == ("error", "step_error")
    assert number["own"]["evaluations"] == 20
    assert (number["evaluations_ratio"], number["seconds_ratio"]) == (5.0, 5.0)
    assert "target" not in steps
    assert (number["target"], number["target_value"]) == ("adaptive-nll", 0.2)
    assert "target_of" not in at_equal_error(rows[:2])[0]
    assert at_equal_error([*rows[:2]])[0]["own"] is None
    # A truth too coarse for a number's error says nothing of it; the steps' error is not touched.
    unknown = [{**each, "error": None} for each in rows]
    assert [each["at"] for each in at_equal_error(unknown)] == ["step_error"]


def tiny_model(kind: str) -> GenerativeModel:
    """Networks whose last layers, zero when fresh, have been moved, so that there is a trace to be found."""
    settings = recipe({"prior": {"mixing_init": 0.0}})
    networks = fresh_networks(settings, Pixels(1, 8, 8, "binary")).eval().requires_grad_(False)
    moved(networks.get_submodule("prior"))
    state = {"name": "tiny", "sha256": "0" * 64, "stage": "stage2", "step": 1, "meta": {}}
    if kind == "vae":
        return measure_vae(networks, state)
    return measure_lsgm(settings.prior.objective, networks, state)


def test_a_trained_prior_scores_its_own_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsgm.bench.nll.load_model", lambda path, device: tiny_model("lsgm"))
    problem = model_problem(
        "run", batch=2, seed=1, truth_tol=1e-4, truth_probes=12, device=torch.device("cpu")
    )
    flow = problem.flow
    assert problem.name == "tiny, 2x4x4"
    assert flow.z0.shape == (2, 2, 4, 4)
    exact = ode_log_prob(flow.score, flow.z0, range(2), rtol=1e-3, atol=1e-3, divergence="exact")
    assert bool((problem.truth_error > 0).all())
    # Five standard errors, each known to a fifth from 12 probes, and a hundred tolerances of the solver.
    assert bool(((exact.log_p - problem.truth).abs() < 5 * problem.truth_error + 0.1).all())
    found = adaptive(1e-3, 1)(flow, 2)
    assert float((found.smooth - problem.truth).abs().max()) < 0.1


def test_a_model_without_a_score_prior_has_no_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsgm.bench.nll.load_model", lambda path, device: tiny_model("vae"))
    with pytest.raises(ConfigError, match="runs/vae has no probability flow"):
        model_problem("runs/vae", batch=1, seed=1, truth_tol=1e-6, truth_probes=2, device=torch.device("cpu"))


def test_an_error_that_the_truth_would_hide_is_not_given(world: MixtureScore) -> None:
    flow = Flow(world, world.draw(4, seed=1), 1e-5)
    truth, none = true_log_p(flow, 1e-8)
    clear, hidden = (
        measure_ways(
            FlowProblem("x", flow, truth, none + noise),
            tols=[1e-2],
            own_tols=[1e-2],
            probes=[1],
            steps=[4],
            coordinates=["time"],
            isolate=False,
            repeats=2,
            seed=1,
        )
        for noise in (0.0, 100.0)
    )
    assert all(row["error"] > 0 for row in clear)
    assert [row["error"] for row in hidden] == [None] * 3
    assert [row["step_error"] for row in hidden] == [row["step_error"] for row in clear]
    assert "| – |" in page(hidden, about="")


SMALL = (
    "--batch",
    2,
    "--tols",
    "1e-2,1e-3",
    "--own-tols",
    "1e-3,1e-5",
    "--probes",
    "1,2",
    "--steps",
    4,
    "--repeats",
    2,
)


def test_every_way_has_a_row_and_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSGM_PROGRESS", "0")
    assert bench(*SMALL, "--json") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ways = [row for row in rows if row["what"] == "way"]
    # Two of the reference, two and one of our own by either coordinate, one of fixed steps, and four isolated
    # ones twice.
    assert len(ways) == 2 + 2 * 3 + 1 + 8
    assert {row["what"] for row in rows} == {"way", "equal"}
    assert all(row["evaluations"] > 0 and math.isfinite(row["error"]) for row in ways)
    assert all(row["gradients"] == row["evaluations"] * row["probes"] for row in ways)
    assert bench(*SMALL, "--no-isolate") == 0
    printed = capsys.readouterr().out
    assert "# Log-densities by probability flow: mixture, 8x4x4, batch of 2" in printed
    assert "| rk4, fixed steps | 4 steps, 1 probe | 16 | 16 |" in printed
    assert "redrawn probe" not in printed
    assert "adaptive NLL over the authors' procedure at equal measured error, seconds" in printed
    assert "| this package | tol 1e-03, 2 probes, by the angle |" in printed


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (("--tols", "1e-3,x"), "tols is '1e-3,x', not numbers between commas"),
        (("--tols", ","), "lists no number"),
        (("--own-tols", "1e-12"), "must lie above truth-tol"),
        (("--probes", "1.5"), "whole numbers"),
        (("--batch", 0), "batch is 0"),
        (("--coordinates", "time,log"), "give time, angle, or both"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    argv: tuple[object, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(*argv) == 2
    assert sentence in capsys.readouterr().err
