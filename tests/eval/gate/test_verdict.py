"""Verdicts from measured numbers alone: where each tolerance ends, and what is said on either side of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from eval.gate.golden_rows import GOLDEN

from lsgm.errors import UserError
from lsgm_eval.gate.measure import Measured, Repeat
from lsgm_eval.gate.verdict import (
    FALSE_ALARM,
    HEADROOM,
    Verdict,
    flips_allowed,
    judge,
    paired_margin,
    predictive_margin,
)

CHANCE = FALSE_ALARM / 4
"""For each of the four rows."""


def found(**changes: Any) -> Measured:
    """Return what was measured: the golden values, where nothing else is given."""
    images = np.array(changes.get("images", (2.0, 3.0)))
    return Measured(
        replays={"replay/nelbo": np.array(changes.get("replay", (1.25, -3.0)))},
        drawn={"replay/images": changes.get("drawn", np.arange(6, dtype=np.uint8).reshape(2, 3))},
        estimates={
            "nelbo_nats": Repeat(float(images.mean()), images),
            "frechet_glyphs": Repeat(changes.get("frechet", 4.0)),
        },
    )


def verdict(row: str, *, retrained: bool = False, **changes: Any) -> Verdict:
    (one,) = (one for one in judge(GOLDEN, found(**changes), retrained=retrained) if one.row == row)
    return one


def test_golden_values_themselves_stand() -> None:
    assert [(one.row, one.passed) for one in judge(GOLDEN, found())] == [(row, True) for row in GOLDEN.rows]


def test_a_replay_fails_by_one_image_beyond_the_rounding_recorded() -> None:
    """Largest 1e-5 and mean 5e-6, each with its headroom."""
    inside = verdict("replay/nelbo", replay=(1.25 + 0.99 * HEADROOM * 1e-5, -3.0))
    outside = verdict("replay/nelbo", replay=(1.25, -3.0 - 1.01 * HEADROOM * 1e-5))
    assert inside.passed
    assert not outside.passed
    assert outside.sentence == (
        "replay/nelbo differs by 0.000162 nats at image 1 of 2, where rounding explains 0.00016"
    )


def test_a_replay_fails_by_all_images_where_none_alone_does() -> None:
    shift = 1.01 * HEADROOM * 5e-6
    assert shift < HEADROOM * 1e-5
    outside = verdict("replay/nelbo", replay=(1.25 + shift, -3.0 - shift))
    assert not outside.passed
    assert "at the mean of 2 images" in outside.sentence


def test_an_image_that_is_not_finite_fails_and_is_named() -> None:
    outside = verdict("replay/nelbo", replay=(1.25, np.inf))
    assert (outside.passed, outside.measured) == (False, None)
    assert outside.sentence == "replay/nelbo is not finite at image 1 of 2"


def test_pictures_may_turn_over_as_many_levels_as_rounding_explains() -> None:
    many = {"shape": (100, 10), "flips": 0}
    old = np.zeros((100, 10), dtype=np.uint8)
    from lsgm_eval.gate.golden import pack

    rows = {"replay/images": replace(GOLDEN.rows["replay/images"], packed=pack(old), **many)}
    golden, allowed = replace(GOLDEN, rows=rows), flips_allowed(0, FALSE_ALARM)
    for flips, stands in ((allowed, True), (allowed + 1, False)):
        levels = old.copy()
        levels.reshape(-1)[:flips] = 255
        (one,) = judge(golden, Measured(drawn={"replay/images": levels}))
        assert one.passed == stands
        assert f"{flips:,} of 1,000 sub-pixels" in one.sentence


def test_an_estimate_fails_on_both_sides_of_its_predictive_interval() -> None:
    margin = predictive_margin(0.3, 3.0, 4, CHANCE / 2)
    for sign in (1, -1):
        assert verdict("frechet_glyphs", frechet=4.0 + sign * 0.99 * margin).passed
        assert not verdict("frechet_glyphs", frechet=4.0 + sign * 1.01 * margin).passed
    assert "worse; other seeds explain" in verdict("frechet_glyphs", frechet=4.0 + 2 * margin).sentence
    assert "better; other seeds explain" in verdict("frechet_glyphs", frechet=4.0 - 2 * margin).sentence


def test_a_freak_among_the_images_counts_as_the_end_they_are_cut_at() -> None:
    freak = verdict("nelbo_nats", images=(2.0, 1e9))
    assert freak.measured == (2.0 + 9.0) / 2
    assert verdict("nelbo_nats", images=(2.0, np.nan)).measured is None


def test_a_model_trained_anew_is_compared_in_pairs_and_on_the_worse_side_alone() -> None:
    images = np.array([2.6, 3.4])
    margin = paired_margin(images - (2.0, 3.0), FALSE_ALARM / 2)
    one = verdict("nelbo_nats", retrained=True, images=images)
    assert one.allowed == pytest.approx(margin)
    assert one.difference == pytest.approx(0.5)
    assert verdict("nelbo_nats", retrained=True, images=(-3.0, -2.0)).passed
    assert not verdict("nelbo_nats", retrained=True, images=(4.0, 5.0)).passed


def test_where_more_is_better_less_is_worse() -> None:
    rows = {"recall": replace(GOLDEN.rows["frechet_glyphs"], higher_is_better=True)}
    golden = replace(GOLDEN, rows=rows)
    for value, stands in ((1e3, True), (-1e3, False)):
        measured = Measured(estimates={"recall": Repeat(value)})
        assert judge(golden, measured, retrained=True)[0].passed == stands


def test_a_measurement_that_ended_in_an_error_fails_its_rows_with_the_reason() -> None:
    broken = found()
    del broken.estimates["nelbo_nats"]
    broken.failures["nelbo_nats"] = "the decoder gives levels no probability"
    (one,) = (one for one in judge(GOLDEN, broken) if not one.passed)
    assert one.sentence == "nelbo_nats could not be measured: the decoder gives levels no probability"


def test_a_row_that_this_version_does_not_measure_cannot_be_checked() -> None:
    golden = replace(GOLDEN, rows={"sharpness": GOLDEN.rows["nelbo_nats"]})
    with pytest.raises(UserError, match="'sharpness' is not measured of this model by this version"):
        judge(golden, found())


def test_rows_of_another_length_cannot_be_checked() -> None:
    with pytest.raises(UserError, match="holds 2 numbers and 3 were measured"):
        judge(GOLDEN, found(replay=(1.0, 2.0, 3.0)))
    with pytest.raises(UserError, match="holds 2 numbers and 3 were measured"):
        judge(GOLDEN, found(images=(1.0, 2.0, 3.0)))


def test_replays_alone_say_nothing_of_a_model_trained_anew() -> None:
    rows = {"replay/nelbo": GOLDEN.rows["replay/nelbo"]}
    with pytest.raises(UserError, match="there are only replays"):
        judge(replace(GOLDEN, rows=rows), found(), retrained=True)
