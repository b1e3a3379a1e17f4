"""Measuring from Python: the rows of the commands, of runs, of models at hand, of other people's classes."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import lsgm
import lsgm_eval
from lsgm import results
from lsgm.cli import main
from lsgm.config import SamplerConfig
from lsgm.data import ImageSet, load, sha256_of, test_levels
from lsgm.errors import UserError
from lsgm.generative import Pixels, Samples
from lsgm_eval.foreign import ForeignModel

LSGM = Path(__file__).parents[2] / "checkpoints/glyphs-lsgm"
SHARE = 0.2


class Noise:
    """Independent pixels, white with one probability: its likelihood is known."""

    def sample(self, seeds: list[int]) -> NDArray[np.uint8]:
        drawn = [np.random.default_rng(seed).random((1, 28, 28)) < SHARE for seed in seeds]
        return np.stack(drawn).astype(np.uint8) * np.uint8(255)

    def density(self, images: torch.Tensor, seeds: list[int]) -> torch.Tensor:
        white = (images == 255).flatten(1).sum(dim=1).double()
        return -(white * np.log(SHARE) + (784 - white) * np.log1p(-SHARE))


def values(frame: Any) -> dict[tuple[str, str], float]:
    known = frame.dropna(subset=["value"])
    return {(model, metric): value for model, metric, value in known[["model", "metric", "value"]].values}


@pytest.fixture(scope="module")
def few() -> ImageSet:
    """Some of the letters, so that few features are computed."""
    whole = load("glyphs")
    splits = {name: images[:200] for name, images in whole.splits.items()}
    return replace(whole, splits=splits, sha256=sha256_of(*splits.values()))


@pytest.fixture
def letters(few: ImageSet, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """Those that likelihoods are measured on, in the place of the task's own."""
    for module in ("lsgm_eval.run.plan", "lsgm_eval.python"):
        monkeypatch.setattr(f"{module}.task_images", lambda task, models, few=False, found=few: found)
    return 255 * test_levels(few, "test", 0)


def test_a_class_of_ones_own_is_measured_beside_a_run(tmp_path: Path, letters: torch.Tensor) -> None:
    models = {"noise": Noise(), "mine": LSGM}
    only = ["quality", "nelbo"]

    def measured() -> Any:
        return lsgm_eval.evaluate(models, "glyphs", "smoke", only=only, out=tmp_path, device="cpu")

    frame = measured()
    found = values(frame)
    # The closed form, in expectation over the letters.
    white = (letters == 255).flatten(1).sum(dim=1).double().mean()
    expected = -(white * np.log(SHARE) + (784 - white) * np.log1p(-SHARE))
    (row,) = frame[(frame.model == "noise") & (frame.metric == "nelbo_nats")].to_dict("records")
    assert abs(row["value"] - expected) < 4 * (row["ci_high"] - row["value"])
    assert found["mine", "nelbo_nats"] < found["noise", "nelbo_nats"]
    assert found["mine", "frechet_glyphs"] < found["noise", "frechet_glyphs"]
    assert found["noise - mine", "paired_nelbo_nats"] > 0
    # The rows of the command: those that the folder keeps, and the same call measures nothing anew.
    assert results.rows(frame) == results.rows(results.read(tmp_path))
    assert values(measured()) == found


class Later(Noise):
    """The same images, under seeds that are smaller by 1000."""

    def sample(self, seeds: list[int]) -> NDArray[np.uint8]:
        return super().sample([seed + 1000 for seed in seeds])


