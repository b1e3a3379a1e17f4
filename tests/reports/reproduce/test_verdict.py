"""A number came out again, or it did not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lsgm.results.row import Row
from lsgm_reports.reproduce.again import NUMERICS, same_measurement, verdict

ROW = Row("t@1/quick", "a", "fid", 8.0, 7.5, 8.5, n=1000, seeds="0-999", checkpoint_sha256="1f" * 32)


@pytest.mark.parametrize(
    ("new", "reproduced", "words"),
    [
        (8.0, True, "equal to the last bit"),
        (8.0 * (1 + NUMERICS / 2), True, "equal up to rounding"),
        (8.0 * (1 + 2 * NUMERICS), True, "inside the recorded"),
        (8.5, True, "inside the recorded"),
        (np.nextafter(8.5, 9), False, "outside the recorded"),
        (None, False, "a value only one"),
    ],
)
def test_a_value_is_equal_close_inside_or_outside(new: float | None, reproduced: bool, words: str) -> None:
    found = verdict(ROW, replace(ROW, value=new))
    assert found.reproduced is reproduced
    assert found.sentence.startswith(words)
    assert found.difference == (None if new is None else new - 8.0)


def test_rounding_is_measured_by_the_interval_where_the_value_is_near_nothing() -> None:
    kernel = replace(ROW, value=1e-9, ci_low=-1e-3, ci_high=1e-3)
    assert verdict(kernel, replace(kernel, value=2e-9)).sentence == "equal up to rounding"


def test_a_value_without_an_interval_must_be_the_same() -> None:
    bare = replace(ROW, ci_low=None, ci_high=None)
    assert not verdict(bare, replace(bare, value=8.1)).reproduced
    assert verdict(bare, bare).reproduced


def test_a_gap_is_reproduced_by_a_gap() -> None:
    gap = replace(ROW, value=None, note="no density")
    assert verdict(gap, gap).reproduced


def test_times_are_not_judged() -> None:
    time = replace(ROW, metric="seconds_per_1000")
    assert verdict(time, replace(time, value=80.0)).reproduced


@pytest.mark.parametrize(("key", "other"), [("checkpoint_sha256", "2e"), ("seeds", "5-9"), ("n", 9)])
def test_a_number_of_something_else_is_none_of_the_same(key: str, other: object) -> None:
    found = verdict(ROW, replace(ROW, **{key: other}))
    assert not found.reproduced
    assert key in found.sentence
    assert verdict(replace(ROW, **{key: None}), ROW).reproduced  # an older row does not say


def test_float32_sums_in_another_order_are_equal_up_to_rounding() -> None:
    terms = np.random.default_rng(0).standard_normal(10_000).astype(np.float32) + 3
    forwards, backwards = (float(np.add.accumulate(t)[-1]) for t in (terms, terms[::-1]))
    assert forwards != backwards
    assert verdict(replace(ROW, value=forwards), replace(ROW, value=backwards)).sentence.endswith("rounding")


def test_the_last_row_of_the_same_measurement_is_compared() -> None:
    newer, other = replace(ROW, value=9.0, run_id="new"), replace(ROW, sampler="heun(steps=3)")
    assert same_measurement(ROW, [ROW, newer, other]) is newer
    assert same_measurement(ROW, [other]) is None
