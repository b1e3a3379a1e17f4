"""The engine behind every likelihood: no number depends on batches, processes or interruptions."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from scoring import KnownModel, known_images

from lsgm.config import DensityConfig
from lsgm.distributed import World, join
from lsgm.errors import UserError
from lsgm.logs import speaking
from lsgm.results.row import KEYS
from lsgm_eval.likelihood.bound import Bound, estimator_label
from lsgm_eval.likelihood.scores import Scores, finer, score_images, solves_flow
from lsgm_eval.likelihood.store import ScoreStore
from lsgm_eval.metrics.intervals import mean_interval
from lsgm_eval.models import Renamed
from lsgm_eval.rows import Context
from lsgm_eval.run.calls import score as measured
from lsgm_eval.run.steps import Protocol
from lsgm_eval.task import Task, Tier

ALONE = World(0, 1, torch.device("cpu"))
NELBO = DensityConfig(draws=4)
COUNT = 25


def score(model: KnownModel, folder: Path, count: int = COUNT, batch_size: int = 4, **more: Any) -> Scores:
    config = more.pop("config", NELBO)
    world = more.pop("world", ALONE)
    store = ScoreStore(folder)
    return score_images(
        model, known_images(), config, count, batch_size=batch_size, store=store, world=world, **more
    )


def measure(model: KnownModel, out: Path, count: int = COUNT, **more: Any) -> list[dict[str, Any]]:
    config = more.pop("config", NELBO)
    context = Context("known@1/quick", model.name, model.sha256, "known@1@abc", "run")
    return Bound(model, known_images(), config, count).measure(out, context=context, batch_size=4, **more)


def truth(rows: list[int]) -> list[float]:
    return [10 + (row % 16).bit_count() + row / 1000 for row in rows]


def assert_same(a: Scores, b: Scores) -> None:
    assert a.columns.keys() == b.columns.keys()
    for name in a.columns.keys() - {"seconds", "peak_bytes"}:
        np.testing.assert_array_equal(a[name], b[name])


def test_each_image_is_scored_by_its_own_seed_in_the_seeded_order(tmp_path: Path) -> None:
    scores = score(KnownModel(), tmp_path)
    assert scores["rows"].tolist() == known_images().order[:COUNT].tolist()
    assert scores["nats"].tolist() == pytest.approx(truth(scores["rows"].tolist()), rel=1e-15)
    assert scores["nfe"].tolist() == (scores["rows"] + 4).tolist()
    assert scores.seconds == pytest.approx(0.5 * COUNT)
    assert np.isnan(scores["error"]).all()
    np.testing.assert_allclose(scores["term_ones"] + scores["term_rest"], scores["nats"], rtol=1e-12)
    by_group = scores["group_rest/0"] + scores["group_rest/1"]
    np.testing.assert_allclose(by_group, scores["term_rest"], rtol=1e-12)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_the_batch_changes_no_number(tmp_path: Path, batch_size: int) -> None:
    assert_same(
        score(KnownModel(), tmp_path / "a"), score(KnownModel(), tmp_path / "b", batch_size=batch_size)
    )


def test_images_with_many_draws_come_in_small_batches(tmp_path: Path) -> None:
    model = KnownModel()
    score(model, tmp_path, batch_size=20, config=replace(NELBO, samples=100, at_once=50))
    assert max(len(call) for call in model.calls) == 2
    assert_same(
        score(KnownModel(), tmp_path / "a", config=replace(NELBO, samples=9999)),
        score(KnownModel(), tmp_path / "b", config=replace(NELBO, samples=2)),
    )


def test_an_interrupted_run_goes_on_and_gives_the_numbers_of_an_uninterrupted_one(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        score(KnownModel(interrupt_at=3), tmp_path / "a")
    again = KnownModel()
    resumed = score(again, tmp_path / "a")
    assert len(again.scored) == COUNT - 8
    assert_same(resumed, score(KnownModel(), tmp_path / "b"))
    assert resumed.seconds == pytest.approx(0.5 * COUNT)


def test_more_images_later_score_only_the_rest_and_fewer_score_none(tmp_path: Path) -> None:
    first, more, fewer = KnownModel(), KnownModel(), KnownModel()
    score(first, tmp_path, 10)
    assert_same(score(more, tmp_path, 30), score(KnownModel(), tmp_path / "b", 30))
    assert sorted(first.scored + more.scored) == list(range(30))
    assert score(fewer, tmp_path, 10).seconds == pytest.approx(5.0)
    assert not fewer.calls


def test_a_damaged_batch_is_scored_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        score(KnownModel(interrupt_at=4), tmp_path)
    sorted(tmp_path.iterdir())[1].write_bytes(b"PK half a file")
    again = KnownModel()
    assert_same(score(again, tmp_path), score(KnownModel(), tmp_path / "b"))
    assert len(again.scored) == COUNT - 8
    assert "are damaged" in capsys.readouterr().err


def test_the_bar_shows_the_running_mean_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LSGM_PROGRESS", "1")
    score(KnownModel(), tmp_path, 10)
    capsys.readouterr()
    whole = score(KnownModel(), tmp_path, 30)["nats"]
    said = capsys.readouterr().err
    assert f"{whole.mean():.2f} ± {whole.std(ddof=1) / math.sqrt(30):.2f} nats" in said
    assert "30/30" in said


def test_more_images_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="31 images are asked for and the split test has 30"):
        score(KnownModel(), tmp_path, 31)


# Failures.


def test_a_bound_that_is_not_finite_is_named_and_ends_the_run(tmp_path: Path) -> None:
    bad = int(known_images().order[9])
    with pytest.raises(UserError, match=rf"image {bad} of test: its bound is not finite.*--allow-failures"):
        score(KnownModel(nan=(bad,)), tmp_path)
    # All others of the three batches up to there are finished.
    assert len(ScoreStore(tmp_path).finished()["rows"]) == 11


def test_a_solver_that_stops_names_the_image_and_the_time(tmp_path: Path) -> None:
    stuck = int(known_images().order[6])
    said = rf"image {stuck} of test: stopped at t = 0.0031: no step is small enough"
    with pytest.raises(UserError, match=said):
        score(KnownModel(stuck=(stuck,)), tmp_path)
    assert len(ScoreStore(tmp_path).finished()["rows"]) == 4


def test_failures_that_are_allowed_are_listed_left_out_and_tried_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = known_images().order
    nan, stuck = int(order[3]), (int(order[5]), int(order[6]))
    scores = score(KnownModel(nan=(nan,), stuck=stuck), tmp_path, allow_failures=True)
    assert [row for row, _ in scores.failures] == sorted([nan, *stuck])
    left = [row for row in order[:COUNT].tolist() if row not in {nan, *stuck}]
    assert scores["rows"].tolist() == left
    assert scores["nats"].tolist() == pytest.approx(truth(left))
    said = capsys.readouterr().err
    assert all(f"image {row} of test" in said for row in (nan, *stuck))
    healed = KnownModel()
    assert_same(score(healed, tmp_path), score(KnownModel(), tmp_path / "b"))
    assert sorted(healed.scored) == sorted([nan, *stuck])


def test_many_failures_are_counted_rather_than_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = score(KnownModel(stuck=tuple(range(2, 30))), tmp_path, 30, allow_failures=True)
    assert len(scores["rows"]) == 2
    said = capsys.readouterr().err
    assert said.count("no step") == 20
    assert "8 more images" in said


def test_a_mean_of_no_image_or_of_one_is_never_given(tmp_path: Path) -> None:
    everything = tuple(range(30))
    with pytest.raises(UserError, match="every image failed"):
        score(KnownModel(nan=everything), tmp_path, allow_failures=True)
    with pytest.raises(UserError, match="only one image is left"):
        score(KnownModel(nan=everything[1:]), tmp_path, 30, allow_failures=True)


def test_a_model_that_scores_too_few_images_is_named(tmp_path: Path) -> None:
    class Short(KnownModel):
        def density(self, levels: Any, seeds: Any, config: Any) -> Any:
            return super().density(levels[1:], seeds[1:], config)

    with pytest.raises(UserError, match="known scored 3 of 4 images"):
        score(Short(), tmp_path)


def test_what_a_model_itself_refuses_is_said_as_it_is(tmp_path: Path) -> None:
    class Refusing(KnownModel):
        def density(self, levels: Any, seeds: Any, config: Any) -> Any:
            raise UserError("a Normal decoder gives levels no probability")

    with pytest.raises(UserError, match=r"^a Normal decoder gives levels no probability$"):
        score(Refusing(), tmp_path, allow_failures=True)


# Rows and files.


def test_rows_are_means_with_intervals_in_nats_and_bits(tmp_path: Path) -> None:
    rows = measure(KnownModel(), tmp_path)
    assert [row["metric"] for row in rows] == [
        "nelbo_nats", "nelbo_bpd", "nelbo_term_ones_nats", "nelbo_term_rest_nats",
        "nelbo_term_rest/0_nats", "nelbo_term_rest/1_nats",
    ]  # fmt: skip
    nats, bits, ones, rest, *groups = rows
    chosen = truth(known_images().order[:COUNT].tolist())
    assert nats["value"] == pytest.approx(np.mean(chosen))
    interval = mean_interval(np.array(chosen))
    assert (nats["ci_low"], nats["ci_high"]) == pytest.approx((interval.low, interval.high))
    assert bits["value"] == pytest.approx(nats["value"] / (4 * math.log(2)))
    assert ones["value"] + rest["value"] == pytest.approx(nats["value"])
    assert sum(row["value"] for row in groups) == pytest.approx(rest["value"])
    assert (ones["group"], ones["unit"], ones["higher_is_better"]) == ("terms", "nats/image", None)
    for row in rows:
        assert tuple(row) == KEYS
        assert (row["n"], row["split"], row["levels_sha256"]) == (COUNT, "test", "e" * 64)
        assert row["sampler"] == "nelbo(times=4)"
        assert row["nfe_mean"] == pytest.approx(4 + np.mean(known_images().order[:COUNT].tolist()))
        assert row["seconds"] == pytest.approx(12.5)
    assert nats["note"] == (
        "upper bound in expectation; 1 latent draw per image, 4 times per draw; binarised with seed 3"
    )


def test_the_files_hold_every_number_of_every_image(tmp_path: Path) -> None:
    measure(KnownModel(), tmp_path)
    with np.load(tmp_path / "per-image" / "known-nelbo.npz") as saved:
        np.testing.assert_array_equal(saved["rows"], known_images().order[:COUNT])
        np.testing.assert_allclose(saved["nats"], saved["term_ones"] + saved["term_rest"])
        np.testing.assert_allclose(saved["term_rest"], saved["group_rest/0"] + saved["group_rest/1"])
        assert np.isnan(saved["error"]).all()
        assert str(saved["levels_sha256"]) == "e" * 64


@pytest.mark.parametrize(
    ("change", "reused"),
    [
        ({"name": "other"}, True),
        ({"sha256": "f" * 64}, False),
        ({"config": replace(NELBO, at_once=3)}, True),
        ({"config": replace(NELBO, draws=5)}, False),
        ({"config": replace(NELBO, control_variate=False)}, False),
        ({"config": DensityConfig("ode")}, False),
    ],
)
def test_scores_are_reused_unless_something_behind_them_changes(
    tmp_path: Path, change: dict[str, Any], reused: bool
) -> None:
    measure(KnownModel(), tmp_path)
    config = change.pop("config", NELBO)
    again = KnownModel(**change)
    measure(again, tmp_path, config=config)
    assert bool(again.calls) != reused


def test_failures_stand_in_the_note(tmp_path: Path) -> None:
    bad = int(known_images().order[0])
    row, *_ = measure(KnownModel(nan=(bad,)), tmp_path, allow_failures=True)
    assert row["n"] == COUNT - 1
    assert row["note"].startswith("1 of 25 images failed and is left out; ")


# The solver's error, and impossible values.

ODE = DensityConfig("ode", rtol=1e-3, atol=1e-3)


def test_a_bound_by_a_flow_states_how_far_a_finer_solve_moves_it(tmp_path: Path) -> None:
    """1000 * 1e-3 nats too low against 1000 * 1e-4: 0.9 nats per image, of 4 sub-pixels."""
    model = KnownModel(coarse=1000)
    nats, bits, *terms = measure(model, tmp_path, config=ODE)
    assert nats["value"] == pytest.approx(np.mean(truth(known_images().order[:COUNT].tolist())) - 1)
    assert nats["solver_error"] == pytest.approx(-0.9)
    assert nats["solver_error_margin"] == pytest.approx(0, abs=1e-9)
    assert bits["solver_error"] == pytest.approx(-0.9 / (4 * math.log(2)))
    assert all(row["solver_error"] is None for row in terms)
    # Its interval is 10 + ones: half of it is below 0.9.
    assert nats["note"].startswith("not shown to be a bound: its solver error of -0.9 nats (16 images solved")
    assert "exceeds half its 95 % interval, lower the tolerance, --tol 0.0001; 1 latent draw" in nats["note"]
    assert len(model.scored) == COUNT + 16
    with np.load(tmp_path / "per-image" / "known-ode.npz") as saved:
        np.testing.assert_array_equal(np.sort(known_images().order[:16]), saved["solver_rows"])
        np.testing.assert_allclose(saved["solver_error"], -0.9)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("heun", 2), ("rk4", 4)])
def test_of_fixed_steps_the_error_is_what_twice_the_steps_leave_too(
    tmp_path: Path, solver: Any, order: int
) -> None:
    """Twice the steps move Euler's number by half of its error alone; the other half was left out."""
    config = replace(ODE, solver=solver, steps=10)
    row, *_ = measure(KnownModel(coarse=0.5 * 10.0**order), tmp_path, config=config)
    assert row["solver_error"] == pytest.approx(-0.5)


