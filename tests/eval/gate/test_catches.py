"""What the gate is for: small faults in weights and formulas fail it, and an unchanged model never does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from eval.gate.gated import (
    PLAN,
    bound_of,
    failing,
    measured,
    nudged,
    subject_of,
    trained,
    verdicts,
)
from torch import Tensor, nn

import lsgm.objective.bound
from lsgm.model.lsgm import VAECoder
from lsgm.runs.load import load_model, open_checkpoint
from lsgm_eval.gate.golden import Golden
from lsgm_eval.gate.measure import Measured, measure_estimates
from lsgm_eval.gate.verdict import judge

RUNS = ("lsgm", "vae")


@pytest.fixture(params=RUNS)
def case(request: pytest.FixtureRequest) -> tuple[Path, Golden]:
    """A run with its golden rows, of either kind."""
    return request.getfixturevalue(f"{request.param}_run"), request.getfixturevalue(f"{request.param}_golden")


def scale(pattern: str, factor: float = 1.02) -> Any:
    """Return a change that multiplies the tensors whose names begin so."""

    def change(networks: nn.Module) -> None:
        for name, tensor in networks.named_parameters():
            if name.startswith(pattern):
                tensor.mul_(factor)

    return change


def tensors(run: Path) -> list[str]:
    """Return the names of the VAE's tensors that are not 0 all over: of 0, 2 % are no nudge."""
    networks = open_checkpoint(run, "ema").networks
    return [name for name, tensor in networks.named_parameters() if name.startswith("vae.") and tensor.any()]


def test_the_same_weights_stand(case: tuple[Path, Golden]) -> None:
    run, golden = case
    assert failing(golden, run) == []


def test_all_weights_of_the_vae_off_by_two_percent_fail(case: tuple[Path, Golden]) -> None:
    run, golden = case
    failed = failing(golden, nudged(run, scale("vae.")))
    assert {"replay/nelbo", "replay/nelbo/reconstruction"} <= set(failed)


def test_every_single_tensor_of_the_vae_off_by_two_percent_fails(case: tuple[Path, Golden]) -> None:
    (run, golden), names = case, tensors(case[0])
    bound = bound_of(golden)
    assert len(names) > 8
    missed = [name for name in names if not failing(bound, nudged(run, scale(name)))]
    assert missed == []


def test_one_single_weight_off_by_two_percent_fails(lsgm_run: Path, lsgm_golden: Golden) -> None:
    def change(networks: nn.Module) -> None:
        largest = max(
            (tensor for name, tensor in networks.named_parameters() if name.startswith("vae.")),
            key=lambda tensor: float(tensor.abs().max()),
        )
        largest.view(-1)[largest.abs().argmax()] *= 1.02

    assert failing(lsgm_golden, nudged(lsgm_run, change))


def test_a_row_that_fails_is_the_one_that_the_fault_is_in(lsgm_run: Path, lsgm_golden: Golden) -> None:
    failed = failing(lsgm_golden, nudged(lsgm_run, scale("prior.")))
    assert "replay/nelbo/cross_entropy" in failed
    assert not {"replay/nelbo/reconstruction", "replay/nelbo/negative_entropy"} & set(failed)


def test_raw_weights_in_the_place_of_averaged_ones_fail(case: tuple[Path, Golden]) -> None:
    run, golden = case
    assert "replay/nelbo" in failing(golden, load_model(run, weights="raw"))


@pytest.mark.parametrize("time_eps", [0.02, 0.005])
def test_a_wrong_smallest_time_of_the_bound_fails(
    lsgm_run: Path, lsgm_golden: Golden, time_eps: float
) -> None:
    prior = open_checkpoint(lsgm_run, "ema").recipe.prior
    assert prior.objective.time_eps == 0.01
    wrong = replace(prior, objective=replace(prior.objective, time_eps=time_eps))
    model = nudged(lsgm_run, lambda networks: None, prior=wrong)
    assert "replay/nelbo/cross_entropy" in failing(lsgm_golden, model)


def test_a_wrong_end_of_the_flow_fails(lsgm_run: Path, lsgm_golden: Golden) -> None:
    model = load_model(lsgm_run)
    assert isinstance(model.coder, VAECoder)  # type: ignore[attr-defined]
    late = replace(model, coder=VAECoder(model.coder.vae, 0.05))  # type: ignore[type-var, attr-defined]
    assert "replay/flow" in failing(lsgm_golden, late)


