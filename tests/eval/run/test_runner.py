"""An evaluation from end to end on a world whose numbers are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lsgm.config import DensityConfig, SamplerConfig
from lsgm.data import ImageSet, sha256_of
from lsgm.data.images import test_levels as levels_of
from lsgm.errors import UserError
from lsgm.generative import Pixels
from lsgm.results.files import read_rows
from lsgm.results.row import KEYS
from lsgm_eval.metrics.intervals import mean_interval
from lsgm_eval.run import plan, steps
from lsgm_eval.run.calls import evaluate
from lsgm_eval.run.runner import Runner
from lsgm_eval.samples import gather
from lsgm_eval.samples.reference import choose
from lsgm_eval.task import SpaceSpec, Task, Tier

Make = Callable[..., Any]
TIER = Tier(
    n_samples=120,
    nelbo_images=90,
    ode_images=20,
    sampler=SamplerConfig("heun", steps=10),
    curve_samples=50,
    curve=(SamplerConfig("heun", steps=2), SamplerConfig("dopri5", rtol=1e-2, atol=1e-2)),
    floor_images=100,
    iw_images=30,
    iw_flow_images=10,
)
GLYPHS = SpaceSpec("glyphs", "glyphs")
TASK = Task("bars", 1, "bars", "bars", (GLYPHS,), {"quick": TIER}, binarisation_seed=3)


@pytest.fixture(autouse=True)
def _bars_load(monkeypatch: pytest.MonkeyPatch, bars: ImageSet) -> None:
    monkeypatch.setattr(plan, "load", lambda name, **options: bars)


def by_metric(rows: list[dict[str, Any]], group: str | None = None) -> dict[str, dict[str, Any]]:
    return {row["metric"]: row for row in rows if group is None or row["group"] == group}


def test_every_row_is_complete_and_the_file_holds_them(bernoulli: Make, tmp_path: Path) -> None:
    rows = evaluate([bernoulli()], TASK, "quick", tmp_path)
    assert all(tuple(row) == KEYS for row in rows)
    assert read_rows(tmp_path / "results.jsonl") == rows
    assert {row["metric"] for row in rows if row["group"] != "curve"} == {
        "frechet_glyphs", "kernel_glyphs", "nfe", "seconds_per_1000", "parameters",
        "nelbo_nats", "nelbo_bpd", "ode_nll_nats", "ode_nll_bpd", "iw_nats", "iw_bpd",
        "nelbo_term_reconstruction_nats", "ode_nll_term_reconstruction_nats", "iw_term_reconstruction_nats",
    }  # fmt: skip
    quality = by_metric(rows, "quality")["frechet_glyphs"]
    assert quality["task"] == "bars@1/quick"
    assert (quality["n"], quality["seeds"], quality["split"]) == (120, "0-119", "train")
    assert quality["sampler"] == "heun(steps=10)"
    assert quality["nfe_mean"] == quality["nfe_max"] == 20
    assert quality["ci_low"] < quality["value"] < quality["ci_high"]
    assert quality["extractor"].startswith("glyphs-features@")
    assert quality["dataset"].startswith("bars@1@")
    assert "bias" in quality["note"]
    assert "100 test images" in quality["note"]
    assert [p.name for p in sorted((tmp_path / "samples").iterdir())] == ["bernoulli.png", "data.png"]


def test_likelihood_is_the_mean_over_the_chosen_images(
    bernoulli: Make, bars: ImageSet, tmp_path: Path
) -> None:
    rows = by_metric(evaluate([bernoulli()], TASK, "quick", tmp_path, only=["nelbo"]))
    chosen = choose(300, 90, 3)
    exact = bernoulli().density(levels_of(bars, "test", 3)[chosen], chosen.tolist(), DensityConfig()).nats
    interval = mean_interval(exact.numpy())
    assert rows["nelbo_nats"]["value"] == pytest.approx(float(exact.mean()), rel=1e-12)
    assert rows["nelbo_nats"]["ci_low"] == pytest.approx(interval.low)
    assert rows["nelbo_nats"]["ci_high"] == pytest.approx(interval.high)
    assert rows["nelbo_bpd"]["value"] == pytest.approx(float(exact.mean()) / (784 * math.log(2)))
    with np.load(tmp_path / "per-image" / "bernoulli-nelbo.npz") as saved:
        np.testing.assert_array_equal(saved["rows"], chosen)
        np.testing.assert_allclose(saved["nats"], exact)
        assert "term_reconstruction" in saved


def test_every_bound_says_which_bits_it_scored_and_how(
    bernoulli: Make, bars: ImageSet, tmp_path: Path
) -> None:
    found = evaluate([bernoulli(remark="trained on mirrored images")], TASK, "quick", tmp_path)
    rows = by_metric(found, "likelihood") | by_metric(found, "quality")
    bits = sha256_of(levels_of(bars, "test", 3))
    for metric, count, estimator in (
        ("nelbo", 90, "nelbo(times=1)"),
        ("iw", 10, "iw("),
        ("ode_nll", 20, "ode("),
    ):
        row = rows[f"{metric}_nats"]
        assert (row["levels_sha256"], row["n"], row["split"]) == (bits, count, "test")
        assert row["sampler"].startswith(estimator)
        assert "mirrored" in row["note"]
    assert "mirrored" in rows["frechet_glyphs"]["note"]


def test_importance_weighting_takes_more_draws_and_images_where_a_draw_solves_no_flow(
    bernoulli: Make, tmp_path: Path
) -> None:
    for has_prior, count, draws in ((True, 10, 5), (False, 30, 50)):
        model = bernoulli(has_prior=has_prior, sha256=str(has_prior))
        rows = by_metric(evaluate([model], TASK, "quick", tmp_path, only=["iw"]))
        assert rows["iw_nats"]["n"] == count
        assert model.scored == (2 if has_prior else 1) * count  # those of a flow are solved again
        assert f"samples={draws}" in rows["iw_nats"]["sampler"]


def test_a_bound_that_is_no_part_of_the_tier_is_not_measured(bernoulli: Make, tmp_path: Path) -> None:
    small = replace(TASK, tiers={"quick": replace(TIER, ode_images=0, iw_flow_images=0)})
    rows = by_metric(evaluate([bernoulli()], small, "quick", tmp_path, only=["nelbo", "iw", "ode"]))
    assert set(rows) == {"nelbo_nats", "nelbo_bpd", "nelbo_term_reconstruction_nats"}


def test_a_task_without_a_feature_space_measures_likelihoods_only(bernoulli: Make, tmp_path: Path) -> None:
    tier = replace(TIER, n_samples=0, floor_images=0, curve=(), curve_samples=0)
    bare = Task("bars", 1, "bars", "bars", tiers={"quick": tier}, binarisation_seed=3)
    model = bernoulli()
    rows = evaluate([model], bare, "quick", tmp_path)
    assert {row["group"] for row in rows} == {"likelihood", "terms"}
    assert not model.sampled
    assert not (tmp_path / "samples").exists()
    with pytest.raises(UserError, match="measures likelihoods only: ask for nelbo, iw or ode"):
        evaluate([model], bare, "quick", tmp_path, only=["quality", "curve"])


def test_likelihoods_alone_need_no_extractor(bernoulli: Make, tmp_path: Path) -> None:
    elsewhere = replace(TASK, spaces=(SpaceSpec("torchscript:not-here.ts"),))
    assert evaluate([bernoulli()], elsewhere, "quick", tmp_path, only=["nelbo"])
    with pytest.raises(UserError, match="not-here"):
        evaluate([bernoulli()], elsewhere, "quick", tmp_path, only=["quality"])


def test_ode_scores_the_first_of_the_same_images(bernoulli: Make, tmp_path: Path) -> None:
    evaluate([bernoulli()], TASK, "quick", tmp_path, only=["nelbo", "ode"])
    with (
        np.load(tmp_path / "per-image" / "bernoulli-nelbo.npz") as nelbo,
        np.load(tmp_path / "per-image" / "bernoulli-ode.npz") as ode,
    ):
        np.testing.assert_array_equal(nelbo["rows"][:20], ode["rows"])


def test_models_scored_on_the_same_images_are_compared_in_pairs(bernoulli: Make, tmp_path: Path) -> None:
    good, bad = bernoulli(name="good", p=0.1), bernoulli(name="bad", p=0.3, sha256="c" * 64)
    evaluate([good, bad], TASK, "quick", tmp_path, only=["nelbo"])
    written = read_rows(tmp_path / "results.jsonl")
    rows = {row["model"]: row for row in written if row["metric"] == "nelbo_nats"}
    (pair,) = (row for row in written if row["metric"] == "paired_nelbo_nats")
    assert pair["value"] == pytest.approx(rows["good"]["value"] - rows["bad"]["value"])
    assert pair["ci_high"] < 0


def test_the_same_call_again_measures_nothing(bernoulli: Make, tmp_path: Path) -> None:
    first = evaluate([bernoulli()], TASK, "quick", tmp_path)
    again = bernoulli()
    second = evaluate([again], TASK, "quick", tmp_path)
    assert [replace(row, run_id="") for row in second] == [replace(row, run_id="") for row in first]
    assert not again.sampled
    assert again.scored == 0


@pytest.mark.parametrize("change", ["weights", "task", "picture", "cell"])
def test_a_cell_is_measured_again_when_anything_behind_it_changes(
    bernoulli: Make, tmp_path: Path, change: str
) -> None:
    evaluate([bernoulli()], TASK, "quick", tmp_path, only=["quality"])
    model = bernoulli(sha256="d" * 64) if change == "weights" else bernoulli()
    task = TASK
    if change == "task":
        task = replace(TASK, tiers={"quick": replace(TIER, n_samples=110)})
    if change == "picture":
        (tmp_path / "samples" / "bernoulli.png").unlink()
    if change == "cell":
        for cell in (tmp_path / "cells").iterdir():
            cell.write_text(cell.read_text()[:40])
    evaluate([model], task, "quick", tmp_path, only=["quality"])
    # What was gathered of the same images is at hand: only other images are drawn.
    assert bool(model.sampled) == (change in ("weights", "task"))
    assert len(read_rows(tmp_path / "results.jsonl")) == 5  # replaced, not repeated
    assert (tmp_path / "samples" / "bernoulli.png").exists()


def test_other_code_is_another_cell(bernoulli: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluate([bernoulli()], TASK, "quick", tmp_path, only=["quality"])
    for module in (steps, gather):
        monkeypatch.setattr(module, "code_version", lambda *packages: "another")
    model = bernoulli()
    evaluate([model], TASK, "quick", tmp_path, only=["quality"])
    assert model.sampled


def test_an_interrupted_evaluation_goes_on_where_it_was(bernoulli: Make, tmp_path: Path) -> None:
    class Interrupted(type(bernoulli())):  # type: ignore[misc]
        def density(self, *args: Any) -> Any:
            raise KeyboardInterrupt

    # The class is part of no key but by its package: both live in this test's.
    with pytest.raises(KeyboardInterrupt):
        evaluate([Interrupted()], TASK, "quick", tmp_path)
    model = bernoulli()
    evaluate([model], TASK, "quick", tmp_path)
    assert model.scored == 90 + 20 + 10 + 16 + 10  # those of a flow solved again: 16 at most
    assert len(model.sampled) in (2, 3)  # the points of the curve; quality too where the package differs


def test_what_is_finished_is_written_before_the_next_measurement_begins(
    bernoulli: Make, tmp_path: Path
) -> None:
    kept: list[set[str]] = []

    class Looking(type(bernoulli())):  # type: ignore[misc]
        def density(self, levels: Any, seeds: Any, config: DensityConfig) -> Any:
            path = tmp_path / "results.jsonl"
            rows = read_rows(path) if path.exists() else []
            kept.append({row["metric"] for row in rows if row["metric"].endswith(("_nats", "_glyphs"))})
            if config.method == "ode":
                raise KeyboardInterrupt
            return super().density(levels, seeds, config)

    runner, only = Runner(tmp_path), ("quality", "nelbo", "iw", "ode")
    with pytest.raises(KeyboardInterrupt):
        evaluate([Looking()], TASK, "quick", tmp_path, only=only, runner=runner)
    quality = {"frechet_glyphs", "kernel_glyphs"}
    bounds = {f"{name}{part}_nats" for name in ("nelbo", "iw") for part in ("", "_term_reconstruction")}
    assert [kept[0], kept[-1]] == [quality, quality | bounds]
    assert runner.board is not None
    assert [entry.state for entry in runner.board.entries] == ["done", "done", "done", "running"]


def test_what_earlier_calls_finished_is_told_from_what_this_one_measured(
    bernoulli: Make, tmp_path: Path
) -> None:
    evaluate([bernoulli()], TASK, "quick", tmp_path, only=["quality", "nelbo"])
    runner = Runner(tmp_path)
    evaluate([bernoulli()], TASK, "quick", tmp_path, runner=runner)
    assert runner.board is not None
    before = [entry.measurement for entry in runner.board.entries if entry.seconds is None]
    assert before == ["quality", "nelbo"]
    assert [entry.measurement for entry in runner.board.entries] == [
        "quality", "nelbo", "iw", "ode", "curve heun(steps=2)", "curve dopri5(rtol=0.01, atol=0.01)",
    ]  # fmt: skip


def test_batch_size_changes_no_number_but_the_seconds(bernoulli: Make, tmp_path: Path) -> None:
    large = evaluate([bernoulli()], TASK, "quick", tmp_path / "a", batch_size=500)
    small = evaluate([bernoulli()], TASK, "quick", tmp_path / "b", batch_size=33)
    for a, b in zip(large, small, strict=True):
        if a["metric"] != "seconds_per_1000":
            # Float32 features change in their last bits with the batch: 1e-6 relative on a distance.
            assert a["value"] == pytest.approx(b["value"], rel=1e-5), a["metric"]


def test_curve_has_a_point_with_an_interval_for_every_sampler(bernoulli: Make, tmp_path: Path) -> None:
    model = bernoulli()
    rows = evaluate([model], TASK, "quick", tmp_path, only=["quality", "curve"])
    points = [row for row in rows if row["metric"] == "frechet_glyphs" and row["group"] == "curve"]
    samplers = ["heun(steps=10)", "heun(steps=2)", "dopri5(rtol=0.01, atol=0.01)"]
    assert [p["sampler"] for p in points] == samplers
    assert [p["nfe_mean"] for p in points] == [20, 4, 40]
    assert {p["n"] for p in points} == {50}  # one n, since the bias depends on it
    assert {p["seeds"] for p in points} == {"0-49"}
    assert len(model.sampled) == 3  # the headline's point comes from the headline's images
    # This model draws the same image whatever the sampler, so the three points are one.
    assert len({round(p["value"], 3) for p in points}) == 1
    assert all(p["group"] == "curve" and p["ci_low"] <= p["value"] <= p["ci_high"] for p in points)


def test_a_model_without_a_diffusion_has_no_curve_and_says_why_it_has_no_flow(
    bernoulli: Make, tmp_path: Path
) -> None:
    rows = evaluate([bernoulli(has_prior=False)], TASK, "quick", tmp_path)
    assert not [row for row in rows if row["group"] == "curve"]
    missing = by_metric(rows)["ode_nll_nats"]
    assert missing["value"] is None
    assert "probability flow" in missing["note"]
    assert by_metric(rows)["frechet_glyphs"]["sampler"] is None


def test_bad_input_is_refused_in_one_sentence(bernoulli: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="two models are called 'bernoulli'"):
        evaluate([bernoulli(), bernoulli()], TASK, "quick", tmp_path)
    colour = bernoulli(pixels=Pixels(3, 32, 32, "discrete"))
    with pytest.raises(UserError, match=r"makes 3x32x32 8-bit images and the task needs 1x28x28 binary ones"):
        evaluate([colour], TASK, "quick", tmp_path)
    greedy = replace(TASK, tiers={"quick": replace(TIER, nelbo_images=301)})
    with pytest.raises(UserError, match="asks for 301 images and bars has 300 in test"):
        evaluate([bernoulli()], greedy, "quick", tmp_path)
    assert not (tmp_path / "results.jsonl").exists()


def test_a_model_that_returns_too_few_or_damaged_numbers_is_named(bernoulli: Make, tmp_path: Path) -> None:
    base: Any = type(bernoulli())

    class Short(base):
        def sample(self, seeds: Any, sampler: Any) -> Any:
            return super().sample(seeds[1:], sampler)

    class Infinite(base):
        def density(self, levels: Any, seeds: Any, config: Any) -> Any:
            found = super().density(levels, seeds, config)
            found.nats[0] = torch.inf
            return found

    with pytest.raises(UserError, match="returned 119 images for 120 seeds"):
        evaluate([Short()], TASK, "quick", tmp_path, only=["quality"])
    with pytest.raises(UserError, match=r"nelbo of bernoulli failed at image \d+ of test: its bound is not"):
        evaluate([Infinite()], TASK, "quick", tmp_path, only=["nelbo"])
    assert not (tmp_path / "results.jsonl").exists()
    allowed = evaluate(
        [Infinite()], TASK, "quick", tmp_path, only=["nelbo"], allow_failures=True, batch_size=45
    )
    row = by_metric(allowed)["nelbo_nats"]
    assert "1 of 90 images failed" in row["note"]
    assert row["n"] == 89
