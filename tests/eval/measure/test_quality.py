"""Sample quality through the runner: several spaces, all statistics, references of others, several models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles.distances import frechet_of_features, stats_of
from torch import Tensor

from lsgm.config import SamplerConfig
from lsgm.data import ImageSet
from lsgm.errors import DataError, UserError
from lsgm.results.files import read_rows
from lsgm_eval.measure.quality import TIMED
from lsgm_eval.metrics.difference import compare_frechet
from lsgm_eval.metrics.memorisation import memorisation
from lsgm_eval.metrics.precision_recall import density_coverage, precision_recall
from lsgm_eval.run import plan
from lsgm_eval.run import plan as open_spaces
from lsgm_eval.run.calls import evaluate
from lsgm_eval.samples.reference import RowFile, all_features, data_images, reference_features
from lsgm_eval.task import SpaceSpec, Task, Tier

Make = Callable[..., Any]
EVERYTHING = (
    "frechet",
    "kernel",
    "inception-score",
    "precision-recall",
    "density-coverage",
    "frechet-infinity",
    "spatial-frechet",
    "memorisation",
)
TIER = Tier(
    n_samples=120, nelbo_images=40, ode_images=0, sampler=SamplerConfig("heun", steps=3), floor_images=200
)


class Squares:
    """Mean ink of the four quarters and of two halves: features, classes and places without a network."""

    resize, image_shape, dim, spatial_dim = "", (1, 28, 28), 4, 2

    def __init__(self, name: str = "squares", sha256: str = "5" * 64, official: bool = False) -> None:
        self.name, self.sha256, self.official, self.seen = name, sha256, official, 0

    def __call__(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        x = images.float()[:, 0] / 255
        quarters = (x[:, :14, :14], x[:, :14, 14:], x[:, 14:, :14], x[:, 14:, 14:])
        return torch.stack([quarter.mean((1, 2)) for quarter in quarters], dim=1)

    def with_spatial(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = images.float()[:, 0] / 255
        return self(images), torch.stack([x[:, :14].mean((1, 2)), x[:, 14:].mean((1, 2))], dim=1)

    def class_logits(self, features: Tensor) -> Tensor:
        return features.float() @ torch.eye(4)[:, :3]


@pytest.fixture
def squares() -> Squares:
    return Squares()


@pytest.fixture(autouse=True)
def _world(monkeypatch: pytest.MonkeyPatch, bars: ImageSet, squares: Squares) -> None:
    def load(spec: str, shape: Any, device: Any = None) -> Any:
        if spec == "absent":
            raise DataError("absent.pth is not here: fetch it")
        return squares if spec == "squares" else Squares(spec, "6" * 64, official=spec == "inception")

    monkeypatch.setattr(plan, "load", lambda name, **options: bars)
    monkeypatch.setattr(open_spaces, "load_extractor", load)


def task_of(*spaces: SpaceSpec, tier: Tier = TIER) -> Task:
    return Task("bars", 1, "bars", "bars", spaces, {"quick": tier}, binarisation_seed=3)


def measured(models: Any, out: Path, *spaces: SpaceSpec, **options: Any) -> dict[str, dict[str, Any]]:
    rows = evaluate(models, task_of(*spaces), "quick", out, only=["quality"], **options)
    return {row["metric"]: row for row in rows}


@pytest.fixture
def rows(bernoulli: Make, tmp_path: Path) -> dict[str, dict[str, Any]]:
    return measured([bernoulli()], tmp_path, SpaceSpec("squares", statistics=EVERYTHING))


def test_every_statistic_gives_its_rows_with_an_interval(
    rows: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    families = (
        "frechet", "kernel", "inception_score", "precision", "recall", "density", "coverage",
        "frechet_infinity", "spatial_frechet", "memorised",
    )  # fmt: skip
    for family in families:
        row = rows[f"{family}_squares"]
        assert row["ci_low"] <= row["value"] <= row["ci_high"], family
        assert (row["n"], row["split"], row["group"]) == (120, "train", "quality")
        assert row["extractor"] == f"squares@{'5' * 64}"
        assert row["reference_sha256"]
    assert (tmp_path / "neighbours" / "bernoulli.png").stat().st_size > 1000


def test_they_are_those_of_the_features_computed_at_once(
    rows: dict[str, dict[str, Any]], bernoulli: Make, bars: ImageSet
) -> None:
    net = Squares()
    ours = net(bernoulli().sample(range(120), SamplerConfig()).images).numpy()
    train, test = (net(data_images(bars, split, 3)).numpy() for split in ("train", "test"))
    assert rows["frechet_squares"]["value"] == pytest.approx(frechet_of_features(ours, train), rel=1e-9)
    pr, dc = precision_recall(ours, train), density_coverage(ours, train)
    for name, interval in (
        ("precision", pr.precision),
        ("recall", pr.recall),
        ("density", dc.density),
        ("coverage", dc.coverage),
    ):
        assert rows[f"{name}_squares"]["value"] == pytest.approx(interval.value, rel=1e-12)
    held_out = reference_features(bars, "test", 3, net, rows=200).stats.rows
    assert set(map(tuple, held_out)) <= set(map(tuple, test))
    found = memorisation(ours, train, held_out)
    assert rows["memorised_squares"]["value"] == found.excess.value


def test_one_pass_serves_all_spaces(bernoulli: Make, squares: Squares, tmp_path: Path) -> None:
    model = bernoulli()
    rows = measured([model], tmp_path, SpaceSpec("squares"), SpaceSpec("inception"))
    assert len(model.sampled) == 1
    assert {"frechet_squares", "kernel_squares", "fid", "kid"} <= set(rows)
    assert rows["fid"]["value"] == pytest.approx(rows["frechet_squares"]["value"])


def test_the_name_of_an_official_space_is_earned_by_its_weights(
    bernoulli: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(open_spaces, "load_extractor", lambda *a, **k: Squares("inception", official=False))
    rows = measured([bernoulli()], tmp_path, SpaceSpec("torchscript:inception.ts"))
    assert "frechet_inception-unofficial" in rows
    assert not {"fid", "kid"} & set(rows)


def test_a_space_without_its_network_is_a_row_that_says_which_file_is_missing(
    bernoulli: Make, tmp_path: Path
) -> None:
    task = task_of(SpaceSpec("absent"), SpaceSpec("squares"))
    rows = {row["metric"]: row for row in evaluate([bernoulli()], task, "quick", tmp_path, only=["quality"])}
    assert rows["frechet_absent"]["value"] is None
    note = rows["frechet_absent"]["note"]
    assert note.startswith("absent.pth is not here: fetch it; or take a distance")
    assert note.endswith("never called FID: --extractor export:FILE.pt2")
    assert rows["frechet_squares"]["value"] > 0
    with pytest.raises(DataError, match=r"absent\.pth is not here"):
        evaluate([bernoulli()], task, "quick", tmp_path, only=["quality"], insist=True)


def test_statistics_for_a_space_without_its_network_do_not_hide_why_it_is_closed(
    bernoulli: Make, tmp_path: Path
) -> None:
    given = {"absent": tmp_path / "train.npz"}

    def quality(task: Task, given: dict[str, Path]) -> list[dict[str, Any]]:
        return evaluate([bernoulli()], task, "quick", tmp_path, only=["quality"], references=given)

    with pytest.raises(DataError, match=r"absent\.pth is not here: fetch it"):
        quality(task_of(SpaceSpec("absent")), given)
    rows = {row["metric"]: row for row in quality(task_of(SpaceSpec("absent"), SpaceSpec("squares")), given)}
    assert rows["frechet_absent"]["note"].startswith("absent.pth is not here: fetch it")
    with pytest.raises(UserError, match=r"no feature space 'abscent' .*; did you mean 'absent'"):
        quality(task_of(SpaceSpec("absent"), SpaceSpec("squares")), {"abscent": tmp_path / "train.npz"})


def test_with_no_network_at_all_bounds_and_costs_are_measured_still(bernoulli: Make, tmp_path: Path) -> None:
    task = task_of(SpaceSpec("absent"))
    rows = {row["metric"]: row for row in evaluate([bernoulli()], task, "quick", tmp_path)}
    assert rows["frechet_absent"]["value"] is None
    assert rows["nelbo_nats"]["value"] > 0
    assert rows["nfe"]["value"] == 6
    assert (tmp_path / "samples" / "bernoulli.png").exists()
    with pytest.raises(DataError, match=r"absent\.pth is not here"):
        evaluate([bernoulli()], task, "quick", tmp_path, only=["quality"])


def test_two_models_differences_have_their_own_smaller_error(bernoulli: Make, tmp_path: Path) -> None:
    good, bad = bernoulli(name="good", p=0.1), bernoulli(name="bad", p=0.3, sha256="c" * 64)
    evaluate([good, bad], task_of(SpaceSpec("squares")), "quick", tmp_path, only=["quality"])
    rows = {(row["model"], row["metric"]): row for row in read_rows(tmp_path / "results.jsonl")}
    apart = rows["good - bad", "paired_frechet_squares"]
    alone = [rows[name, "frechet_squares"] for name in ("good", "bad")]
    assert apart["value"] == pytest.approx(alone[0]["value"] - alone[1]["value"])
    widths = [row["ci_high"] - row["ci_low"] for row in alone]
    assert apart["ci_high"] - apart["ci_low"] < sum(widths)
    sign = "good is nearer" if apart["value"] < 0 else "bad is nearer"
    assert sign in apart["note"]
    assert ("good - bad", "paired_kernel_squares") in rows


def test_the_same_call_again_compares_without_drawing(bernoulli: Make, tmp_path: Path) -> None:
    def pair() -> list[Any]:
        return [bernoulli(name="good"), bernoulli(name="bad", p=0.3, sha256="c" * 64)]

    task = task_of(SpaceSpec("squares"))
    first = evaluate(pair(), task, "quick", tmp_path, only=["quality"])
    for file in (tmp_path / "passes").iterdir():
        file.unlink()
    again = pair()
    second = evaluate(again, task, "quick", tmp_path, only=["quality"])
    assert not any(model.sampled for model in again)
    assert [row["value"] for row in second] == [row["value"] for row in first]


def test_references_go_out_and_come_back(
    bernoulli: Make, bars: ImageSet, squares: Squares, tmp_path: Path
) -> None:
    plain = measured([bernoulli()], tmp_path / "a", SpaceSpec("squares"), export_reference=tmp_path / "stats")
    squares.seen = 0
    given = measured(
        [bernoulli()],
        tmp_path / "b",
        SpaceSpec("squares", statistics=EVERYTHING),
        references={"squares": tmp_path / "stats" / "squares.npz"},
    )
    assert squares.seen == 120  # the samples alone
    assert given["frechet_squares"]["value"] == pytest.approx(plain["frechet_squares"]["value"], rel=1e-9)
    assert "reference statistics of squares.npz" in given["frechet_squares"]["note"]
    whole = measured([bernoulli()], tmp_path / "c", SpaceSpec("squares", statistics=EVERYTHING))
    spatial = [rows["spatial_frechet_squares"]["value"] for rows in (given, whole)]
    assert spatial[0] == pytest.approx(spatial[1], rel=1e-9)
    for metric in ("kernel", "precision", "coverage", "memorised"):
        assert given[f"{metric}_squares"]["value"] is None
    assert "mean and covariance" in given["kernel_squares"]["note"]


def test_a_reference_of_another_extractor_or_for_no_space_is_refused(bernoulli: Make, tmp_path: Path) -> None:
    measured([bernoulli()], tmp_path, SpaceSpec("other"), export_reference=tmp_path)
    with pytest.raises(DataError, match="is of the extractor other@"):
        measured(
            [bernoulli()], tmp_path, SpaceSpec("squares"), references={"squares": tmp_path / "other.npz"}
        )
    with pytest.raises(UserError, match="no feature space 'square' to take reference statistics for"):
        measured([bernoulli()], tmp_path, SpaceSpec("squares"), references={"square": tmp_path / "other.npz"})


def test_a_part_of_the_reference_is_named_in_the_rows(bernoulli: Make, tmp_path: Path) -> None:
    few = replace(TIER, reference_images=50)
    (row, *_) = evaluate(
        [bernoulli()], task_of(SpaceSpec("squares"), tier=few), "quick", tmp_path, only=["quality"]
    )
    assert "distances to 50 of 600 train images, drawn at random" in row["note"]
    many = task_of(SpaceSpec("squares"), tier=replace(TIER, reference_images=601))
    with pytest.raises(UserError, match="asks for 601 images and bars has 600 in train"):
        evaluate([bernoulli()], many, "quick", tmp_path, only=["quality"])


def test_all_rows_of_features_are_kept_in_order_and_read_from_disk(bars: ImageSet) -> None:
    net = Squares()
    whole = all_features(bars, "train", 3, net)
    np.testing.assert_array_equal(whole[:], net(data_images(bars, "train", 3)).numpy())
    net.seen = 0
    again = all_features(bars, "train", 3, net)
    stats = reference_features(bars, "train", 3, net).stats
    assert isinstance(again, RowFile)
    assert net.seen == 0  # one extraction gave both
    np.testing.assert_array_equal(stats.rows, again[:])


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_all_images_are_kept_where_asked_and_measure_the_same(
    kind: Any, bernoulli: Make, tmp_path: Path
) -> None:
    from lsgm_eval.models import open_model

    task = task_of(SpaceSpec("squares"))
    first = evaluate([bernoulli()], task, "quick", tmp_path / "a", only=["quality"], save=kind)
    kept = tmp_path / "a" / "images" / ("bernoulli" if kind == "png" else "bernoulli.npz")
    second = evaluate([open_model(str(kept))], task, "quick", tmp_path / "b", only=["quality"])
    values = [{row["metric"]: row["value"] for row in rows} for rows in (first, second)]
    assert values[0]["frechet_squares"] == values[1]["frechet_squares"]
    assert values[1]["nfe"] is None  # what ready images cost is not known


def test_seconds_are_the_models_own_where_extraction_ran_beside_it(bernoulli: Make, tmp_path: Path) -> None:
    model = bernoulli()
    rows = measured([model], tmp_path, SpaceSpec("squares"), batch_size=10)
    # Twelve batches in the pass and the first few once more, by themselves.
    assert len(model.sampled) == 12 + TIMED
    assert rows["seconds_per_1000"]["value"] == pytest.approx(10.0)


def test_the_comparison_is_that_of_the_collected_features(
    bernoulli: Make, bars: ImageSet, tmp_path: Path
) -> None:
    models = [bernoulli(name="good"), bernoulli(name="bad", p=0.3, sha256="c" * 64)]
    rows = measured(models, tmp_path, SpaceSpec("squares"))
    net = Squares()
    a, b = (stats_of(net, [m.sample(range(120), SamplerConfig()).images]) for m in models)
    reference = reference_features(bars, "train", 3, net).stats.moments
    found = compare_frechet(a, b, reference, paired=True).difference
    row = rows["paired_frechet_squares"]
    assert (row["value"], row["ci_low"]) == pytest.approx((found.value, found.low))
