"""Configuration refuses what makes no sense, in one sentence that names it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from lsgm.config import DataConfig, DensityConfig, OptimConfig, SamplerConfig, StageConfig, require_seeds
from lsgm.errors import ConfigError, did_you_mean
from lsgm.nets.config import NVAEConfig
from lsgm.recipes.recipe import JointStage, KLConfig, LSGMRecipe, NormPenaltyConfig, ObjectiveConfig, VAEStage


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: DataConfig(pad=-1), "pad"),
        (lambda: DataConfig(bits=9), "bits"),
        (lambda: DataConfig(dataset=""), "data.dataset is empty"),
        (lambda: OptimConfig(lr=math.inf), "lr is inf; give a finite number"),
        (lambda: OptimConfig(eps=math.nan), "eps is nan"),
        (lambda: StageConfig(seconds=math.inf), "seconds is inf; give a finite number"),
        (lambda: SamplerConfig(temperature=math.inf), "temperature is inf; give a finite number"),
        (lambda: SamplerConfig(churn_noise=math.nan), "churn"),
        (lambda: DensityConfig(rtol=math.inf), "rtol is inf; give a finite number"),
        (
            lambda: require_seeds(2**63 - 1, 2, "first-seed"),
            "the last of 2 seeds 9223372036854775808; it",
        ),
        (lambda: require_seeds(-1, 2, "first-seed"), "first-seed is -1; it cannot be negative"),
        (lambda: DataConfig(dataset=" "), "data.dataset is empty"),
        (lambda: OptimConfig(lr=0.0), "learning rate"),
        (lambda: OptimConfig(lr=1e-3, lr_min=1e-2), "lr-min"),
        (lambda: OptimConfig(beta1=1.0), "beta1"),
        (lambda: StageConfig(steps=-1), "steps"),
        (lambda: StageConfig(seconds=0.0), "seconds"),
        (lambda: StageConfig(batch_size=0), "batch-size"),
        (lambda: StageConfig(warmup=1.0), "warmup"),
        (lambda: StageConfig(ema=1.0), "ema"),
        (lambda: SamplerConfig(steps=0), "steps"),
        (lambda: SamplerConfig(rtol=0.0), "rtol"),
        (lambda: SamplerConfig(time_end=1.0), "time-end"),
        (lambda: DensityConfig(draws=0), "draws"),
        (lambda: KLConfig(start=0.9, end=0.5), "kl.start"),
        (lambda: ObjectiveConfig(time_eps=1.0), "time-eps"),
        (lambda: KLConfig(hold=1.0), "kl.hold"),
        (lambda: NormPenaltyConfig(spectral=-1.0), "coefficients"),
        (lambda: NormPenaltyConfig(anneal_from=0.0), "anneal-from"),
        (lambda: JointStage(ema_prior=True), "ema-prior"),
        (lambda: JointStage(cached_draws=2), "train-vae"),
        (lambda: NVAEConfig(multipliers=(1, 2, 2)), r"blocks \+ scales"),
        (lambda: NVAEConfig(pre_cells=0), "at least one cell"),
        (lambda: LSGMRecipe(vae=NVAEConfig(recompute=True), stage1=VAEStage(compile=True)), "recompute"),
    ],
)
def test_a_value_out_of_range_is_named(make: Callable[[], Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_the_kl_coefficient_rises_and_stays() -> None:
    kl = KLConfig(start=0.1, end=0.9, portion=0.5)
    assert [kl.at(p) for p in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([0.1, 0.5, 0.9, 0.9])
    assert KLConfig(start=0.7, end=0.7, portion=0.0).at(0.0) == 0.7


def test_the_closest_name_is_suggested() -> None:
    assert did_you_mean("glyhps", ["glyphs", "mnist"]) == "; did you mean 'glyphs'?"
    assert did_you_mean("zzz", ["glyphs", "mnist"]) == ""


def test_infinity_is_taken_where_it_means_something() -> None:
    assert StageConfig(clip=math.inf, checkpoint_every=math.inf).clip == math.inf
    assert SamplerConfig("edm-heun", churn_max=math.inf).churn_max == math.inf
    require_seeds(2**63 - 1, 1, "first-seed")