def test_within_a_small_solver_error_it_is_a_bound(tmp_path: Path) -> None:
    row, *_ = measure(KnownModel(coarse=10), tmp_path, config=ODE)
    assert row["note"].startswith(
        "upper bound in expectation, within a solver error of -0.009 nats (16 images solved again at a tenth"
    )


@pytest.mark.parametrize(
    ("model", "config"),
    [({}, NELBO), ({"has_prior": False}, DensityConfig("iw", samples=3))],
)
def test_without_a_flow_there_is_no_solver_error(
    tmp_path: Path, model: dict[str, Any], config: DensityConfig
) -> None:
    known = KnownModel(**model)
    row, *_ = measure(known, tmp_path, config=config)
    assert row["solver_error"] is row["solver_error_margin"] is None
    assert row["note"].startswith("upper bound in expectation; ")
    assert len(known.scored) == COUNT


def test_fixed_steps_are_doubled_and_an_importance_weighted_bound_has_a_solver_error_too() -> None:
    rk4 = DensityConfig("iw", samples=3, solver="rk4", steps=25)
    assert finer(rk4) == replace(rk4, steps=50)
    assert finer(ODE) == replace(ODE, rtol=1e-4, atol=1e-4)
    assert solves_flow(KnownModel(), rk4)


def test_images_that_were_solved_again_are_not_solved_a_third_time(tmp_path: Path) -> None:
    first = measure(KnownModel(coarse=10), tmp_path, config=ODE)
    again = KnownModel(coarse=10)
    rows = measure(again, tmp_path, config=ODE)
    assert not again.calls
    assert [row["solver_error"] for row in rows] == [row["solver_error"] for row in first]