@pytest.mark.parametrize("factor", [1 - 0.01, 1.02, 2.0])
def test_a_wrong_normaliser_of_the_kl_fails(
    lsgm_run: Path, lsgm_golden: Golden, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    """The weight of a time's term is lambda(t) / r(t): off by 1 - time_eps, 2 % or a forgotten half."""
    right = lsgm.objective.bound.importance_weight

    def wrong(*args: Any, **settings: Any) -> Tensor:
        return right(*args, **settings) * factor

    monkeypatch.setattr(lsgm.objective.bound, "importance_weight", wrong)
    failed = failing(lsgm_golden, lsgm_run)
    assert {"replay/nelbo", "replay/nelbo/cross_entropy"} <= set(failed)


def test_a_wrong_factor_on_a_normal_priors_term_fails(
    vae_run: Path, vae_golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lsgm.model import diffusion

    right = diffusion.normal_log_prob
    monkeypatch.setattr(diffusion, "normal_log_prob", lambda z: 1.01 * right(z))
    assert "replay/nelbo/cross_entropy" in failing(vae_golden, vae_run)


def test_a_bound_without_its_terminal_term_fails(
    lsgm_run: Path, lsgm_golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes the bound better, which the gate does not accept either."""
    right = lsgm.objective.bound.Objective.cross_entropy

    def without(self: Any, *args: Any) -> Any:
        found = right(self, *args)
        kept = found.by_channel - found.terminal_by_channel
        return found._replace(by_channel=kept, terminal_by_channel=0 * kept)

    monkeypatch.setattr(lsgm.objective.bound.Objective, "cross_entropy", without)
    assert "replay/nelbo/terminal" in failing(lsgm_golden, lsgm_run)


def test_a_bound_without_its_tail_fails(
    lsgm_run: Path, lsgm_golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no bound then, whichever way the number moves."""
    monkeypatch.setattr(
        lsgm.objective.bound.Objective, "tail", lambda self, score, z_0, eps: 0 * z_0.double().sum(dim=(2, 3))
    )
    assert {"replay/nelbo", "replay/nelbo/tail"} <= set(failing(lsgm_golden, lsgm_run))


def test_a_model_whose_bound_is_not_finite_fails_by_name(lsgm_run: Path, lsgm_golden: Golden) -> None:
    spoilt = nudged(lsgm_run, scale("vae.", float("nan")))
    found = {verdict.row: verdict for verdict in verdicts(lsgm_golden, spoilt)}
    assert found["replay/nelbo"].sentence == "replay/nelbo is not finite at image 0 of 64"
    assert not found["nelbo_nats"].passed


def test_a_hundred_gates_with_other_seeds_raise_no_alarm(case: tuple[Path, Golden]) -> None:
    """At 1e-4 for each gate one alarm in a hundred gates has a chance of one in a hundred."""
    run, golden = case
    subject = subject_of(run)
    own = measured(run)
    for seeds in range(100):
        found = measure_estimates(subject, Measured(own.replays, own.drawn), repeat=PLAN.repeats + seeds)
        assert [one.sentence for one in judge(golden, found) if not one.passed] == []


def test_estimates_move_with_the_seeds_about_as_much_as_their_recorded_error(
    vae_run: Path, vae_golden: Golden
) -> None:
    """So that the hundred gates above are no feat of a wide tolerance."""
    subject = subject_of(vae_run)
    row: Any = vae_golden.rows["nelbo_nats"]
    values = [
        row.cut_values(measure_estimates(subject, repeat=PLAN.repeats + k).estimates["nelbo_nats"].per_image)
        for k in range(40)
    ]
    ratio = float(np.std([one.mean() for one in values], ddof=1)) / row.error
    # chi_39 / sqrt(39) lies within these but once in ten thousand.
    assert 0.58 < ratio < 1.45


def test_a_model_trained_anew_passes_and_one_trained_too_little_does_not(
    tmp_path: Path, vae_golden: Golden
) -> None:
    longer, shorter = (trained(tmp_path / f"{steps}", "vae", steps) for steps in (80, 20))
    for candidate, stands in ((longer, True), (shorter, False)):
        found = judge(vae_golden, measured(candidate), retrained=True)
        assert {verdict.row for verdict in found} == {"nelbo_nats", "iw_nats"}
        assert all(verdict.passed == stands for verdict in found)
    assert failing(vae_golden, longer), "it is not the model that the golden rows are of"


def test_a_model_trained_anew_may_be_better_by_any_amount(vae_run: Path, vae_golden: Golden) -> None:
    found = measured(vae_run)
    for name, one in found.estimates.items():
        assert one.per_image is not None
        better = one.per_image - 20
        found.estimates[name] = replace(one, value=float(better.mean()), per_image=better)
    assert all(verdict.passed for verdict in judge(vae_golden, found, retrained=True))
    assert not any(verdict.passed for verdict in judge(vae_golden, found) if verdict.kind == "estimate")


def test_pictures_are_the_same_from_the_same_seeds(lsgm_run: Path, lsgm_golden: Golden) -> None:
    row: Any = lsgm_golden.rows["replay/images"]
    drawn = load_model(lsgm_run).sample(range(PLAN.drawn), PLAN.sampler).images
    assert sorted(row.levels()[0].tolist()) == sorted(drawn[0].flatten().tolist())
    assert row.shape == (16, 64)
