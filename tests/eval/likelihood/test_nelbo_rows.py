"""What the rows of a score-matching bound say of its control variate, and of its tail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from scoring import KnownModel, known_images
from torch import Tensor

from lsgm.config import DensityConfig
from lsgm.generative import Density, GenerativeModel
from lsgm.model.diffusion import ScoreBasedModel, measure_lsgm
from lsgm.runs.load import fresh_networks
from lsgm.train.loop import pixels_of
from lsgm_eval.images import ScoredImages, scored_images_of
from lsgm_eval.likelihood.bound import Bound, estimator_label
from lsgm_eval.metrics.intervals import mean_interval
from lsgm_eval.models import Renamed
from lsgm_eval.rows import Context
from lsgm_eval.task import Task

COUNT = 20
NELBO = DensityConfig(draws=4)
OFF = replace(NELBO, control_variate=False)


class Tailed(KnownModel):
    """A known model whose bound has a tail, of k mod 2 nats for the image with seed k."""

    def density(self, levels: Tensor, seeds: Sequence[int], config: DensityConfig) -> Density:
        """Return the known bounds with the tail as a term of theirs."""
        found = super().density(levels, seeds, config)
        tail = torch.tensor(seeds, dtype=torch.float64) % 2
        terms = {**found.terms, "rest": found.terms["rest"] - tail, "tail": tail}
        return replace(found, terms=terms)


@pytest.fixture(scope="module")
def lsgm() -> ScoreBasedModel:
    """An LSGM as it begins to be trained."""
    recipe: Any = tiny.recipe()
    networks: Any = fresh_networks(recipe, pixels_of(tiny.bars(), recipe.data.bits)).eval()
    return measure_lsgm(recipe.prior.objective, networks, {"name": "lsgm", "sha256": "a" * 64})


@pytest.fixture(scope="module")
def pictures() -> ScoredImages:
    return scored_images_of(Task("bars", 1, "bars", "bars"), tiny.bars())


def measure(
    model: GenerativeModel, images: ScoredImages, out: Path, config: DensityConfig = NELBO
) -> dict[str, dict[str, Any]]:
    """Return the rows of a model's bound by their metrics."""
    context = Context("bars@1/quick", model.name, model.sha256, images.dataset, "run")
    rows = Bound(model, images, config, COUNT).measure(out, context=context, batch_size=8)
    return {row["metric"]: row for row in rows}


def controlled(known: bool, model: KnownModel | None = None) -> KnownModel:
    """Return a model whose prior says whether it has a control variate."""
    model = model or KnownModel()
    model.prior = SimpleNamespace(has_control=known)  # type: ignore[attr-defined]
    return model


def test_the_row_of_an_lsgm_names_its_control_variate_and_its_tail(
    lsgm: ScoreBasedModel, pictures: ScoredImages, tmp_path: Path
) -> None:
    rows = measure(Renamed(lsgm, "named"), pictures, tmp_path)
    bound, tail = rows["nelbo_nats"], rows["nelbo_term_tail_nats"]
    assert bound["sampler"] == "nelbo(times=4)"
    assert bound["nfe_mean"] == bound["nfe_max"] == 5
    said = bound["note"].split("; ")
    assert said[:2] == [
        "upper bound in expectation",
        "1 latent draw per image, 4 times per draw, with a control variate",
    ]
    assert said[2].startswith("strict at z_0: its tail is ")
    assert said[2].endswith(" nats of it")
    value, half = (float(word) for word in said[2].split()[6:9:2])
    # Half of the interval has two digits, so that the last one printed is at most a tenth of it.
    assert value == pytest.approx(tail["value"], abs=0.05 * half)
    assert half == pytest.approx((tail["ci_high"] - tail["ci_low"]) / 2, rel=0.05)