def test_where_a_finer_solve_cannot_be_done_the_error_is_not_known(tmp_path: Path) -> None:
    row, *_ = measure(KnownModel(stuck_below=5e-4), tmp_path, config=ODE)
    assert row["value"] is not None
    assert row["solver_error"] is None
    assert row["note"].startswith(
        "upper bound in expectation, but for a solver error that is not known (ode of known failed at image"
    )


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (ODE, "lower the tolerance, --tol 0.0001, or against their noise take more probes, --probes 4"),
        (replace(ODE, divergence="exact"), "levels can have: lower the tolerance, --tol 0.0001 (and"),
        (replace(ODE, solver="heun", steps=8), "take more steps, --steps 16"),
    ],
)
def test_an_image_of_levels_cannot_have_negative_nats(
    tmp_path: Path, config: DensityConfig, says: str
) -> None:
    with pytest.raises(
        UserError, match=r"its bound is -\d+\.?\d* nats, which no image of levels can have"
    ) as found:
        score(KnownModel(shift=-25), tmp_path, config=config)
    assert says in str(found.value)


def test_images_with_negative_nats_are_failures_where_failures_are_allowed(tmp_path: Path) -> None:
    """Of bounds 10 + ones - 11 + k / 1000 those of images without ones are below 0."""
    scores = score(KnownModel(shift=-11), tmp_path, config=ODE, allow_failures=True)
    blank = {row for row in known_images().order[:COUNT].tolist() if row % 16 == 0}
    assert {row for row, _ in scores.failures} == blank
    assert bool((scores["nats"] >= 0).all())
    assert len(scores["rows"]) == COUNT - len(blank)


