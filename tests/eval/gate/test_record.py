"""Golden rows as they are written: rounding that was seen, estimates that bear freaks, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from eval.gate.gated import TASK, subject_of
from eval.gate.golden_rows import GOLDEN
from scoring import KnownModel, known_images

from lsgm.errors import UserError
from lsgm.generative import Density
from lsgm_eval.gate import record as module
from lsgm_eval.gate.golden import Golden, Plan
from lsgm_eval.gate.measure import Measured, Repeat, Subject, measure_estimates, measure_replays
from lsgm_eval.gate.record import moves, record
from lsgm_eval.gate.verdict import FLOAT32, judge

SMALL = Plan(replay_images=10, flow_images=0, drawn=0, images=20, samples=0, repeats=3)


def known(**settings: Any) -> Subject:
    return Subject(KnownModel(**settings), known_images(), (), SMALL)


def test_rounding_is_told_by_other_batches_threads_and_float64(lsgm_golden: Golden) -> None:
    for name in ("replay/nelbo", "replay/flow"):
        row: Any = lsgm_golden.rows[name]
        assert (*row.ways[:2], len(row.ways), row.ways[-1]) == ("batches of 1", "batches of 7", 4, "float64")
        # Some tens of roundings of float32 on the way to a sum over 64 pixels, and no more.
        assert FLOAT32 < row.largest / np.mean(np.abs(row.values)) < 200 * FLOAT32


def test_one_way_has_another_number_of_threads_and_puts_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, right, before = list[int](), KnownModel.density, torch.get_num_threads()

    def density(self: KnownModel, *args: Any) -> Density:
        seen.append(torch.get_num_threads())
        return right(self, *args)

    monkeypatch.setattr(KnownModel, "density", density)
    record(known(), TASK, "x", None)
    assert set(seen) == {before, 2 if before == 1 else 1}
    assert torch.get_num_threads() == before


def test_terms_of_a_row_add_up_to_it(lsgm_golden: Golden) -> None:
    rows: Any = lsgm_golden.rows
    terms = [row.values for name, row in rows.items() if name.startswith("replay/nelbo/")]
    np.testing.assert_allclose(np.sum(terms, axis=0), rows["replay/nelbo"].values, rtol=1e-6)


def test_batches_are_replayed_to_rounding_whatever_their_size(lsgm_run: Path) -> None:
    subject = subject_of(lsgm_run)
    whole, single = measure_replays(subject), measure_replays(subject, batch=1)
    for name, values in whole.replays.items():
        np.testing.assert_allclose(single.replays[name], values, rtol=1e-5, atol=1e-5)
    assert (whole.drawn["replay/images"] == single.drawn["replay/images"]).mean() > 0.999


def test_repeats_share_no_noise_with_one_another_nor_with_replays(vae_run: Path) -> None:
    subject = subject_of(vae_run)
    found = [measure_estimates(subject, repeat=k).estimates["nelbo_nats"].per_image for k in range(3)]
    found.append(measure_replays(subject).replays["replay/nelbo"])
    noise = np.array(found) - np.mean(found, axis=0)
    # Four rows about their mean are correlated by -1/3 where they are independent; 64 images: +- 0.12.
    correlation = np.corrcoef(noise)[~np.eye(4, dtype=bool)]
    assert np.abs(correlation + 1 / 3).max() < 5 * 0.12


def gates(draw: Any, trials: int, cut: bool) -> int:
    """Return how many gates of synthetic bounds [N] raise an alarm."""
    alarms = 0
    for _ in range(trials):
        repeats = [Repeat(float(x.mean()), x) for x in (draw() for _ in range(8))]
        row = module._estimate("nelbo_nats", repeats)
        golden = replace(GOLDEN, rows={"nelbo_nats": row if cut else replace(row, cut=(-1e9, 1e9))})
        values = draw()
        measured = Measured(estimates={"nelbo_nats": Repeat(float(values.mean()), values)})
        alarms += not judge(golden, measured)[0].passed
    return alarms


def test_freak_weights_of_the_times_raise_no_alarm_once_values_are_cut() -> None:
    """One draw in 5,000 is 700,000 nats, as seen of a data-space model; others are skewed already."""
    rng, centre = np.random.default_rng(7), 100 + np.random.default_rng(8).normal(size=200)

    def draw() -> Any:
        return centre + 50 * rng.exponential(size=200) + 7e5 * (rng.random(200) < 2e-4)

    assert gates(draw, 300, cut=True) == 0
    assert gates(draw, 100, cut=False) > 0


def test_a_bound_without_noise_has_the_error_of_its_rounding() -> None:
    found = [Repeat(8.0, np.array([4.0, 12.0]))] * 3
    row = module._estimate("nelbo_nats", found)
    assert row.error == pytest.approx(8 * FLOAT32, rel=1e-3)
    assert row.image_error == pytest.approx(4.0)


def test_a_row_that_ways_of_computing_disagree_on_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = known()
    real = KnownModel.density

    def unsteady(self: KnownModel, levels: Any, seeds: Any, config: Any) -> Density:
        found = real(self, levels, seeds, config)
        ones = found.terms["ones"] + 0.1 * (len(levels) == 1)
        return replace(found, nats=ones + found.terms["rest"], terms={**found.terms, "ones": ones})

    monkeypatch.setattr(KnownModel, "density", unsteady)
    rows = record(subject, TASK, "x", None).rows
    assert set(rows) == {"replay/nelbo/rest", "nelbo_nats"}
    assert "replay/nelbo/ones is left out: ways of computing it differ by 0.0" in capsys.readouterr().err


def test_a_way_that_a_model_does_not_bear_is_named_and_the_others_stay(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refused:
        def __enter__(self) -> None:
            raise RuntimeError("expected scalar type Float but found Double")

        def __exit__(self, *problem: object) -> None:
            raise AssertionError

    monkeypatch.setattr(module, "Doubled", Refused)
    row: Any = record(known(), TASK, "x", None).rows["replay/nelbo"]
    assert "float64" not in row.ways
    assert len(row.ways) == 3
    assert "not computed by way of float64 (expected scalar type" in capsys.readouterr().err


def test_rows_are_of_models_that_work_and_have_a_reason() -> None:
    with pytest.raises(UserError, match="need a reason"):
        record(known(), TASK, " ", None)
    with pytest.raises(UserError, match="replay/nelbo is not finite: golden rows are of models that work"):
        record(known(nan=tuple(range(30))), TASK, "x", None)
    with pytest.raises(UserError, match=r"cannot be measured.* stopped at t = 0.0031"):
        record(known(stuck=tuple(range(30))), TASK, "x", None)


@pytest.mark.parametrize("error", [UserError("no\nflow"), RuntimeError("a fault")])
def test_what_cannot_be_measured_costs_its_own_rows_and_a_fault_ends_all(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    right = KnownModel.density

    def density(self: KnownModel, levels: Any, seeds: Any, config: Any) -> Density:
        if config.method == "ode":
            raise error
        return right(self, levels, seeds, config)

    monkeypatch.setattr(KnownModel, "density", density)
    subject = replace(known(), plan=replace(SMALL, flow_images=4))
    if not isinstance(error, UserError):
        with pytest.raises(RuntimeError, match="a fault"):
            measure_replays(subject)
        return
    found = measure_replays(subject)
    assert found.failures == {"replay/flow": "no flow"}
    assert "replay/nelbo" in found.replays


def test_what_moved_is_said_row_by_row() -> None:
    first = record(known(), TASK, "first", None)
    assert moves(None, first)[0] == "replay/nelbo: new"
    moved = record(known(shift=1.0), TASK, "one nat", first)
    old, new = first.rows["nelbo_nats"], moved.rows["nelbo_nats"]
    assert f"nelbo_nats: {old.value:.6g} -> {new.value:.6g}" in moves(first, moved)  # type: ignore[union-attr]
    assert set(moved.history[-1].before) == {"replay/nelbo", "replay/nelbo/rest", "nelbo_nats"}
    less = replace(moved, rows={"nelbo_nats": new})
    assert moves(moved, less) == ["replay/nelbo: gone", "replay/nelbo/ones: gone", "replay/nelbo/rest: gone"]