def test_all_terms_of_an_lsgms_bound_add_up_and_those_of_groups_to_theirs(
    lsgm: ScoreBasedModel, pictures: ScoredImages, tmp_path: Path
) -> None:
    rows = measure(lsgm, pictures, tmp_path)
    terms = {name: row["value"] for name, row in rows.items() if "_term_" in name}
    whole = {name: value for name, value in terms.items() if "/" not in name}
    assert "nelbo_term_tail_nats" in whole
    size = sum(abs(value) for value in terms.values())
    # Means over COUNT images of a few float64 numbers: as many roundings, each relative to the largest.
    close = {"rel": 0, "abs": 10 * COUNT * np.finfo(np.float64).eps * size}
    assert sum(whole.values()) == pytest.approx(rows["nelbo_nats"]["value"], **close)
    tails = [value for name, value in terms.items() if name.startswith("nelbo_term_tail/")]
    assert sum(tails) == pytest.approx(whole["nelbo_term_tail_nats"], **close)


def test_without_the_control_variate_the_cross_entropy_alone_is_another_and_the_row_says_so(
    lsgm: ScoreBasedModel, pictures: ScoredImages, tmp_path: Path
) -> None:
    on, off = (measure(lsgm, pictures, tmp_path, config) for config in (NELBO, OFF))
    assert off["nelbo_nats"]["sampler"] == "nelbo(times=4, control_variate=off)"
    assert "control variate" not in off["nelbo_nats"]["note"]
    assert "4 times per draw; strict at z_0" in off["nelbo_nats"]["note"]
    assert on.keys() == off.keys()
    moved = {name.partition("/")[0] for name in on if on[name]["value"] != off[name]["value"]}
    assert moved == {"nelbo_nats", "nelbo_bpd", "nelbo_term_cross_entropy", "nelbo_term_cross_entropy_nats"}


def test_the_tail_is_a_mean_over_images_with_half_its_interval(tmp_path: Path) -> None:
    rows = measure(Tailed(), known_images(), tmp_path)
    odd = (known_images().order[:COUNT] % 2).double().numpy()
    tail, interval = rows["nelbo_term_tail_nats"], mean_interval(odd)
    assert tail["value"] == pytest.approx(odd.mean())
    assert (tail["ci_low"], tail["ci_high"]) == pytest.approx((interval.low, interval.high))
    # Half of the interval to two digits, and the mean to the same place.
    half = (interval.high - interval.low) / 2
    assert f"its tail is {odd.mean():.2f} ± {half:.2f} nats of it" in rows["nelbo_nats"]["note"]


def test_without_a_tail_nothing_is_said_to_be_strict(tmp_path: Path) -> None:
    rows = measure(controlled(True), known_images(), tmp_path)
    assert rows["nelbo_nats"]["note"] == (
        "upper bound in expectation; 1 latent draw per image, 4 times per draw, with a control variate; "
        "binarised with seed 3"
    )


@pytest.mark.parametrize(
    ("model", "config"),
    [
        (controlled(True), OFF),
        (controlled(False), NELBO),  # a network that stands alone, on pixels
        (KnownModel(), NELBO),  # a factory's model need not say
        (controlled(True, KnownModel(has_prior=False)), NELBO),
        (controlled(True), DensityConfig("ode")),
        (controlled(True), DensityConfig("iw", samples=2)),
    ],
)
def test_no_other_bound_is_said_to_have_a_control_variate(
    model: KnownModel, config: DensityConfig, tmp_path: Path
) -> None:
    rows = measure(Renamed(model, "other"), known_images(), tmp_path, config)
    assert not [row for row in rows.values() if "control" in row["note"]]


@pytest.mark.parametrize(
    ("model", "label"),
    [
        (controlled(True), "nelbo(times=4, control_variate=off, samples=2)"),
        (KnownModel(), "nelbo(times=4, control_variate=off, samples=2)"),
        (controlled(False), "nelbo(times=4, samples=2)"),
        (controlled(True, KnownModel(has_prior=False)), "nelbo(samples=2)"),
    ],
)
def test_the_label_is_silent_of_a_control_variate_that_there_never_was(model: KnownModel, label: str) -> None:
    off = replace(OFF, samples=2)
    assert estimator_label(off, model) == estimator_label(off, Renamed(model, "other")) == label
    for method in ("ode", "iw"):
        flow = replace(off, method=method)
        assert "control_variate" not in estimator_label(flow, model)