def test_a_draw_of_the_score_matching_bound_may_be_negative_and_its_mean_may_not(tmp_path: Path) -> None:
    scores = score(KnownModel(shift=-11), tmp_path / "noisy")
    assert bool((scores["nats"] < 0).any())
    with pytest.raises(
        UserError, match=r"nelbo of known is -\d.*let the model's density be that of the levels"
    ):
        score(KnownModel(shift=-25), tmp_path / "impossible")


def test_the_difference_of_two_flows_has_their_solvers_error(tmp_path: Path) -> None:
    models = [KnownModel(name="rough", coarse=1000), KnownModel(name="fine", sha256="b" * 64, coarse=10)]
    task = Task("known", 1, "", "known", tiers={"quick": Tier(0, 20, 10)})
    protocol = Protocol("known@1/quick", (ODE, ODE), (COUNT, COUNT))
    rows = measured(models, known_images(), task, "quick", [protocol], tmp_path, world=ALONE, batch_size=4)
    pair = rows[-1]
    assert pair["metric"] == "paired_ode_nll_nats"
    assert pair["value"] == pytest.approx(-0.99)
    assert pair["solver_error"] == pytest.approx(-0.9 + 0.009)
    assert pair["note"] == "its solver error of -0.891 nats exceeds half its 95 % interval"