def test_another_first_seed_draws_other_images_under_another_protocol(
    tmp_path: Path, letters: torch.Tensor
) -> None:
    def measured(first: Any, second: Any = None, **seeds: Any) -> dict[tuple[str, str], dict[str, Any]]:
        models = {"a": first} | ({} if second is None else {"b": second})
        words = {"only": ["quality", "nelbo"], "out": tmp_path, "device": "cpu"}
        frame = lsgm_eval.evaluate(models, "glyphs", "smoke", **words, **seeds)
        return {(row["model"], row["metric"]): row for row in frame.to_dict("records")}

    def numbers(rows: dict[tuple[str, str], dict[str, Any]]) -> dict[tuple[str, str], tuple[Any, ...]]:
        told = {key: row for key, row in rows.items() if "seconds" not in key[1] and row["group"] != "cost"}
        return {key: tuple(row[each] for each in ("value", "ci_low", "n")) for key, row in told.items()}

    usual, same = measured(Noise()), measured(Noise(), first_seed=0)
    assert numbers(usual) == numbers(same)
    assert {row["task"] for row in same.values()} == {"glyphs@3/smoke"}

    other, oracle = measured(Noise(), LSGM, first_seed=1000), measured(Later())
    distance = ("a", "frechet_glyphs")
    assert numbers(other)[distance] == numbers(oracle)[distance] != numbers(usual)[distance]
    assert other[distance]["task"] == "glyphs@3/smoke-seed-1000"
    assert str(other[distance]["seeds"]).startswith("1000-")
    # A difference is of the same seeds of both; bounds know nothing of seeds of images.
    paired = other["a - b", "paired_frechet_glyphs"]
    apart = other[distance]["value"] - other["b", "frechet_glyphs"]["value"]
    assert paired["task"] == "glyphs@3/smoke-seed-1000"
    assert paired["value"] == pytest.approx(apart, rel=0.05)  # less the bias, which is that of few images
    bound = ("a", "nelbo_nats")
    assert other[bound]["task"] == "glyphs@3/smoke"
    assert numbers(other)[bound] == numbers(usual)[bound]
    # All of them stay, and a report takes them together.
    tasks = set(results.read(tmp_path)["task"])
    assert tasks == {"glyphs@3/smoke", "glyphs@3/smoke-seed-1000"}
    assert main(["report", str(tmp_path), "--format", "md"]) == 0


def test_seeds_that_cannot_be_are_refused(letters: torch.Tensor) -> None:
    with pytest.raises(UserError, match="first-seed is -1; it cannot be negative"):
        lsgm_eval.evaluate(Noise(), "glyphs", "smoke", first_seed=-1)
    with pytest.raises(UserError, match="first-seed is -1; it cannot be negative"):
        lsgm_eval.nfe_curve(Noise(), "glyphs", "smoke", images=40, first_seed=-1)


def test_a_curve_begins_at_another_seed_too(letters: torch.Tensor) -> None:
    frame = lsgm_eval.nfe_curve(Noise(), "glyphs", "smoke", images=40, first_seed=7)
    (row,) = frame[frame.metric == "frechet_glyphs"].to_dict("records")
    assert (row["task"], row["seeds"]) == ("glyphs@3/smoke-limit-40-seed-7", "7-46")


def test_what_a_model_cannot_be_asked_is_said_in_its_row(letters: torch.Tensor) -> None:
    class Silent:
        def sample(self, seeds: list[int]) -> NDArray[np.uint8]:
            return Noise().sample(seeds)

    frame = lsgm_eval.evaluate({"silent": Silent()}, "glyphs", "smoke", only=["nelbo"])
    assert frame["value"].isna().all()
    assert frame["note"].str.contains("silent has no density: it draws images and bounds no likelihood").all()
    frame = lsgm_eval.evaluate({"noise": Noise()}, "glyphs", "smoke", only=["iw"])
    assert frame["note"].str.contains("in one way of its own, which stands as nelbo").all()


def test_a_curve_has_a_row_for_each_point_and_what_follows(letters: torch.Tensor) -> None:
    frame = lsgm_eval.nfe_curve(
        lsgm.load(LSGM, device="cpu"),
        "glyphs",
        "smoke",
        samplers="ddim,heun",
        nfe=[2, 4],
        images=40,
    )
    points = frame[frame.group == "curve"].dropna(subset=["value"])
    assert sorted(zip(points["sampler"].str.split("(").str[0], points["nfe_mean"], strict=True)) == [
        *[("ddim", 2.0), ("ddim", 4.0), ("heun", 2.0), ("heun", 4.0)],
    ]


