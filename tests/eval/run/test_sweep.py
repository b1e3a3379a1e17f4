"""A sweep from end to end: points, what is derived of them, resumption, the time budget, mistakes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bernoulli import BernoulliModel
from eval.cost_curve.curve_models import CurveModel, Ink, Killed

from lsgm.config import SamplerConfig
from lsgm.data import ImageSet
from lsgm.errors import ConfigError, DataError, UserError
from lsgm.generative import Pixels
from lsgm.results.files import read_rows
from lsgm.results.row import KEYS
from lsgm_eval.cost_curve.points import check_metric, plan_points
from lsgm_eval.live import Lines
from lsgm_eval.run import plan
from lsgm_eval.run.calls import sweep
from lsgm_eval.run.runner import Runner
from lsgm_eval.task import SpaceSpec, Task, Tier

TIER = Tier(
    n_samples=60, nelbo_images=20, ode_images=0, curve_samples=60, curve=(SamplerConfig("heun", steps=2),)
)
TASK = Task("bars", 1, "bars", "bars", (SpaceSpec("ink"),), {"quick": TIER}, binarisation_seed=3)
POINTS = plan_points([SamplerConfig("heun"), SamplerConfig("euler")], [2, 4, 8, 16, 32], [1e-5])


@pytest.fixture(autouse=True)
def _bars_load(monkeypatch: pytest.MonkeyPatch, bars: ImageSet) -> None:
    monkeypatch.setattr(plan, "load", lambda name, **options: bars)
    monkeypatch.setattr(plan, "load_extractor", lambda spec, shape, device=None: Ink())


def fast(**changes: Any) -> CurveModel:
    return CurveModel(**{"name": "fast", "p": 0.16, "slowness": 0.5, **changes})


def slow(**changes: Any) -> CurveModel:
    return CurveModel(
        **{"name": "slow", "p": 0.16, "slowness": 2.0, "operations": 1000, "sha256": "c" * 64, **changes}
    )


def swept(
    models: Sequence[Any],
    out: Path,
    points: Sequence[SamplerConfig] = POINTS,
    n: int = 60,
    task: Task = TASK,
    **options: Any,
) -> list[dict[str, Any]]:
    return sweep(models, task, "quick", points, n, out, batch_size=60, **options)


def derived(rows: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["model"], row["metric"]): row for row in rows if row["group"] == "reach"}


def test_every_point_is_a_row_with_all_its_costs(tmp_path: Path) -> None:
    rows = swept([fast()], tmp_path)
    assert all(tuple(row) == KEYS for row in rows)
    assert read_rows(tmp_path / "results.jsonl") == rows
    points = [row for row in rows if row["group"] == "curve"]
    assert [row["nfe_mean"] for row in points] == sorted(row["nfe_mean"] for row in points)
    assert len(points) == len(POINTS) == 11
    for row in points:
        assert row["metric"] == "frechet_ink"
        assert row["task"] == "bars@1/quick"
        assert row["ci_low"] <= row["value"] <= row["ci_high"]
        assert (row["n"], row["seeds"]) == (60, "0-59")
        assert row["nfe_max"] == row["nfe_mean"]
        assert row["seconds"] == pytest.approx(60 * (0.01 * row["nfe_mean"] + 0.002))
        assert row["decoder_seconds"] == pytest.approx(60 * 0.002)
        assert row["flops_per_image"] == 100 * row["nfe_mean"] + 50
        assert row["decoder_flops_per_image"] == 50


def test_what_a_quality_costs_and_by_how_much_one_model_is_cheaper(tmp_path: Path) -> None:
    alone = swept([slow()], tmp_path / "a")
    target = next(row["value"] for row in alone if row["sampler"] == "euler(steps=16)")
    found = derived(swept([fast(), slow()], tmp_path / "b", targets=(target,)))
    needs = found["slow", "nfe_to_reach"]
    assert needs["value"] == pytest.approx(16)
    assert "heun(steps=8)" in needs["sampler"]
    assert needs["target"] == f"frechet_ink<={target:.6g}"
    # Both models draw the same images where slowness / NFE agrees.
    assert found["fast", "nfe_to_reach"]["value"] == pytest.approx(4, rel=0.05)
    ratio = found["fast / slow", "speedup_nfe"]
    assert ratio["value"] == pytest.approx(16 / found["fast", "nfe_to_reach"]["value"])
    # An evaluation of the slow model costs ten times as many operations, but both decode for 50.
    assert found["fast / slow", "speedup_flops"]["value"] == pytest.approx(16050 / 450, rel=0.05)
    assert (ratio["unit"], ratio["higher_is_better"], ratio["checkpoint_sha256"]) == ("ratio", True, None)


def test_without_a_target_it_is_the_best_that_both_models_attain(tmp_path: Path) -> None:
    rows = swept([fast(), slow()], tmp_path)
    points = [row for row in rows if row["group"] == "curve"]
    best = [
        min((row for row in points if row["model"] == m), key=lambda row: row["value"])
        for m in ("fast", "slow")
    ]
    end = max(row["ci_high"] for row in best)
    targets = {row["target"] for row in rows if row["metric"] == "nfe_to_reach"}
    assert targets == {f"frechet_ink<={float(f'{end:.4g}'):.6g}"}


def test_the_reference_procedure_is_compared_with_the_best_samplers(tmp_path: Path) -> None:
    found = derived(swept([slow()], tmp_path))
    row = found["slow", "speedup_vs_reference_nfe"]
    assert row["value"] > 1
    assert row["note"].startswith("dopri5(rtol=1e-05, atol=1e-05) takes 40 (nfe)")
    reference = next(
        r for r in read_rows(tmp_path / "results.jsonl") if (r["sampler"] or "").startswith("dopri5")
    )
    assert row["target"] == f"frechet_ink<={reference['ci_high']:.4g}"


def test_a_model_without_a_diffusion_is_a_level(tmp_path: Path) -> None:
    vae = fast(name="vae", has_prior=False, sha256="d" * 64)
    rows = swept([vae, slow()], tmp_path)
    (level,) = [row for row in rows if row["model"] == "vae" and row["group"] == "curve"]
    assert (level["sampler"], level["nfe_mean"], level["flops_per_image"]) == (None, 0, 50)
    found = derived(rows)
    assert found["vae", "nfe_to_reach"]["value"] == 0
    assert found["vae / slow", "speedup_nfe"]["note"] == "vae needs none"
    assert found["vae / slow", "speedup_flops"]["value"] > 1
    assert len(vae.sampled) == 2  # the warm-up and the level, whatever the points


def test_a_quality_out_of_reach_is_a_row_without_a_value(tmp_path: Path) -> None:
    found = derived(swept([fast(), slow()], tmp_path, targets=(1e-3,)))
    assert found["fast", "nfe_to_reach"]["value"] is None
    assert "not reached by 11 points" in found["fast", "nfe_to_reach"]["note"]
    assert "fast does not reach it" in found["fast / slow", "speedup_seconds"]["note"]


def test_higher_may_be_better(tmp_path: Path) -> None:
    found = swept([fast()], tmp_path, targets=(0.01,), family="density")
    assert {row["metric"] for row in found if row["group"] == "curve"} == {
        "density_ink",
        "coverage_ink",
    }
    (target,) = {row["target"] for row in found if row["metric"] == "nfe_to_reach"}
    assert target == "density_ink>=0.01"


def test_all_points_of_all_models_draw_from_the_same_seeds_the_cheapest_first(tmp_path: Path) -> None:
    models = [fast(), slow()]
    swept(models, tmp_path)
    for model in models:
        assert model.sampled[1::2] == list(POINTS)


def test_the_same_call_again_draws_nothing(tmp_path: Path) -> None:
    first = swept([fast()], tmp_path)
    again = fast()
    second = swept([again], tmp_path)
    assert not again.sampled
    assert [replace(row, run_id="") for row in second] == [replace(row, run_id="") for row in first]
    assert not list((tmp_path / "passes").glob("*.npz"))


def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        swept([Killed(name="fast", p=0.16, slowness=0.5)], tmp_path)
    model = fast()
    rows = swept([model], tmp_path)
    assert len(model.sampled) == 2 * (len(POINTS) - 2)
    whole = swept([fast()], tmp_path / "whole")
    assert [row["value"] for row in rows] == [row["value"] for row in whole]


def test_more_points_later_reuse_those_of_before_and_replace_what_was_derived(tmp_path: Path) -> None:
    swept([fast()], tmp_path, POINTS[:3], targets=(50.0,))
    model = fast()
    rows = swept([model], tmp_path, targets=(40.0,))
    assert len(model.sampled) == 2 * (len(POINTS) - 3)
    kept = read_rows(tmp_path / "results.jsonl")
    assert {row["target"] for row in kept if row["metric"] == "nfe_to_reach"} == {"frechet_ink<=40"}
    assert len(kept) == len(rows)


def test_when_time_is_up_what_there_is_is_told_and_the_rest_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = itertools.count(0.0, 10.0)
    model = fast()
    runner = Runner(tmp_path, clock=lambda: next(clock))
    rows = swept([model], tmp_path, seconds=150.0, runner=runner)
    done = [row for row in rows if row["group"] == "curve"]
    assert 0 < len(done) < len(POINTS)
    assert f"{len(POINTS) - len(done)} points are left" in capsys.readouterr().err
    assert derived(rows)


def test_progress_is_told_point_by_point(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    swept([fast()], tmp_path, POINTS[:2], runner=Runner(tmp_path, screen=Lines()))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("lsgm: [1/2] fast heun(steps=1): 2 NFE, 22 ms/image, frechet_ink ")
    assert "1 left" in first
    assert second.startswith("lsgm: [2/2] fast euler(steps=2): ")


def test_every_point_is_written_at_once_and_what_was_derived_of_fewer_is_gone(tmp_path: Path) -> None:
    both = [fast(), Killed(name="slow", p=0.16, slowness=2.0, sha256="c" * 64)]
    swept(both, tmp_path, POINTS[:2], targets=(50.0,))
    assert {row["group"] for row in read_rows(tmp_path / "results.jsonl")} == {"curve", "reach"}
    with pytest.raises(KeyboardInterrupt):
        swept(both, tmp_path)
    kept = read_rows(tmp_path / "results.jsonl")
    assert {row["group"] for row in kept} == {"curve"}
    assert [row["model"] for row in kept] == ["fast", "slow", "fast", "slow", "fast"]


def test_another_number_of_images_is_another_protocol(tmp_path: Path) -> None:
    rows = swept([fast()], tmp_path, POINTS[:1], 50)
    assert {row["task"] for row in rows} == {"bars@1/quick-limit-50"}


def test_mistakes_are_told_before_anything_is_drawn(tmp_path: Path) -> None:
    def refused(models: list[Any], error: type[UserError], sentence: str, **options: Any) -> None:
        with pytest.raises(error, match=sentence):
            swept(models, tmp_path, **options)
        assert not any(model.sampled for model in models)

    refused([fast(), fast()], UserError, "two models are called 'fast'")
    refused([fast(), fast(name="b")], ConfigError, r"fast and b are one model \(their weights agree\)")
    colour = fast(pixels=Pixels(3, 32, 32, "discrete"))
    refused([colour], UserError, "makes 3x32x32 8-bit images and the task needs 1x28x28 binary ones")
    refused(
        [fast()],
        UserError,
        "has no feature space",
        task=replace(TASK, spaces=(), tiers={"quick": replace(TIER, n_samples=0, curve=())}),
    )
    refused([fast()], ConfigError, "n is 20", n=20)


def test_no_space_at_hand_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*args: Any, **options: Any) -> Any:
        raise DataError("weights.pth is not here: fetch it")

    monkeypatch.setattr(plan, "load_extractor", absent)
    with pytest.raises(DataError, match=r"weights\.pth is not here"):
        swept([fast()], tmp_path)


def test_a_metric_is_named_by_its_family_or_in_full() -> None:
    assert check_metric("frechet") == check_metric("fid") == check_metric("frechet_ink") == "frechet"
    with pytest.raises(ConfigError, match="no metric 'frechte' to sweep; did you mean 'frechet'"):
        check_metric("frechte")
    with pytest.raises(ConfigError, match="no metric 'memorised'"):
        check_metric("memorised")


def test_a_factorys_silent_model_has_points_without_operations(tmp_path: Path) -> None:
    silent = BernoulliModel(name="theirs")
    rows = swept([silent], tmp_path, POINTS[:3], targets=(1000.0,))
    assert {row["flops_per_image"] for row in rows} == {None}
    assert {row["metric"] for row in rows if row["group"] == "reach"} == {"nfe_to_reach", "seconds_to_reach"}