@pytest.mark.parametrize(
    ("model", "config", "says"),
    [
        ({"probe_error": 0.8}, {"samples": 10, "probes": 4}, "may lower it by up to about 0.32 nats"),
        ({}, {"samples": 10}, "unknown with one probe, may lower it, even below -log p"),
        (
            {},
            {"samples": 10},
            "upper bound in expectation but for probe noise, within a solver error of 0 nats",
        ),
        (
            {},
            {"samples": 10},
            "16 images solved again at a tenth of the tolerance); importance-weighted over 10",
        ),
        ({}, {"samples": 10}, "Monte-Carlo error of an image 0.25 nats on average"),
        ({"remark": "trained on mirrored images"}, {"samples": 10}, "trained on mirrored images"),
        ({"has_prior": False}, {"samples": 10}, "importance-weighted over 10 latent draws per image; Monte"),
        (
            {},
            {"method": "ode", "divergence": "exact"},
            "(dopri5, rtol 0.0001, atol 0.0001, exact divergence)",
        ),
        ({"probe_error": 0.8}, {"method": "ode", "probes": 2}, "0.8 nats per draw averages out over images"),
        (
            {},
            {"method": "ode", "solver": "rk4", "steps": 20},
            "flow (rk4, 20 steps, 1 Hutchinson probe per draw)",
        ),
    ],
)
def test_the_note_says_what_the_number_is(
    tmp_path: Path, model: dict[str, Any], config: dict[str, Any], says: str
) -> None:
    row, *_ = measure(KnownModel(**model), tmp_path, config=DensityConfig(**{"method": "iw", **config}))
    assert says in row["note"]


def test_a_strict_bound_does_not_speak_of_probes(tmp_path: Path) -> None:
    for k, (has_prior, divergence) in enumerate([(False, "hutchinson"), (True, "exact")]):
        config = DensityConfig("iw", samples=10, divergence=divergence)  # type: ignore[arg-type]
        row, *_ = measure(KnownModel(has_prior=has_prior), tmp_path / str(k), config=config)
        assert "probe" not in row["note"]


