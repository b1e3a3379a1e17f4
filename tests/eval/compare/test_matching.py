"""Which rows meet, and which of those that meet may be subtracted."""

from __future__ import annotations

from typing import Any

import pytest
from eval.compare.result_rows import row

from lsgm.results import Row
from lsgm_eval.compare.numbers import match_rows, why_not


def distance(**fields: Any) -> Row:
    known = {"n": 1000, "split": "train", "sampler": "heun(steps=10)", "seeds": "0-999"}
    return row("frechet_glyphs", 5.0, **known | {"extractor": "glyphs@" + "e" * 64} | fields)


def test_rows_meet_by_metric_group_and_sampler_in_the_order_of_the_first() -> None:
    a = [distance(), distance(group="curve"), distance(group="curve", sampler="euler(steps=5)")]
    b = [a[2], row("nfe", 3.0), a[1], a[0]]
    found = match_rows(a, b)
    assert found == [*((one, one) for one in a), (None, b[1])]
    assert why_not(*found[3]) == "only in B"


def test_a_model_without_a_sampler_meets_one_that_has_one() -> None:
    (found,) = match_rows([distance()], [distance(sampler=None)])
    assert found == (distance(), distance(sampler=None))
    assert why_not(*found) == ""


def test_two_settings_that_could_both_be_meant_do_not_meet() -> None:
    a = [distance(sampler="heun(steps=5)"), distance(sampler="heun(steps=20)")]
    found = match_rows(a, [distance()])
    assert [why_not(*pair) for pair in found] == ["only in A", "only in A", "only in B"]


def test_numbers_of_several_data_or_references_meet_those_of_their_own() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"dataset": "photos@64px@" + "f" * 64},
        {"reference_sha256": "f" * 64},
        {"extractor": "glyphs@" + "f" * 64},
    ]
    several = [distance(**change) for change in changes]
    found = match_rows(several, several[::-1])
    assert found == [(one, one) for one in several]
    assert not any(why_not(*pair) for pair in found)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, ""),
        ({"task": "glyphs@2/quick"}, "another task: glyphs@1/quick and glyphs@2/quick"),
        ({"task": "glyphs@1/full"}, "another task: glyphs@1/quick and glyphs@1/full"),
        ({"task": "glyphs@1/quick-limit-9"}, "another task"),
        ({"dataset": "glyphs@1@" + "f" * 64}, "other data: glyphs@1@dddddddddddd and glyphs@1@ffffffffffff"),
        ({"split": "test"}, "other split: train and test"),
        ({"extractor": "glyphs@" + "f" * 64}, "other extractor: glyphs@eeeeeeeeeeee and glyphs@ffffffffffff"),
        ({"reference_sha256": "f" * 64}, "other reference: none and ffffffffffff"),
        ({"levels_sha256": "f" * 64}, "other bits scored"),
        ({"n": 400}, "other numbers of images: 1000 and 400"),
        ({"value": None, "note": "too few images; more"}, "not measured in B: too few images"),
    ],
)
def test_numbers_of_other_things_are_not_subtracted(fields: dict[str, Any], said: str) -> None:
    (found,) = match_rows([distance()], [distance(**fields)])
    reason = why_not(*found)
    assert reason.startswith(said)
    assert bool(reason) == bool(said)


def test_a_custom_protocol_compares_with_the_same_settings_alone() -> None:
    custom = [row("iw_nats", 90.0, task="glyphs@1/quick-custom", sampler=f"iw(samples={k})") for k in (5, 50)]
    assert why_not(custom[0], custom[0]) == ""
    assert why_not(*custom) == "other settings: iw(samples=5) and iw(samples=50)"


def test_likelihoods_need_not_be_of_equally_many_images() -> None:
    assert why_not(row("nelbo_nats", 90.0, n=100), row("nelbo_nats", 91.0, n=99)) == ""


def test_seconds_compare_on_one_machine_alone() -> None:
    seconds = row("seconds_per_1000", 5.0), row("seconds_per_1000", 6.0)
    assert why_not(*seconds, ({"cores": 2}, {"cores": 2})) == ""
    assert why_not(*seconds, ({"cores": 2}, {"cores": 8})) == "seconds of other machines"
    assert why_not(row("nfe", 5.0), row("nfe", 6.0), ({"cores": 2}, None)) == ""