def test_names_come_from_the_mapping_the_object_or_its_class() -> None:
    assert lsgm_eval.as_model(Noise()).name == "Noise"
    assert lsgm_eval.as_model(Noise(), name="static").name == "static"
    model = lsgm.load(LSGM, device="cpu")
    assert lsgm_eval.as_model(model) is model.generative
    assert lsgm_eval.as_model(str(LSGM)).sha256 == model.generative.sha256
    assert lsgm_eval.as_model(Noise()).pixels == Pixels(1, 28, 28, "binary", 1)


def test_a_model_without_a_hash_is_known_by_what_it_draws() -> None:
    class Other(Noise):
        def sample(self, seeds: list[int]) -> NDArray[np.uint8]:
            return super().sample([seed + 1 for seed in seeds])

    assert ForeignModel(Noise()).sha256 == ForeignModel(Noise()).sha256 != ForeignModel(Other()).sha256


def test_a_sampler_is_passed_on_to_whom_takes_one() -> None:
    class Diffusion:
        asked: ClassVar[list[str]] = []

        def sample(self, seeds: list[int], sampler: SamplerConfig) -> Samples:
            self.asked.append(sampler.name)
            nfe = torch.full((len(seeds),), sampler.steps)
            return Samples(torch.from_numpy(Noise().sample(seeds)), nfe, 1.0)

    model = lsgm_eval.as_model(Diffusion())
    assert model.has_prior
    drawn = model.sample([3], SamplerConfig("ddim", steps=7))
    assert (drawn.nfe.tolist(), Diffusion.asked[-1]) == ([7], "ddim")


def gives(images: Any) -> Any:
    class Wrong:
        def sample(self, seeds: list[int]) -> Any:
            return images(len(seeds))

    return Wrong()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (gives(lambda n: np.zeros((n, 1, 8, 8))), r"gave torch.float64 .*let it give uint8 \[N, C, H, W\]"),
        (gives(lambda n: np.zeros((n, 8, 8, 3), np.uint8)), "move the channels to the front"),
        (gives(lambda n: np.zeros((1, 3, 8, 8), np.uint8)), "one image for each seed"),
        (Noise, "Noise is no model; give an instance of it"),
        (3, "int is no model; give a run"),
        ("nowhere/at-all", "nowhere/at-all"),
    ],
)
def test_what_is_no_model_is_one_sentence(model: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        lsgm_eval.as_model(model)


def test_a_slip_is_one_sentence() -> None:
    with pytest.raises(UserError, match="there is no measurement 'fid'"):
        lsgm_eval.evaluate(Noise(), "glyphs", only=["fid"])
    with pytest.raises(UserError, match="nothing to measure"):
        lsgm_eval.evaluate([], "glyphs")
    with pytest.raises(UserError, match="did you mean 'glyphs'"):
        lsgm_eval.evaluate(Noise(), "glyhps")


def test_signatures_are_as_promised() -> None:
    assert lsgm_eval.__all__ == ["as_model", "evaluate", "fid", "nfe_curve"]
    evaluate = list(inspect.signature(lsgm_eval.evaluate).parameters)
    assert evaluate[:3] == ["models", "task", "tier"]
    assert evaluate[3:] == [
        *("only", "out", "images", "first_seed", "data", "extractor", "batch_size", "device"),
    ]
    curve = list(inspect.signature(lsgm_eval.nfe_curve).parameters)
    assert curve[3:] == [
        *("samplers", "nfe", "tolerances", "metric", "reach", "images", "first_seed", "out", "data"),
        *("extractor", "batch_size", "device"),
    ]