@pytest.mark.parametrize(
    ("config", "has_prior", "label"),
    [
        (DensityConfig(draws=16), True, "nelbo(times=16)"),
        (DensityConfig(draws=16, samples=4), True, "nelbo(times=16, samples=4)"),
        (DensityConfig(draws=16, samples=4), False, "nelbo(samples=4)"),
        (DensityConfig(draws=16, control_variate=False), True, "nelbo(times=16, control_variate=off)"),
        (DensityConfig(samples=4, control_variate=False), False, "nelbo(samples=4)"),
        (DensityConfig("iw", samples=1000), False, "iw(samples=1000)"),
        (
            DensityConfig("iw", samples=10, rtol=1e-5, atol=1e-5),
            True,
            "iw(samples=10, solver=dopri5, rtol=1e-05, atol=1e-05, probes=1)",
        ),
        (
            DensityConfig("ode", rtol=1e-5, atol=1e-5),
            True,
            "ode(solver=dopri5, rtol=1e-05, atol=1e-05, probes=1)",
        ),
        (
            DensityConfig("ode", solver="rk4", steps=20, divergence="exact"),
            True,
            "ode(solver=rk4, steps=20, divergence=exact)",
        ),
    ],
)
def test_the_label_names_what_has_a_say_in_the_number(
    config: DensityConfig, has_prior: bool, label: str
) -> None:
    model = KnownModel(has_prior=has_prior)
    assert estimator_label(config, model) == estimator_label(config, Renamed(model, "other")) == label


def test_only_a_data_space_model_is_dequantised() -> None:
    model = KnownModel()
    model.dequantised = object()  # type: ignore[attr-defined]
    config = DensityConfig("ode", solver="rk4", steps=9, dequantise="uniform", samples=4)
    label = "ode(solver=rk4, steps=9, probes=1, dequantise=uniform, samples=4)"
    assert estimator_label(config, Renamed(model, "sgm")) == label


class InDataSpace(KnownModel):
    """Its flow follows the log-density unless told otherwise."""

    def step_control(self, config: DensityConfig) -> str:
        return "density" if config.step_control == "auto" else config.step_control


def test_a_density_in_the_step_control_is_named_where_there_are_steps_to_control() -> None:
    model = Renamed(InDataSpace(), "sgm")
    assert estimator_label(ODE, model) == (
        "ode(solver=dopri5, rtol=0.001, atol=0.001, step_control=density, probes=1)"
    )
    plain = "ode(solver=dopri5, rtol=0.001, atol=0.001, probes=1)"
    assert estimator_label(replace(ODE, step_control="state"), model) == plain
    assert estimator_label(ODE, KnownModel()) == plain
    assert "control" not in estimator_label(replace(ODE, solver="rk4"), model)


# Two processes.


def worker(rank: int, folder: Path) -> None:
    """What each of the two processes does: be interrupted, go on, meet failures."""
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    world, said = join("cpu"), {}
    bad = tuple(known_images().order[[4, 7]].tolist())
    score(KnownModel(), folder / "half", 9)
    np.savez(folder / f"{rank}.npz", **score(KnownModel(), folder / "half", world=world).columns)
    share = KnownModel()
    score(share, folder / "whole", world=world)
    scores = score(KnownModel(nan=bad), folder / "allowed", world=world, allow_failures=True)
    try:
        score(KnownModel(nan=bad[1:]), folder / "fatal", world=world)
    except UserError as error:
        said["fatal"] = str(error)
    torch.save(
        said | {"scored": share.scored, "failed": [row for row, _ in scores.failures]},
        folder / f"said-{rank}.pt",
    )
    # An interpreter that ends while gloo's threads run may abort.
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_gloo_available(), reason="this torch has no gloo")
def test_two_processes_share_the_images_and_give_the_numbers_of_one(tmp_path: Path) -> None:
    path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    command = [sys.executable, __file__, str(tmp_path)]
    running = [
        subprocess.Popen([*command, str(rank)], env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    errors = [process.communicate(timeout=60)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], errors
    one = score(KnownModel(), tmp_path / "one")
    said = [torch.load(tmp_path / f"said-{rank}.pt", weights_only=True) for rank in range(2)]
    for rank in range(2):
        with np.load(tmp_path / f"{rank}.npz") as file:
            assert_same(Scores(dict(file)), one)
    assert sorted(said[0]["scored"] + said[1]["scored"]) == sorted(one["rows"].tolist())
    assert abs(len(said[0]["scored"]) - len(said[1]["scored"])) <= 1
    assert said[0]["failed"] == said[1]["failed"] == sorted(known_images().order[[4, 7]].tolist())
    assert said[0]["fatal"] == said[1]["fatal"]
    assert f"image {int(known_images().order[7])} of test" in said[0]["fatal"]
    # What is left out is named once, by the first process.
    assert errors[0].count("not finite") == 2
    assert "not finite" not in errors[1]


if __name__ == "__main__":
    with speaking():
        worker(int(sys.argv[2]), Path(sys.argv[1]))
